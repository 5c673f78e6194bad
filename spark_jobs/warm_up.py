"""A first query, and nothing else: what the JVM has loaded for it becomes the archive that every later one starts from.

The launcher runs it once (``./tidemill``). Of Spark's start most is the session and the first plan, whatever the query.
"""

from __future__ import annotations

from pyspark.sql import SparkSession


def main() -> None:
    """Plan and run a query of one task."""
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    spark.range(10).selectExpr("sum(id)").collect()
    spark.stop()


if __name__ == "__main__":
    main()
