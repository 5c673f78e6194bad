"""A person's actions on a stream's runs in Airflow: marking one failed stops the stream, and nothing else does.

That Airflow's server calls the listener, for a task as for a run, is in ``test_faults.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunType
from pymysql.connections import Connection
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from tidemill.airflow.listeners import marked_failed, stop_request
from tidemill.config import Account, Settings
from tidemill.errors import ConfigError, DatabaseUnavailable
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import streams

STREAM = "ebbing"
DAG_ID = f"stream__{STREAM}"
RUNS = {"old": DagRunState.FAILED, "present": DagRunState.RUNNING, "queued": DagRunState.QUEUED}
MANUALLY = "Dag Run's state was manually set to `failed`."


@dataclass
class Marks:
    """A stream with the desired state running, and three runs of its DAG: an old, the present and a queued one."""

    connection: Connection[Any]
    metadata: Session

    def desired_state(self) -> tuple[str, str]:
        """The desired state, and who requested it."""
        row = streams.read_stream(self.connection, STREAM)
        assert row is not None
        return row.desired_state, row.requested_by


@pytest.fixture
def scene(tides: tuple[Settings, Pipeline]) -> Iterator[Marks]:
    """A test has started the stream. It has no pipeline; applying another one has migrated the tables."""
    with session(tides[0], Account.STREAM) as connection, create_session(scoped=False) as metadata:
        streams.request_state(connection, STREAM, "running", "a test")
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        for minute, (name, state) in enumerate(RUNS.items()):
            at = hour_ago + timedelta(minutes=minute)
            run = DagRun(dag_id=DAG_ID, run_id=name, run_type=DagRunType.MANUAL, run_after=at, state=state)
            run.start_date, run.queued_at = None if name == "queued" else at, at
            metadata.add(run)
        metadata.commit()
        try:
            yield Marks(connection, metadata)
        finally:
            metadata.execute(delete(DagRun).where(DagRun.dag_id == DAG_ID))
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM streams WHERE stream = %s", (STREAM,))


def task_failed(run_id: str, before: Any = None, dag_id: str = DAG_ID) -> None:
    """What Airflow reports when a task has failed."""
    marked_failed.on_task_instance_failed(before, SimpleNamespace(dag_id=dag_id, run_id=run_id), "it failed")  # type: ignore[arg-type]


def run_failed(run_id: str, msg: str) -> None:
    """What Airflow reports when a run has failed."""
    marked_failed.on_dag_run_failed(SimpleNamespace(dag_id=DAG_ID, run_id=run_id), msg)  # type: ignore[arg-type]


BY_MARK = ("stopped", "airflow: run present was marked failed")


def test_a_task_that_is_marked_failed_stops_the_stream(scene: Marks) -> None:
    """By the time the request is answered."""
    task_failed("present")
    assert scene.desired_state() == BY_MARK


def test_a_run_that_is_marked_failed_stops_the_stream(scene: Marks) -> None:
    """Whatever its tasks do."""
    run_failed("present", MANUALLY)
    assert scene.desired_state() == BY_MARK


@pytest.mark.parametrize(
    "report",
    [
        lambda: task_failed("present", "running"),
        lambda: run_failed("present", "task_failure"),
        lambda: task_failed("old"),
        lambda: run_failed("old", MANUALLY),
        lambda: run_failed("queued", MANUALLY),
        lambda: task_failed("present", dag_id="refresh__ebbing__flood"),
    ],
    ids=["task failed by itself", "run failed by itself", "old task", "old run", "queued run", "another DAG"],
)
def test_nothing_else_stops_the_stream(scene: Marks, report: Callable[[], None]) -> None:
    """The stream belongs to the run under way."""
    report()
    assert scene.desired_state() == ("running", "a test")


def test_a_stream_that_is_stopped_already_keeps_who_stopped_it(scene: Marks) -> None:
    """Marking does not replace an earlier stop request."""
    streams.request_state(scene.connection, STREAM, "stopped", "a person")
    task_failed("present")
    assert scene.desired_state() == ("stopped", "a person")


@pytest.mark.parametrize(
    ("marked", "desired_state"), [("queued", "stopped"), ("present", "running"), ("old", "running")]
)
def test_between_two_runs_the_newest_counts(scene: Marks, marked: str, desired_state: str) -> None:
    """The driver lives on between them, and belongs to the one that will adopt it."""
    scene.metadata.execute(
        update(DagRun).where(DagRun.dag_id == DAG_ID, DagRun.run_id == "present").values(state=DagRunState.SUCCESS)
    )
    scene.metadata.commit()
    run_failed(marked, MANUALLY)
    assert scene.desired_state()[0] == desired_state


Outage = Callable[[Exception, int], list[int]]


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    """Makes the first few connections fail; returns the list of those that are left to fail."""
    real = stop_request.open_in_api_server
    monkeypatch.setattr(stop_request, "PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(stop_request, "RESPONSE_SECONDS", 0.05)

    def begin(error: Exception, times: int) -> list[int]:
        left = [*range(times)]

        def connect() -> Connection[Any]:
            if left:
                left.pop()
                raise error
            return real()

        monkeypatch.setattr(stop_request, "open_in_api_server", connect)
        return left

    return begin


@pytest.mark.parametrize(
    "error",
    [
        DatabaseUnavailable("TM-STORE-UNAVAILABLE"),
        ConfigError("TM-AIRFLOW-CONNECTION-MISSING", value="tidemill_db"),
    ],
    ids=["database", "Airflow"],
)
def test_a_mark_stops_the_stream_once_the_database_is_back(scene: Marks, outage: Outage, error: Exception) -> None:
    """A mark made during an outage is not lost. Airflow's server does not wait for it.

    Where Airflow cannot look a connection up, it reports that there is none.
    """
    left = outage(error, 3)
    waiting = stop_request.request_stop_of_run(STREAM, DAG_ID, "present")
    assert waiting.is_alive()
    assert stop_request.request_stop_of_run(STREAM, DAG_ID, "present") is waiting
    waiting.join(60)
    assert (scene.desired_state(), left) == (BY_MARK, [])


def test_a_request_made_since_the_mark_stays_in_effect(scene: Marks, outage: Outage) -> None:
    """The mark is older than the request."""
    left = outage(DatabaseUnavailable("TM-STORE-UNAVAILABLE"), 3)
    waiting = stop_request.request_stop_of_run(STREAM, DAG_ID, "present")
    streams.request_state(scene.connection, STREAM, "running", "a person, later")
    waiting.join(60)
    assert (scene.desired_state(), left) == (("running", "a person, later"), [])


def test_a_request_made_while_the_mark_is_handled_stays_in_effect(scene: Marks) -> None:
    """Between reading the row and changing it, a person may request a state."""
    row = streams.read_stream(scene.connection, STREAM)
    assert row is not None
    streams.request_state(scene.connection, STREAM, "running", "a person, just then")
    assert not streams.request_stop(scene.connection, row, "a mark")
    assert scene.desired_state() == ("running", "a person, just then")


def test_a_database_that_stays_unavailable_is_given_up(
    scene: Marks, outage: Outage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the mark that had no effect."""
    left = outage(DatabaseUnavailable("TM-STORE-UNAVAILABLE"), 1_000)
    monkeypatch.setattr(stop_request, "RETRY_FOR_SECONDS", 0.5)
    stop_request.request_stop_of_run(STREAM, DAG_ID, "present").join(60)
    assert scene.desired_state() == ("running", "a test")
    assert 0 < len(left) < 1_000
    assert f"stream {STREAM} was not stopped although its run present was marked failed" in caplog.text
