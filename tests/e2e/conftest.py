"""One local Spark for all drivers and replays that run in the tests' own process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from tidemill.config import Settings
from tidemill.devstack.stack import Stack
from tidemill.stream.session import STREAM_CONF
from tidemill.supervisor.spark_submit import spark_jars


@pytest.fixture(scope="session")
def local_spark(stack: Stack, kafka: Settings) -> Iterator[SparkSession]:
    """A local Spark, the process's own if it has one already. After the stack, whose start ends leftovers.

    One for the whole lane: Spark's Kafka connector can be initialised only once in a JVM, and another Spark context
    would load its classes again.
    """
    is_new = SparkSession.getActiveSession() is None
    builder = SparkSession.builder.master("local[2]").appName("tidemill tests")
    conf = {**STREAM_CONF, "spark.ui.enabled": "false", "spark.driver.memory": "1g", "spark.jars": spark_jars(kafka)}
    for key, value in conf.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    if is_new:
        session.stop()
