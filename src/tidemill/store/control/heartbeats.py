"""What a driver says of itself every 2 s, and what it reads in answer."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.errors import Fenced
from tidemill.store.connection import translated
from tidemill.store.control.streams import read_stream

_GROWN = "(lag_seconds + TIMESTAMPDIFF(MICROSECOND, heartbeat_at, UTC_TIMESTAMP(6)) / 1000000)"


_LAG = f"LEAST(COALESCE(VALUES(lag_seconds), {_GROWN}), COALESCE({_GROWN}, VALUES(lag_seconds)))"


def report_heartbeat(connection: Connection[Any], stream: str, epoch: int, state: str, **facts: object) -> bool:
    """Write a driver's heartbeat, and read whether it may go on.

    Of ``lag_seconds`` the lesser of two is kept: what the driver says, and the last one grown by the time since. What
    the tables held once, they hold; and a driver that cannot tell, because it just starts, makes nothing fresher.

    Args:
        connection: autocommit.
        stream: whose.
        epoch: the driver's own.
        state: what it is doing.
        facts: columns of ``heartbeats``: ``batches``, ``records``, ``lag_records``, ``batch_ms``, ``last_error``, ….

    Returns:
        True while the stream is wanted and this driver is not asked to leave.

    Raises:
        Fenced: another driver took the stream over; nothing was written.
    """
    row = read_stream(connection, stream)
    if row is None or row.epoch != epoch:
        raise Fenced(f"stream {stream} was taken over", value=f"epoch {epoch}, now {row.epoch if row else 'none'}")
    values = {"state": state, "lag_seconds": None, **facts, "epoch": epoch}
    columns = ", ".join(values)
    marks = ", ".join(f"%({name})s" for name in values)
    # A driver of a later epoch may have spoken since the row was read, and its word stays.
    news = {"lag_seconds": _LAG, "heartbeat_at": "UTC_TIMESTAMP(6)"} | {
        name: f"VALUES({name})" for name in values if name != "lag_seconds"
    }
    changes = ", ".join(f"{name} = IF(VALUES(epoch) >= epoch, {new}, {name})" for name, new in news.items())
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO heartbeats (stream, heartbeat_at, {columns}) VALUES (%(stream)s, UTC_TIMESTAMP(6), {marks})"
            # From left to right: the lag is grown by the time since the last heartbeat before that is overwritten,
            # and the epoch is overwritten last.
            f" ON DUPLICATE KEY UPDATE {changes}",
            {"stream": stream, **values},
        )
    return row.desired_state == "running" and row.halted_reason is None and (row.exit_epoch or 0) < epoch
