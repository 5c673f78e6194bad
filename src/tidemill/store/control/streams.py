"""Rows of ``streams``: the desired state, requests to exit, failures of drivers, the circuit breaker."""

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
       h.epoch AS heartbeat_epoch, h.state, h.heartbeat_at, h.batches, h.records, h.lag_records, h.behind_seconds,
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
    """One stream, or None if no state was ever requested for it."""
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
    """Set the desired state to ``stopped``, unless another request came since the row was read.

    Args:
        connection: in autocommit mode.
        row: the stream, with the desired state ``running``, as it was read.
        by: who requests the stop.

    Returns:
        Whether this call changed the desired state.
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
    """Request the graceful exit of the present driver; the supervisor then starts another one.

    Args:
        connection: in autocommit mode.
        stream: name of the stream.
        by: the person who requests a restart, which also sets the desired state to ``running``; None for a rolling
            upgrade, which leaves the desired state as it is.
        epoch: of the driver that is to exit, so that its successor keeps running; None for the present driver.
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
    """Count a failure of the driver of an epoch; a commit resets the count.

    Returns:
        False if the failure of this epoch is counted already, or another driver has acquired the lease.
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
    """Reset the count of failures, because a driver has committed."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE streams SET failures_in_a_row = 0 WHERE stream = %s AND failures_in_a_row > 0", (stream,)
        )


def open_circuit(connection: Connection[Any], stream: str, reason: str, requested_at: datetime | None = None) -> bool:
    """Open the circuit: no driver is started until a person starts the stream. Opens an incident, too.

    Args:
        connection: in autocommit mode.
        stream: name of the stream.
        reason: for the person.
        requested_at: time of the request that the caller acts on, so that a later request is not overridden; None to
            act on any.

    Returns:
        Whether this call opened it.
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
