"""The Spark session of training and scoring."""

from __future__ import annotations

import os

from pyspark.sql import SparkSession

from tidemill.config import Settings

_CONF = {
    "spark.sql.session.timeZone": "UTC",
    # Rows are copied into a bulk-load file a batch at a time: large batches, few statements.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    "spark.sql.shuffle.partitions": "8",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_LAUNCHED = "PYSPARK_GATEWAY_PORT"
"""Set by spark-submit: the JVM runs already, with the master, the memory and the jars that spark-submit was given."""


def ml_session(name: str, settings: Settings) -> SparkSession:
    """A session for one job of the feedback loop, under spark-submit or without it."""
    builder = SparkSession.builder.appName(f"tidemill {name}")
    conf = dict(_CONF)
    if _LAUNCHED not in os.environ:
        conf["spark.master"] = settings.spark_master
        conf["spark.driver.memory"] = settings.spark_driver_memory
        conf["spark.jars"] = ",".join(str(jar) for jar in sorted((settings.jars / "spark").glob("*.jar")))
        if settings.spark_master.startswith("local"):
            conf |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    for key, value in conf.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark
