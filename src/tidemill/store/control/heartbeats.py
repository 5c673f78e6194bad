"""The heartbeat that a driver writes every 2 s, and what it reads in answer."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.errors import Fenced
from tidemill.store.connection import translated
from tidemill.store.control.streams import read_stream

_GROWN = "(behind_seconds + TIMESTAMPDIFF(MICROSECOND, heartbeat_at, UTC_TIMESTAMP(6)) / 1000000)"
_BEHIND = f"LEAST(COALESCE(VALUES(behind_seconds), {_GROWN}), COALESCE({_GROWN}, VALUES(behind_seconds)))"


def report_heartbeat(connection: Connection[Any], stream: str, epoch: int, state: str, **facts: object) -> bool:
    """Write a driver's heartbeat, and read whether the driver is to keep running.

    ``behind_seconds`` becomes the smaller of the reported value and the previous one plus the time since: what the
    tables contained once, they still contain. A driver that does not know the lag yet, because it is starting,
    reports None, and the previous value grows.

    Args:
        connection: in autocommit mode.
        stream: name of the stream.
        epoch: of the driver that reports.
        state: what the driver is doing.
        facts: columns of ``heartbeats``: ``batches``, ``records``, ``lag_records``, ``batch_ms``, ``last_error``, ….

    Returns:
        True while the stream's desired state is ``running`` and this driver's exit is not requested.

    Raises:
        Fenced: another driver has acquired the lease; nothing was written.
    """
    row = read_stream(connection, stream)
    if row is None or row.epoch != epoch:
        now = row.epoch if row else "none"
        raise Fenced("TM-STORE-LEASE-LOST", stream=stream, value=f"this is epoch {epoch}, the lease has {now}")
    values = {"state": state, "behind_seconds": None, **facts, "epoch": epoch}
    columns = ", ".join(values)
    marks = ", ".join(f"%({name})s" for name in values)
    # A driver of a later epoch may have reported since the row was read; its values are kept.
    assignments = {"behind_seconds": _BEHIND, "heartbeat_at": "UTC_TIMESTAMP(6)"} | {
        name: f"VALUES({name})" for name in values if name != "behind_seconds"
    }
    changes = ", ".join(f"{name} = IF(VALUES(epoch) >= epoch, {new}, {name})" for name, new in assignments.items())
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO heartbeats (stream, heartbeat_at, {columns}) VALUES (%(stream)s, UTC_TIMESTAMP(6), {marks})"
            # From left to right: the lag is grown by the time since the last heartbeat before that is overwritten,
            # and the epoch is overwritten last.
            f" ON DUPLICATE KEY UPDATE {changes}",
            {"stream": stream, **values},
        )
    return row.desired_state == "running" and row.halted_reason is None and (row.exit_epoch or 0) < epoch
