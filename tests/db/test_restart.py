"""``./tidemill restart`` asks the driver to leave, and waits for the next one to read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pymysql.connections import Connection

from tidemill.cli.restart import restart
from tidemill.config import Account, Settings
from tidemill.errors import StreamError
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.connection import session
from tidemill.store.control import heartbeats, leases, streams
from tidemill.store.migrations import migrate_control
from tidemill.testing import wait_until

STREAM = "restarted"


@pytest.fixture
def connection(mariadb: Settings) -> Iterator[Connection[Any]]:
    """A stream whose driver of epoch 1 runs."""
    with session(mariadb, Account.MIGRATE) as migrating:
        migrate_control(migrating, mariadb.root / "sql")
    with session(mariadb, Account.STREAM) as found:
        with found.cursor() as cursor:
            for table in ("streams", "leases", "heartbeats"):
                cursor.execute(f"DELETE FROM {table} WHERE stream = %s", (STREAM,))
        streams.request_state(found, STREAM, "running", "a test")
        leases.acquire_lease(found, STREAM, 1, "a test")
        heartbeats.report_heartbeat(found, STREAM, 1, "running")
        yield found


def row_of(connection: Connection[Any]) -> StreamRow:
    """The stream now."""
    row = streams.read_stream(connection, STREAM)
    assert row is not None
    return row


def test_it_waits_until_the_next_driver_reads(mariadb: Settings, connection: Connection[Any]) -> None:
    """The driver that is there hears of it with its next heartbeat, and a newer epoch is the answer."""
    found: list[int | None] = []
    asking = threading.Thread(target=lambda: found.append(restart(mariadb, STREAM, "a person", 20)))
    asking.start()
    wait_until(
        lambda: not heartbeats.report_heartbeat(connection, STREAM, 1, "running"), 60, "the driver is asked to leave"
    )
    heartbeats.report_heartbeat(connection, STREAM, 1, "stopped")
    assert (
        leases.acquire_lease(connection, STREAM, 1, "a test", expected=1, requested_at=row_of(connection).requested_at)
        == 2
    )
    heartbeats.report_heartbeat(connection, STREAM, 2, "starting")
    assert not found
    assert heartbeats.report_heartbeat(connection, STREAM, 2, "running")
    asking.join(60)
    assert found == [2]


def test_a_driver_that_does_not_come_is_one_sentence_and_the_wish_stands(
    mariadb: Settings, connection: Connection[Any]
) -> None:
    """Airflow may be down; whenever it is up again, the wish is there."""
    streams.request_state(connection, STREAM, "stopped", "a test")
    with pytest.raises(
        StreamError, match=r"TM-CLI-RESTART-TIMED-OUT.* restarted reads within 0\.1 s: epoch 1 is running; .*DAG"
    ):
        restart(mariadb, STREAM, "a person", 0.1)
    row = row_of(connection)
    assert (row.desired_state, row.requested_by, row.exit_epoch) == ("running", "a person", 1)


def test_nobody_has_to_wait(mariadb: Settings, connection: Connection[Any]) -> None:
    """With 0 seconds it only asks."""
    assert restart(mariadb, STREAM, "a person", 0) is None
    assert row_of(connection).exit_epoch == 1
