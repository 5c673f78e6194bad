"""Rows about what is wanted of a stream, and what became of its drivers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.connection import translated
from tidemill.store.control.incidents import open_incident

_READ = """
SELECT s.stream, s.desired_state, s.requested_by, s.requested_at, s.halted_reason, s.exit_epoch, s.exit_requested_at,
       CAST(COALESCE(l.epoch, 0) AS SIGNED) AS epoch, l.pipeline_version, l.host, l.pid, l.log_file, l.master,
       l.submission_id, l.acquired_at,
       h.epoch AS heartbeat_epoch, h.state, h.heartbeat_at, h.batches, h.records, h.lag_records, h.lag_seconds,
       h.newest_at,
       h.records_per_second, h.batch_ms, h.batch_limit, h.latency_p50_ms, h.latency_p99_ms, h.last_error, h.waiting_for,
       s.failures_in_a_row, s.last_failed_at,
       (SELECT CAST(COALESCE(MAX(p.version), 0) AS SIGNED) FROM pipelines AS p WHERE p.pipeline = s.stream)
           AS newest_version,
       (SELECT COUNT(*) FROM incidents AS i WHERE i.end_notified_at IS NULL AND i.subject = CONCAT('stream ', s.stream)
           AND (i.notified_at IS NULL OR i.closed_at IS NOT NULL)) AS pending_notifications,
       (SELECT MIN(i.opened_at) FROM incidents AS i WHERE i.subject = CONCAT('stream ', s.stream)
           AND i.kind = 'freshness' AND i.closed_at IS NULL) AS freshness_incident_since,
       UTC_TIMESTAMP(6) AS now
FROM streams AS s LEFT JOIN leases AS l USING (stream) LEFT JOIN heartbeats AS h USING (stream)
"""


def read_stream(connection: Connection[Any], stream: str) -> StreamRow | None:
    """One stream, or None if nothing was ever wished of it."""
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(_READ + " WHERE s.stream = %s", (stream,))
        row = cursor.fetchone()
    return StreamRow(**row) if row else None


def read_streams(connection: Connection[Any]) -> list[StreamRow]:
    """Every stream, by name."""
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(_READ + " ORDER BY s.stream")
        return [StreamRow(**row) for row in cursor.fetchall()]


def request_state(connection: Connection[Any], stream: str, state: str, by: str) -> None:
    """Set the desired state of a stream, ``running`` or ``stopped``; ``running`` closes an open circuit."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO streams (stream, desired_state, requested_by, requested_at)"
            " VALUES (%(stream)s, %(state)s, %(by)s, UTC_TIMESTAMP(6))"
            " ON DUPLICATE KEY UPDATE desired_state = %(state)s, requested_by = %(by)s,"
            " requested_at = UTC_TIMESTAMP(6), failures_in_a_row = IF(%(state)s = 'running', 0, failures_in_a_row),"
            " halted_reason = IF(%(state)s = 'running', NULL, halted_reason)",
            {"stream": stream, "state": state, "by": by},
        )


def request_stop(connection: Connection[Any], row: StreamRow, by: str) -> bool:
    """Have a stream stop, unless something else was wished of it since it was read.

    Args:
        connection: autocommit.
        row: the stream, wanted running, as it was read.
        by: who wants it stopped.

    Returns:
        Whether it is wished stopped by this call.
    """
    with translated(), connection.cursor() as cursor:
        return bool(
            cursor.execute(
                "UPDATE streams SET desired_state = 'stopped', requested_by = %s, requested_at = UTC_TIMESTAMP(6)"
                " WHERE stream = %s AND desired_state = 'running' AND requested_at = %s",
                (by, row.stream, row.requested_at),
            )
        )


def request_exit(connection: Connection[Any], stream: str, by: str | None = None, *, epoch: int | None = None) -> None:
    """Have the present driver leave gracefully and another one follow it.

    Args:
        connection: autocommit.
        stream: whose.
        by: the person who asks for a restart, which is a wish that it runs; None for a roll, which is no wish.
        epoch: of the driver that is meant; one that has followed it meanwhile stays. None for whichever there is.
    """
    if by is not None:
        request_state(connection, stream, "running", by)
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE streams AS s JOIN leases AS l USING (stream)"
            " SET s.exit_epoch = l.epoch, s.exit_requested_at = UTC_TIMESTAMP(6)"
            " WHERE s.stream = %s AND l.epoch = COALESCE(%s, l.epoch)"
            " AND (s.exit_epoch IS NULL OR s.exit_epoch < l.epoch)",
            (stream, epoch),
        )


def count_failure(connection: Connection[Any], stream: str, epoch: int) -> bool:
    """The driver of an epoch failed: one more since the last commit.

    Returns:
        False if this epoch's failure was counted before, or the stream was taken over since.
    """
    with translated(), connection.cursor() as cursor:
        return bool(
            cursor.execute(
                "UPDATE streams AS s JOIN leases AS l USING (stream)"
                " SET s.failures_in_a_row = s.failures_in_a_row + 1, s.last_failed_at = UTC_TIMESTAMP(6)"
                " WHERE s.stream = %s AND l.epoch = %s"
                " AND (s.last_failed_at IS NULL OR s.last_failed_at < l.acquired_at)",
                (stream, epoch),
            )
        )


def clear_failures(connection: Connection[Any], stream: str) -> None:
    """A driver has committed: what failed before it is over."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE streams SET failures_in_a_row = 0 WHERE stream = %s AND failures_in_a_row > 0", (stream,)
        )


def open_circuit(connection: Connection[Any], stream: str, reason: str, requested_at: datetime | None = None) -> bool:
    """Open the circuit: the stream waits for a person. Also an incident.

    Args:
        connection: autocommit.
        stream: whose.
        reason: for the person.
        requested_at: the wish that the decision was made on, so that a later one is not undone; None for any.

    Returns:
        Whether it is open by this call.
    """
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE streams SET halted_reason = %s"
            " WHERE stream = %s AND halted_reason IS NULL AND requested_at = COALESCE(%s, requested_at)",
            (reason[:2000], stream, requested_at),
        )
        opened = bool(cursor.rowcount)
    if opened:
        open_incident(connection, f"stream {stream}", "halted", reason)
    return opened
