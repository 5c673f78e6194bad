"""One small Spark for the lane, configured as a streaming driver is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from support.models import ORDER_DAYS, ORDERS, open_shop, own_schemas, some_orders
from support.scores import HONEST, PARCELS, open_post, some_parcels
from support.trained import TrainedModel, begin, trained_in
from tidemill.config import Settings
from tidemill.devstack.stack import Stack
from tidemill.ml.training.train import train
from tidemill.stream.session import STREAM_CONF
from tidemill.supervisor.spark_submit import spark_jars


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--pipeline`` is understood when this lane is named on the command line."""
    parser.addoption("--pipeline", help="Run the cases of the pipeline in this folder only.")


@pytest.fixture(scope="session")
def spark(stack: Stack) -> Iterator[SparkSession]:
    """A local Spark of one core. After the stack, whose start ends what an earlier run of the state has left."""
    builder = SparkSession.builder.master("local[1]").appName("tidemill tests")
    small = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "1", "spark.driver.memory": "1g"}
    small["spark.jars"] = spark_jars(stack.settings)
    for key, value in {**STREAM_CONF, **small}.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def jdbc(mariadb: Settings, spark: SparkSession) -> SparkSession:
    """The lane's Spark, with the database."""
    return spark


@pytest.fixture(scope="session")
def returns_model(jdbc: SparkSession, mariadb: Settings, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """The model of a shop of two months, trained by the training job's code and logged to MLflow.

    Where its artifact belongs, an interrupted training has left a folder before.
    """
    folder = tmp_path_factory.mktemp("returns")
    uri = (folder / "runs").as_uri()
    with own_schemas(mariadb, folder / "models") as settings, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        shop = open_shop(settings.model_copy(update={"mlflow_tracking_uri": uri}), folder)
        shop.commit(some_orders(ORDERS, ORDER_DAYS))
        (folder / "models" / "shop" / "returns" / "1" / "left-by-an-interrupted-training").mkdir(parents=True)
        refresh = begin(shop, "the session's training")
        train(jdbc, shop.settings, shop.pipeline, shop.model, refresh)
        model = trained_in(shop, refresh, folder / "files", uri)
        shop.connection.close()
        return model


@pytest.fixture(scope="session")
def breaks_model(jdbc: SparkSession, mariadb: Settings, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """The model of a post of 1,200 parcels."""
    folder = tmp_path_factory.mktemp("breaks")
    with own_schemas(mariadb, folder / "models") as settings:
        post = open_post(settings, folder, features=HONEST)
        post.write(some_parcels(PARCELS))
        refresh = begin(post, "the session's training")
        train(jdbc, settings, post.pipeline, post.model, refresh)
        model = trained_in(post, refresh, folder / "files")
        post.connection.close()
        return model
