"""The DAG ``maintenance`` on the real stack: green, red with the first difference named, and green again."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag

from tidemill.config import Account, Settings
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import ledger
from tidemill.supervisor import maintenance
from tidemill.supervisor.cleanup import RemovedFiles


def execute(settings: Settings, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read or change the control plane."""
    with session(settings, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def states(settings: Settings, **conf: bool) -> dict[str, str]:
    """Run the DAG; returns each task's state."""
    dag = DagBag(settings.root / "dags").dags["maintenance"]
    run = dag.test(run_conf=conf)
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


@pytest.fixture
def spared(tides: tuple[Settings, Pipeline], monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, Pipeline]:
    """The pipeline; files of this machine are left alone, for others may run beside the tests."""
    monkeypatch.setattr(maintenance, "remove_stale_files", lambda *_, **__: RemovedFiles())
    settings, pipeline = tides
    # Other tests wrote rows and commits of their own making.
    for table in ("commits", "offsets", "quarantine"):
        execute(settings, f"DELETE FROM {table} WHERE stream = 'tides'")
    for table in (*pipeline.tables, *pipeline.rollups):
        execute(settings, f"DELETE FROM {settings.db_data}.{table}")
    return tides


def test_maintenance_fails_while_the_ledger_does_not_agree(spared: tuple[Settings, Pipeline]) -> None:
    """Three tasks for one pipeline; the incident closes with the first run that finds nothing."""
    settings, pipeline = spared
    with session(settings, Account.STREAM) as connection:
        # A position is enough of a stream for a ledger that must agree with Kafka.
        ledger.begin_at(connection, pipeline.name, pipeline.source.topic, {0: 0})
    green = {"maintain_files": "success", "maintain__tides": "success", "verify__tides": "success"}
    assert states(settings, dry_run=True) == green
    execute(settings, "INSERT INTO offsets VALUES (%s, %s, 77, 5)", pipeline.name, pipeline.source.topic)
    assert states(settings)["verify__tides"] == "failed"
    incidents = "SELECT message, closed_at IS NULL FROM incidents WHERE subject = 'stream tides' AND kind = 'ledger'"
    message = "partition 77: the stream has a position, Kafka has no such partition"
    assert execute(settings, incidents) == [(message, 1)]
    execute(settings, "DELETE FROM offsets WHERE partition_id = 77")
    assert states(settings) == green
    assert execute(settings, incidents) == [(message, 0)]
