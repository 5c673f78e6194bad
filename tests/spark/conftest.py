"""One small Spark for the lane, configured as a streaming driver is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from tidemill.config import Settings
from tidemill.devstack.jars import part
from tidemill.devstack.stack import Stack
from tidemill.stream.session import STREAM_CONF


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--pipeline`` is understood when this lane is named on the command line."""
    parser.addoption("--pipeline", help="Run the cases of this pipeline only.")


@pytest.fixture(scope="session")
def spark(stack: Stack) -> Iterator[SparkSession]:
    """A local Spark of one core. After the stack, whose start ends what an earlier run of the state has left."""
    builder = SparkSession.builder.master("local[1]").appName("tidemill tests")
    small = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "1", "spark.driver.memory": "1g"}
    for key, value in {**STREAM_CONF, **small}.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def jdbc(mariadb: Settings, spark: SparkSession) -> SparkSession:
    """The lane's Spark, with the database's driver."""
    for jar in part(mariadb, "spark"):
        if jar.name.startswith("mariadb"):
            spark.sql(f"ADD JAR '{jar}'")
    return spark
