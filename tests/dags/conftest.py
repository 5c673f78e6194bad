"""Airflow's metadata, its connections and the pipeline ``tides``, for running DAGs on the real servers."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill import config
from tidemill.config import Account, Settings
from tidemill.deploy.apply import apply_all
from tidemill.devstack.servers import airflow
from tidemill.spec import Pipeline, load_pipelines

PIPELINES = Path(__file__).parent / "pipelines"


@pytest.fixture(scope="session")
def metadata(settings: Settings) -> Settings:
    """Airflow's metadata database, migrated."""
    airflow.prepare(settings, threading.Event())
    return settings


@pytest.fixture(scope="session")
def connections(metadata: Settings, mariadb: Settings, kafka: Settings) -> Iterator[Settings]:
    """The three Airflow connections, as its environment gives them."""
    database = {
        "conn_type": "tidemill",
        "host": mariadb.db_host,
        "port": mariadb.db_port,
        "schema": mariadb.db_control,
        "login": mariadb.user(Account.STREAM),
        "password": mariadb.password(Account.STREAM).get_secret_value(),
    }
    broker = {"conn_type": "kafka", "extra": {"bootstrap.servers": kafka.kafka_bootstrap}}
    spark = {"conn_type": "spark", "host": "local[2]"}
    with pytest.MonkeyPatch.context() as patch:
        for name, connection in (("tidemill_db", database), ("kafka_default", broker), ("spark_default", spark)):
            patch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
        yield metadata


@pytest.fixture(scope="module")
def tides(connections: Settings) -> Iterator[tuple[Settings, Pipeline]]:
    """The pipeline ``tides``, applied, and settings that know only it; for one module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIDEMILL_PIPELINES", str(PIPELINES))
        settings = config.load()
        pipelines = load_pipelines(PIPELINES)
        apply_all(settings, pipelines.values(), lambda line: None)
        yield settings, pipelines["tides"]
