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
from airflow.utils.types import DagRunType
from pymysql.connections import Connection
from sqlalchemy import delete

from tidemill.config import Account, Settings
from tidemill.errors import DatabaseAway
from tidemill.spec import Pipeline
from tidemill.store import control
from tidemill.store.connect import session
from tidemill.supervise import listener, marks

STREAM = "ebbing"
DAG_ID = f"stream__{STREAM}"
MANUALLY = "Dag Run's state was manually set to `failed`."


@dataclass
class Marks:
    """A stream that is wanted, and three runs of its DAG: an old one, the one that carries it, and one in the queue."""

    connection: Connection[Any]

    def wanted(self) -> tuple[str, str]:
        """What is wanted, and by whom."""
        row = control.read_stream(self.connection, STREAM)
        assert row is not None
        return row.wanted, row.wanted_by


@pytest.fixture
def scene(tides: tuple[Settings, Pipeline]) -> Iterator[Marks]:
    """The stream was wished to run, by a test. It has no pipeline; that another one is applied migrated the tables."""
    with session(tides[0], Account.STREAM) as connection, create_session(scoped=False) as metadata:
        control.wish(connection, STREAM, "running", "a test")
        began = datetime.now(UTC) - timedelta(hours=1)
        for name, start in (("old", began), ("present", began + timedelta(minutes=1)), ("queued", None)):
            run = DagRun(dag_id=DAG_ID, run_id=name, run_type=DagRunType.MANUAL, run_after=began, start_date=start)
            metadata.add(run)
        metadata.commit()
        try:
            yield Marks(connection)
        finally:
            metadata.execute(delete(DagRun).where(DagRun.dag_id == DAG_ID))
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM streams WHERE stream = %s", (STREAM,))


def task_failed(run_id: str, before: Any = None, dag_id: str = DAG_ID) -> None:
    """What Airflow tells when a task has failed."""
    listener.on_task_instance_failed(before, SimpleNamespace(dag_id=dag_id, run_id=run_id), "it failed")  # type: ignore[arg-type]


def run_failed(run_id: str, msg: str) -> None:
    """What Airflow tells when a run has failed."""
    listener.on_dag_run_failed(SimpleNamespace(dag_id=DAG_ID, run_id=run_id), msg)  # type: ignore[arg-type]


BY_MARK = ("stopped", "airflow: run present was marked failed")


def test_a_task_that_is_marked_failed_stops_the_stream(scene: Marks) -> None:
    """By the time the request is answered."""
    task_failed("present")
    assert scene.wanted() == BY_MARK


def test_a_run_that_is_marked_failed_stops_the_stream(scene: Marks) -> None:
    """Whatever its tasks do."""
    run_failed("present", MANUALLY)
    assert scene.wanted() == BY_MARK


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
    """The stream belongs to the run that started last."""
    told()
    assert scene.wanted() == ("running", "a test")


def test_a_stream_that_is_stopped_already_keeps_who_stopped_it(scene: Marks) -> None:
    """Marking is not wished over another wish."""
    control.wish(scene.connection, STREAM, "stopped", "somebody")
    task_failed("present")
    assert scene.wanted() == ("stopped", "somebody")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The database is away at the first looks: as many as there are elements."""
    real, looks = marks.server_connection, [1, 2]

    def connect() -> Connection[Any]:
        if looks:
            looks.pop()
            raise DatabaseAway("the database cannot be reached")
        return real()

    monkeypatch.setattr(marks, "server_connection", connect)
    monkeypatch.setattr(marks, "AGAIN_SECONDS", 0.2)
    return looks


def test_a_mark_is_heeded_once_the_database_is_back(scene: Marks, away: list[int]) -> None:
    """A person's act is not lost because it came at a bad moment."""
    waiting = marks.heed(STREAM, DAG_ID, "present")
    assert waiting is not None
    waiting.join(30)
    assert (scene.wanted(), away) == (BY_MARK, [])


def test_what_is_wished_meanwhile_stands(scene: Marks, away: list[int]) -> None:
    """The mark is older than the wish."""
    waiting = marks.heed(STREAM, DAG_ID, "present")
    control.wish(scene.connection, STREAM, "running", "somebody, later")
    assert waiting is not None
    waiting.join(30)
    assert (scene.wanted(), away) == (("running", "somebody, later"), [])


def test_a_database_that_stays_away_is_given_up(
    scene: Marks, away: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what is lost."""
    away.extend([0] * 1_000)
    monkeypatch.setattr(marks, "HEED_SECONDS", 0.5)
    waiting = marks.heed(STREAM, DAG_ID, "present")
    assert waiting is not None
    waiting.join(30)
    assert scene.wanted() == ("running", "a test")
    assert f"stream {STREAM} goes on although its run present was marked failed" in caplog.text
