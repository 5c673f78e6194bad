"""The control plane's rows about streams: wish, lease, heartbeat, incidents.

Whoever takes a stream over raises its epoch here; whoever writes rows proves in :mod:`~tidemill.store.proofs` that
the epoch is still its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.errors import Fenced
from tidemill.store.connect import translated

FRESHNESS = "freshness"
"""Kind of the incident that is open while a stream's tables are older than its pipeline promises."""
SILENT_SECONDS = 15.0
"""A driver speaks every 2 s; after this long without a word, what it said last is not how things are."""


@dataclass(frozen=True)
class StreamRow:
    """All that the control plane knows about one stream, read in one query. Times are naive UTC."""

    stream: str
    wanted: str
    wanted_by: str
    wanted_at: datetime
    halted_reason: str | None
    leave_epoch: int | None
    """Drivers up to this epoch are to leave though the stream is wanted: a restart, or a roll."""
    leave_at: datetime | None
    epoch: int
    pipeline_version: int | None
    host: str | None
    pid: int | None
    log_file: str | None
    master: str | None
    submission_id: str | None
    """What a cluster calls a driver that it runs itself."""
    taken_at: datetime | None
    beat_epoch: int | None
    state: str | None
    beat_at: datetime | None
    batches: int | None
    records: int | None
    lag_records: int | None
    lag_seconds: float | None
    newest_at: datetime | None
    records_per_second: float | None
    batch_ms: int | None
    batch_limit: int | None
    latency_p50_ms: int | None
    latency_p99_ms: int | None
    last_error: str | None
    waiting_for: str | None
    """What is away that the driver waits for."""
    failures_in_a_row: int
    """Drivers that failed since the last commit."""
    last_failed_at: datetime | None
    newest_version: int
    """Newest applied version of the pipeline, 0 if none is."""
    untold: int
    """Incidents of the stream whose beginning or end nobody was told yet."""
    late_since: datetime | None
    """Since when its freshness incident is open."""
    now: datetime
    """The database's clock: the only one that all sides share."""


_READ = """
SELECT s.stream, s.wanted, s.wanted_by, s.wanted_at, s.halted_reason, s.leave_epoch, s.leave_at,
       CAST(COALESCE(l.epoch, 0) AS SIGNED) AS epoch, l.pipeline_version, l.host, l.pid, l.log_file, l.master,
       l.submission_id, l.taken_at,
       h.epoch AS beat_epoch, h.state, h.beat_at, h.batches, h.records, h.lag_records, h.lag_seconds, h.newest_at,
       h.records_per_second, h.batch_ms, h.batch_limit, h.latency_p50_ms, h.latency_p99_ms, h.last_error, h.waiting_for,
       s.failures_in_a_row, s.last_failed_at,
       (SELECT CAST(COALESCE(MAX(p.version), 0) AS SIGNED) FROM pipelines AS p WHERE p.pipeline = s.stream)
           AS newest_version,
       (SELECT COUNT(*) FROM incidents AS i WHERE i.told_end_at IS NULL AND i.subject = CONCAT('stream ', s.stream)
           AND (i.told_at IS NULL OR i.closed_at IS NOT NULL)) AS untold,
       (SELECT MIN(i.opened_at) FROM incidents AS i WHERE i.subject = CONCAT('stream ', s.stream)
           AND i.kind = 'freshness' AND i.closed_at IS NULL) AS late_since,
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


def is_heard(row: StreamRow) -> bool:
    """Whether the newest driver reads, and said so lately."""
    lately = row.beat_at is not None and (row.now - row.beat_at).total_seconds() <= SILENT_SECONDS
    return lately and row.beat_epoch == row.epoch and row.state == "running"


def behind_seconds(row: StreamRow) -> float | None:
    """How far a wanted stream's tables are behind what Kafka holds: the time since they last held all of it, at most.

    While nobody measures it, because no driver is there or Kafka is away, it grows with time.

    Returns:
        Seconds, 0 where nothing waits; None where nothing is known yet, or the stream is not wanted.
    """
    if row.wanted != "running" or row.beat_at is None:
        return None
    if is_heard(row) and row.lag_records == 0 and not row.lag_seconds:
        return 0.0
    if row.lag_seconds is None:
        return None
    return row.lag_seconds + max((row.now - row.beat_at).total_seconds(), 0.0)


def wish(connection: Connection[Any], stream: str, wanted: str, by: str) -> None:
    """Write what is wanted of a stream: ``running`` or ``stopped``. Wishing it to run closes an open circuit."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO streams (stream, wanted, wanted_by, wanted_at)"
            " VALUES (%(stream)s, %(wanted)s, %(by)s, UTC_TIMESTAMP(6))"
            " ON DUPLICATE KEY UPDATE wanted = %(wanted)s, wanted_by = %(by)s, wanted_at = UTC_TIMESTAMP(6),"
            " failures_in_a_row = IF(%(wanted)s = 'running', 0, failures_in_a_row),"
            " halted_reason = IF(%(wanted)s = 'running', NULL, halted_reason)",
            {"stream": stream, "wanted": wanted, "by": by},
        )


def withdraw(connection: Connection[Any], row: StreamRow, by: str) -> bool:
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
                "UPDATE streams SET wanted = 'stopped', wanted_by = %s, wanted_at = UTC_TIMESTAMP(6)"
                " WHERE stream = %s AND wanted = 'running' AND wanted_at = %s",
                (by, row.stream, row.wanted_at),
            )
        )


def ask_to_leave(connection: Connection[Any], stream: str, by: str | None = None, *, epoch: int | None = None) -> None:
    """Have the present driver leave gracefully and another one follow it.

    Args:
        connection: autocommit.
        stream: whose.
        by: the person who asks for a restart, which is a wish that it runs; None for a roll, which is no wish.
        epoch: of the driver that is meant; one that has followed it meanwhile stays. None for whichever there is.
    """
    if by is not None:
        wish(connection, stream, "running", by)
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE streams AS s JOIN leases AS l USING (stream)"
            " SET s.leave_epoch = l.epoch, s.leave_at = UTC_TIMESTAMP(6)"
            " WHERE s.stream = %s AND l.epoch = COALESCE(%s, l.epoch)"
            " AND (s.leave_epoch IS NULL OR s.leave_epoch < l.epoch)",
            (stream, epoch),
        )


def take_over(
    connection: Connection[Any],
    stream: str,
    pipeline_version: int,
    by: str,
    expected: int | None = None,
    wished_at: datetime | None = None,
) -> int:
    """Raise a stream's epoch and return the new one. From here on no older driver can commit.

    Args:
        connection: autocommit.
        stream: whose.
        pipeline_version: of the driver to be started.
        by: who takes it over.
        expected: the epoch that the decision to take over was made on; None takes over whatever there is.
        wished_at: the wish that it was made on, so that nothing is started against a later one; None for any.

    Raises:
        Fenced: somebody else took it over, or wished something else, since that decision; nothing was changed.
    """
    with translated(), connection.cursor() as cursor:
        connection.begin()
        if wished_at is not None:
            # A wish waits for the lock: it comes before this, and is seen, or after it.
            cursor.execute("SELECT wanted_at FROM streams WHERE stream = %s FOR UPDATE", (stream,))
            if cursor.fetchone() != (wished_at,):
                connection.rollback()
                raise Fenced(f"something else was wished of stream {stream} meanwhile")
        if expected is not None:
            cursor.execute("SELECT epoch FROM leases WHERE stream = %s FOR UPDATE", (stream,))
            found = cursor.fetchone()
            if (int(found[0]) if found else 0) != expected:
                connection.rollback()
                raise Fenced(f"stream {stream} was taken over meanwhile", value=f"epoch {found[0] if found else 0}")
        cursor.execute(
            "INSERT INTO leases (stream, epoch, pipeline_version, taken_by) VALUES (%(stream)s, 1, %(version)s, %(by)s)"
            " ON DUPLICATE KEY UPDATE epoch = epoch + 1, pipeline_version = %(version)s, taken_by = %(by)s,"
            " taken_at = UTC_TIMESTAMP(6), host = NULL, pid = NULL, log_file = NULL, master = NULL,"
            " submission_id = NULL",
            {"stream": stream, "version": pipeline_version, "by": by},
        )
        cursor.execute("SELECT epoch FROM leases WHERE stream = %s", (stream,))
        row = cursor.fetchone()
        connection.commit()
    assert row is not None  # inserted above
    return int(row[0])


def record_driver(connection: Connection[Any], stream: str, epoch: int, **where: object) -> None:
    """Say where the driver of an epoch runs: any of ``host``, ``pid``, ``log_file``, ``master``, ``submission_id``."""
    changes = ", ".join(f"{name} = %({name})s" for name in where)
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE leases SET {changes} WHERE stream = %(stream)s AND epoch = %(epoch)s",
            {"stream": stream, "epoch": epoch, **where},
        )


_GROWN = "(lag_seconds + TIMESTAMPDIFF(MICROSECOND, beat_at, UTC_TIMESTAMP(6)) / 1000000)"
_LAG = f"LEAST(COALESCE(VALUES(lag_seconds), {_GROWN}), COALESCE({_GROWN}, VALUES(lag_seconds)))"


def beat(connection: Connection[Any], stream: str, epoch: int, state: str, **facts: object) -> bool:
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
    news = {"lag_seconds": _LAG, "beat_at": "UTC_TIMESTAMP(6)"} | {
        name: f"VALUES({name})" for name in values if name != "lag_seconds"
    }
    changes = ", ".join(f"{name} = IF(VALUES(epoch) >= epoch, {new}, {name})" for name, new in news.items())
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO heartbeats (stream, beat_at, {columns}) VALUES (%(stream)s, UTC_TIMESTAMP(6), {marks})"
            # From left to right: the lag is grown by the time since the last heartbeat before that is overwritten,
            # and the epoch is overwritten last.
            f" ON DUPLICATE KEY UPDATE {changes}",
            {"stream": stream, **values},
        )
    return row.wanted == "running" and row.halted_reason is None and (row.leave_epoch or 0) < epoch


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
                " WHERE s.stream = %s AND l.epoch = %s AND (s.last_failed_at IS NULL OR s.last_failed_at < l.taken_at)",
                (stream, epoch),
            )
        )


def clear_failures(connection: Connection[Any], stream: str) -> None:
    """A driver has committed: what failed before it is over."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE streams SET failures_in_a_row = 0 WHERE stream = %s AND failures_in_a_row > 0", (stream,)
        )


def halt(connection: Connection[Any], stream: str, reason: str, wished_at: datetime | None = None) -> bool:
    """Open the circuit: the stream waits for a person. Also an incident.

    Args:
        connection: autocommit.
        stream: whose.
        reason: for the person.
        wished_at: the wish that the decision was made on, so that a later one is not undone; None for any.

    Returns:
        Whether it is open by this call.
    """
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE streams SET halted_reason = %s"
            " WHERE stream = %s AND halted_reason IS NULL AND wanted_at = COALESCE(%s, wanted_at)",
            (reason[:2000], stream, wished_at),
        )
        opened = bool(cursor.rowcount)
    if opened:
        open_incident(connection, f"stream {stream}", "halted", reason)
    return opened


def open_incident(connection: Connection[Any], subject: str, kind: str, sentence: str) -> None:
    """Record what a person should know, once while it is open."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO incidents (subject, kind, sentence) SELECT %s, %s, %s FROM DUAL WHERE NOT EXISTS"
            " (SELECT 1 FROM incidents WHERE subject = %s AND kind = %s AND closed_at IS NULL)",
            (subject, kind, sentence[:2000], subject, kind),
        )


def close_incident(connection: Connection[Any], subject: str, kind: str) -> None:
    """It is over."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE incidents SET closed_at = UTC_TIMESTAMP(6) WHERE subject = %s AND kind = %s AND closed_at IS NULL",
            (subject, kind),
        )
