"""Which physical plans move records between tasks, asked of plans that Spark itself has made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tidemill.stream.spark_internals import find_shuffle

ADAPTIVE = "spark.sql.adaptive.enabled"


@pytest.fixture(params=["false", "true"], ids=["fixed", "adaptive"])
def records(request: pytest.FixtureRequest, spark: SparkSession) -> Iterator[DataFrame]:
    """Records in three partitions, planned without and with adaptive execution, beside a broadcast view ``colours``."""
    before = spark.conf.get(ADAPTIVE)
    spark.conf.set(ADAPTIVE, request.param)
    # What is broadcast may have been shuffled, as the check of a dimension's key does.
    colours = spark.createDataFrame([(1, "red"), (2, "blue")], "id INT, colour STRING").distinct().cache()
    F.broadcast(colours).createOrReplaceTempView("colours")
    yield spark.range(0, 20, 1, 3).selectExpr("CAST(id % 4 AS INT) AS id", "'Exchange (x)' AS said")
    spark.conf.set(ADAPTIVE, str(before))
    colours.unpersist()


def joined(records: DataFrame) -> DataFrame:
    """The records joined to the same dimension by two tables, one after the other, as a pipeline's transforms are."""
    for number in range(2):
        records.createOrReplaceTempView("records")
        sql = "SELECT struct(r.*) AS _record, c.colour FROM records AS r LEFT JOIN colours AS c ON c.id = r.id"
        records = records.sparkSession.sql(sql).select("_record.*", F.col("colour").alias(f"colour_{number}"))
    return records


def test_a_broadcast_that_two_tables_use_is_no_shuffle(records: DataFrame) -> None:
    """Spark broadcasts it once and reuses it; records stay in their task, before and after the plan has run."""
    rows = joined(records)
    if records.sparkSession.conf.get(ADAPTIVE) == "false":
        assert "ReusedExchange" in rows._jdf.queryExecution().executedPlan().toString()
    assert find_shuffle(rows) is None
    assert len(rows.collect()) == 20
    assert find_shuffle(rows) is None


def test_a_literal_is_no_shuffle(records: DataFrame) -> None:
    """The author's text is part of the plan's text."""
    assert find_shuffle(records.selectExpr("concat(said, 'Exchange hashpartitioning') AS said")) is None


@pytest.mark.parametrize(
    "shuffled",
    [
        pytest.param(lambda rows: rows.repartition(5), id="repartition"),
        pytest.param(lambda rows: rows.distinct(), id="distinct"),
        pytest.param(lambda rows: rows.orderBy("id"), id="sort"),
        pytest.param(lambda rows: rows.orderBy("id").limit(3), id="sort-and-limit"),
        pytest.param(lambda rows: rows.groupBy("id").count(), id="aggregate"),
        pytest.param(lambda rows: rows.join(rows.withColumnRenamed("said", "s").hint("merge"), "id"), id="merge-join"),
        pytest.param(lambda rows: rows.crossJoin(rows.hint("shuffle_replicate_nl")), id="cartesian-product"),
        pytest.param(lambda rows: rows.repartition(5).cache(), id="in-a-cached-plan"),
        pytest.param(lambda rows: joined(rows.repartition(5)), id="below-a-broadcast-join"),
    ],
)
def test_what_moves_records_is_found(records: DataFrame, shuffled: Callable[[DataFrame], DataFrame]) -> None:
    """Before the plan runs, and after it has run, when adaptive execution has replaced its nodes."""
    rows = shuffled(records)
    assert find_shuffle(rows) is not None
    rows.collect()
    assert find_shuffle(rows) is not None
    rows.unpersist()
