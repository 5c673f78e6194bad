"""Freshness on the real database: the heartbeat's lag, the incident, who is told, and the sums that are measured."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk import BaseNotifier
from pymysql.connections import Connection

from tidemill.airflow import notifications
from tidemill.config import Account, Settings
from tidemill.console.metrics import exposition
from tidemill.console.queries import read_status
from tidemill.lifecycle.behind import behind_seconds
from tidemill.lifecycle.stream_row import FRESHNESS, StreamRow
from tidemill.store.connection import session
from tidemill.store.control import heartbeats, incidents, leases, streams
from tidemill.store.migrations import migrate_control
from tidemill.supervisor import freshness

STREAM = "told"
SUBJECT = f"stream {STREAM}"


@pytest.fixture
def connection(mariadb: Settings) -> Iterator[Connection[Any]]:
    """The control plane, and in it a wanted stream with a driver that has not spoken, and no history."""
    with session(mariadb, Account.MIGRATE) as migrating:
        migrate_control(migrating, mariadb.root / "sql")
    with session(mariadb, Account.STREAM) as connection:
        for table in ("streams", "leases", "heartbeats"):
            execute(connection, f"DELETE FROM {table} WHERE stream = %s", STREAM)
        execute(connection, "DELETE FROM incidents WHERE subject = %s", SUBJECT)
        streams.request_state(connection, STREAM, "running", "a test")
        leases.acquire_lease(connection, STREAM, 1, "a test")
        yield connection
        streams.request_state(connection, STREAM, "stopped", "a test")
        execute(connection, "DELETE FROM incidents WHERE subject = %s", SUBJECT)


def execute(connection: Connection[Any], statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a statement of the test's own."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def row_of(connection: Connection[Any]) -> StreamRow:
    """The stream now."""
    found = streams.read_stream(connection, STREAM)
    assert found is not None
    return found


def let_pass(connection: Connection[Any], seconds: float) -> None:
    """Move what was written back in time."""
    for table, column in (("streams", "requested_at"), ("heartbeats", "heartbeat_at")):
        execute(
            connection, f"UPDATE {table} SET {column} = {column} - INTERVAL {seconds} SECOND WHERE stream = %s", STREAM
        )


def test_a_heartbeat_that_cannot_tell_makes_nothing_fresher(connection: Connection[Any]) -> None:
    """A driver that starts again and again writes nothing: after a while the tables count as behind."""
    heartbeats.report_heartbeat(connection, STREAM, 1, "running", lag_records=0, behind_seconds=0.0)
    assert behind_seconds(row_of(connection)) == 0
    for epoch in (2, 3):
        let_pass(connection, 200)
        leases.acquire_lease(connection, STREAM, 1, "a test")
        heartbeats.report_heartbeat(connection, STREAM, epoch, "starting")
    assert behind_seconds(row_of(connection)) == pytest.approx(400, abs=5)
    heartbeats.report_heartbeat(connection, STREAM, 3, "running", lag_records=0, behind_seconds=0.0)
    assert behind_seconds(row_of(connection)) == 0


def test_a_record_after_a_silent_hour_is_not_an_hour_late(connection: Connection[Any]) -> None:
    """The newest committed record is old because nothing came; the tables held all of it until a moment ago."""
    heartbeats.report_heartbeat(connection, STREAM, 1, "running", lag_records=0, behind_seconds=0.0)
    let_pass(connection, 2)
    heartbeats.report_heartbeat(connection, STREAM, 1, "running", lag_records=1, behind_seconds=3600.0)
    assert behind_seconds(row_of(connection)) == pytest.approx(2, abs=2)


def test_a_broken_promise_is_an_incident_until_it_is_kept_again(connection: Connection[Any]) -> None:
    """Once, whoever looks; and what does not change costs no statement."""
    heartbeats.report_heartbeat(
        connection, STREAM, 1, "running", lag_records=50, behind_seconds=5.5, records_per_second=2.0
    )
    assert not freshness.update_freshness_incident(connection, row_of(connection), 30)
    let_pass(connection, 60)
    stale = row_of(connection)
    assert freshness.update_freshness_incident(connection, stale, 30)
    freshness.update_freshness_incident(connection, stale, 30)
    [(kind, sentence, closed_at)] = execute(
        connection, "SELECT kind, message, closed_at FROM incidents WHERE subject = %s", SUBJECT
    )
    assert (kind, closed_at) == (FRESHNESS, None)
    assert re.search(r"1 min [5-9] s behind Kafka, 30 s are promised; its driver is silent", sentence)
    late = row_of(connection)
    assert (late.freshness_incident_since is not None, late.pending_notifications) == (True, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "cursor", None)
        assert not freshness.update_freshness_incident(connection, late, 30)
    heartbeats.report_heartbeat(connection, STREAM, 1, "running", lag_records=0, behind_seconds=0.0)
    assert freshness.update_freshness_incident(connection, row_of(connection), 30)
    assert row_of(connection).freshness_incident_since is None


class Listener(BaseNotifier):
    """Writes down what it is told; interrupts the task if the test wants it."""

    def __init__(self, heard: list[notifications.Incident], trouble: BaseException | None = None) -> None:
        super().__init__()
        self.heard, self.trouble = heard, trouble

    def notify(self, context: Any) -> None:
        """Hear one incident."""
        if self.trouble:
            raise self.trouble
        self.heard.append(context["incident"])


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[notifications.Incident]:
    """What the one notifier is told."""
    heard: list[notifications.Incident] = []
    monkeypatch.setattr(notifications, "notifiers", lambda settings: {"listener": lambda: Listener(heard)})
    return heard


def test_the_beginning_and_the_end_are_told_once_each(
    mariadb: Settings, connection: Connection[Any], heard: list[notifications.Incident]
) -> None:
    """Passes without news tell nothing; incidents of other subjects are none of this task's."""
    incidents.open_incident(connection, SUBJECT, "test", "it broke")
    incidents.open_incident(connection, "stream another", "test", "it broke, too")
    assert notifications.notify(connection, SUBJECT, {}, mariadb) == 1
    assert notifications.notify(connection, SUBJECT, {}, mariadb) == 0
    assert row_of(connection).pending_notifications == 0
    incidents.close_incident(connection, SUBJECT, "test")
    assert row_of(connection).pending_notifications == 1
    assert notifications.notify(connection, SUBJECT, {}, mariadb) == 1
    assert notifications.notify(connection, SUBJECT, {}, mariadb) == 0
    assert [(each.subject, each.is_over) for each in heard] == [(SUBJECT, False), (SUBJECT, True)]
    assert heard[1].opened_at == heard[0].opened_at
    assert heard[1].opened_at.tzinfo is not None
    execute(connection, "DELETE FROM incidents WHERE subject = 'stream another'")


def test_what_was_over_before_anybody_was_told_is_told_once(
    mariadb: Settings, connection: Connection[Any], heard: list[notifications.Incident]
) -> None:
    """As over."""
    incidents.open_incident(connection, SUBJECT, "test", "it broke")
    incidents.close_incident(connection, SUBJECT, "test")
    assert notifications.notify(connection, SUBJECT, {}, mariadb) == 1
    assert [each.is_over for each in heard] == [True]
    assert row_of(connection).pending_notifications == 0


def test_of_eight_tasks_one_tells(
    mariadb: Settings, connection: Connection[Any], heard: list[notifications.Incident]
) -> None:
    """An incident is claimed in its row before it is told."""
    for kind in ("one", "two", "three"):
        incidents.open_incident(connection, SUBJECT, kind, "it broke")
    together = threading.Barrier(8)
    told: list[int] = []

    def task() -> None:
        with session(mariadb, Account.STREAM) as own:
            together.wait(60)
            told.append(notifications.notify(own, SUBJECT, {}, mariadb))

    threads = [threading.Thread(target=task) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(told) == 3
    assert sorted(each.kind for each in heard) == ["one", "three", "two"]


def test_a_task_that_is_ended_while_it_tells_gives_the_incident_back(
    mariadb: Settings, connection: Connection[Any], monkeypatch: pytest.MonkeyPatch, heard: list[notifications.Incident]
) -> None:
    """The next one tells it."""
    incidents.open_incident(connection, SUBJECT, "test", "it broke")
    with monkeypatch.context() as patch:
        patch.setattr(notifications, "notifiers", lambda settings: {"x": lambda: Listener(heard, KeyboardInterrupt())})
        with pytest.raises(KeyboardInterrupt):
            notifications.notify(connection, SUBJECT, {}, mariadb)
    assert row_of(connection).pending_notifications == 1
    assert notifications.notify(connection, SUBJECT, {}, mariadb) == 1


def test_a_notifier_that_never_succeeds_is_not_called_for_ever(
    mariadb: Settings, connection: Connection[Any], monkeypatch: pytest.MonkeyPatch, heard: list[notifications.Incident]
) -> None:
    """The incident counts as told; the task goes on."""
    monkeypatch.setattr(notifications, "_sleep", lambda seconds: None)
    monkeypatch.setattr(
        notifications, "notifiers", lambda settings: {"x": lambda: Listener(heard, ConnectionError("no line"))}
    )
    incidents.open_incident(connection, SUBJECT, "test", "it broke")
    assert notifications.notify(connection, SUBJECT, {}, mariadb) == 1
    assert row_of(connection).pending_notifications == 0


def test_a_scrape_shows_what_the_database_holds(mariadb: Settings, connection: Connection[Any]) -> None:
    """As the account that may only read."""
    heartbeats.report_heartbeat(
        connection, STREAM, 1, "running", lag_records=50, behind_seconds=5.0, latency_p99_ms=1500
    )
    incidents.open_incident(connection, SUBJECT, "test", "it broke")
    text = exposition(lambda: read_status(mariadb))[0].decode()
    assert "tidemill_database_up 1.0\n" in text
    assert f'tidemill_stream_lag_records{{stream="{STREAM}"}} 50.0\n' in text
    assert f'tidemill_stream_latency_seconds{{quantile="0.99",stream="{STREAM}"}} 1.5\n' in text
    assert f'tidemill_incidents_open{{kind="test",subject="{SUBJECT}"}} 1.0\n' in text
    away = replace_port(mariadb)
    assert "tidemill_database_up 0.0\n" in exposition(lambda: read_status(away))[0].decode()


def replace_port(settings: Settings) -> Settings:
    """A database that is not there."""
    return settings.model_copy(update={"db_port": 1})
