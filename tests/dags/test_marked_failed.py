"""What a person does to a stream's runs in Airflow: marking one failed stops the stream, and nothing else does.

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
    """A stream that is wanted, and three runs of its DAG: an old one, the one that carries it, and one in the queue."""

    connection: Connection[Any]
    metadata: Session

    def desired_state(self) -> tuple[str, str]:
        """What is wanted, and by whom."""
        row = streams.read_stream(self.connection, STREAM)
        assert row is not None
        return row.desired_state, row.requested_by


@pytest.fixture
def scene(tides: tuple[Settings, Pipeline]) -> Iterator[Marks]:
    """The stream was wished to run, by a test. It has no pipeline; that another one is applied migrated the tables."""
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
    """What Airflow tells when a task has failed."""
    marked_failed.on_task_instance_failed(before, SimpleNamespace(dag_id=dag_id, run_id=run_id), "it failed")  # type: ignore[arg-type]


def run_failed(run_id: str, msg: str) -> None:
    """What Airflow tells when a run has failed."""
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
    "told",
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
def test_nothing_else_stops_the_stream(scene: Marks, told: Callable[[], None]) -> None:
    """The stream belongs to the run under way."""
    told()
    assert scene.desired_state() == ("running", "a test")


def test_a_stream_that_is_stopped_already_keeps_who_stopped_it(scene: Marks) -> None:
    """Marking is not wished over another wish."""
    streams.request_state(scene.connection, STREAM, "stopped", "somebody")
    task_failed("present")
    assert scene.desired_state() == ("stopped", "somebody")


@pytest.mark.parametrize(("marked", "wanted"), [("queued", "stopped"), ("present", "running"), ("old", "running")])
def test_between_two_runs_the_newest_counts(scene: Marks, marked: str, wanted: str) -> None:
    """The driver lives on between them, and belongs to the one that will adopt it."""
    scene.metadata.execute(
        update(DagRun).where(DagRun.dag_id == DAG_ID, DagRun.run_id == "present").values(state=DagRunState.SUCCESS)
    )
    scene.metadata.commit()
    run_failed(marked, MANUALLY)
    assert scene.desired_state()[0] == wanted


Away = Callable[[Exception, int], list[int]]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    """Has the database be away at the first few looks; gives what is left of them."""
    real = stop_request.open_in_api_server
    monkeypatch.setattr(stop_request, "PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(stop_request, "RESPONSE_SECONDS", 0.05)

    def be_away(error: Exception, times: int) -> list[int]:
        left = [*range(times)]

        def connect() -> Connection[Any]:
            if left:
                left.pop()
                raise error
            return real()

        monkeypatch.setattr(stop_request, "open_in_api_server", connect)
        return left

    return be_away


@pytest.mark.parametrize(
    "error",
    [
        DatabaseUnavailable("the database cannot be reached"),
        ConfigError("TM-AIRFLOW-CONNECTION-MISSING", value="tidemill_db"),
    ],
    ids=["database", "Airflow"],
)
def test_a_mark_stops_the_stream_once_the_database_is_back(scene: Marks, away: Away, error: Exception) -> None:
    """A person's act is not lost because it came at a bad moment. Airflow's server does not wait for it.

    Where Airflow cannot look a connection up, it says that there is none.
    """
    left = away(error, 3)
    waiting = stop_request.request_stop_of_run(STREAM, DAG_ID, "present")
    assert waiting.is_alive()
    assert stop_request.request_stop_of_run(STREAM, DAG_ID, "present") is waiting
    waiting.join(60)
    assert (scene.desired_state(), left) == (BY_MARK, [])


def test_what_is_wished_meanwhile_stands(scene: Marks, away: Away) -> None:
    """The mark is older than the wish."""
    left = away(DatabaseUnavailable("the database cannot be reached"), 3)
    waiting = stop_request.request_stop_of_run(STREAM, DAG_ID, "present")
    streams.request_state(scene.connection, STREAM, "running", "somebody, later")
    waiting.join(60)
    assert (scene.desired_state(), left) == (("running", "somebody, later"), [])


def test_what_is_wished_at_the_same_moment_stands(scene: Marks) -> None:
    """Between reading the row and changing it somebody may wish something."""
    row = streams.read_stream(scene.connection, STREAM)
    assert row is not None
    streams.request_state(scene.connection, STREAM, "running", "somebody, just then")
    assert not streams.request_stop(scene.connection, row, "a mark")
    assert scene.desired_state() == ("running", "somebody, just then")


def test_a_database_that_stays_away_is_given_up(
    scene: Marks, away: Away, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what is lost."""
    left = away(DatabaseUnavailable("the database cannot be reached"), 1_000)
    monkeypatch.setattr(stop_request, "RETRY_FOR_SECONDS", 0.5)
    stop_request.request_stop_of_run(STREAM, DAG_ID, "present").join(60)
    assert scene.desired_state() == ("running", "a test")
    assert 0 < len(left) < 1_000
    assert f"stream {STREAM} was not stopped although its run present was marked failed" in caplog.text
