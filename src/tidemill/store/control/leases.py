"""The lease of a stream: its epoch and the driver that holds it; written only by a process that acquires it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pymysql.connections import Connection

from tidemill.errors import Fenced
from tidemill.store.connection import translated


def acquire_lease(
    connection: Connection[Any],
    stream: str,
    pipeline_version: int,
    by: str,
    expected: int | None = None,
    requested_at: datetime | None = None,
) -> int:
    """Increment a stream's epoch and return it. From here on no older driver can commit.

    Args:
        connection: in autocommit mode.
        stream: name of the stream.
        pipeline_version: of the driver that will be started.
        by: who acquires it.
        expected: the epoch that the caller has read; None to acquire the lease whatever its epoch is.
        requested_at: time of the request that the caller acts on, so that no driver is started against a later
            request; None to act on any.

    Raises:
        Fenced: another process acquired the lease, or another state was requested, since; nothing was changed.
    """
    with translated(), connection.cursor() as cursor:
        connection.begin()
        if requested_at is not None:
            # A request waits for this lock: it is either committed before, and seen here, or comes after.
            cursor.execute("SELECT requested_at FROM streams WHERE stream = %s FOR UPDATE", (stream,))
            if cursor.fetchone() != (requested_at,):
                connection.rollback()
                raise Fenced("TM-STORE-STATE-CHANGED", stream=stream)
        if expected is not None:
            cursor.execute("SELECT epoch FROM leases WHERE stream = %s FOR UPDATE", (stream,))
            lease = cursor.fetchone()
            epoch = int(lease[0]) if lease else 0
            if epoch != expected:
                connection.rollback()
                raise Fenced("TM-STORE-LEASE-ACQUIRED", stream=stream, value=f"epoch {epoch}, expected {expected}")
        cursor.execute(
            "INSERT INTO leases (stream, epoch, pipeline_version, acquired_by)"
            " VALUES (%(stream)s, 1, %(version)s, %(by)s)"
            " ON DUPLICATE KEY UPDATE epoch = epoch + 1, pipeline_version = %(version)s, acquired_by = %(by)s,"
            " acquired_at = UTC_TIMESTAMP(6), host = NULL, pid = NULL, log_file = NULL, master = NULL,"
            " submission_id = NULL",
            {"stream": stream, "version": pipeline_version, "by": by},
        )
        cursor.execute("SELECT epoch FROM leases WHERE stream = %s", (stream,))
        row = cursor.fetchone()
        connection.commit()
    assert row is not None  # inserted above
    return int(row[0])


def record_driver(connection: Connection[Any], stream: str, epoch: int, **where: object) -> None:
    """Record where the driver of an epoch runs: ``host``, ``pid``, ``log_file``, ``master``, ``submission_id``."""
    changes = ", ".join(f"{name} = %({name})s" for name in where)
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE leases SET {changes} WHERE stream = %(stream)s AND epoch = %(epoch)s",
            {"stream": stream, "epoch": epoch, **where},
        )
