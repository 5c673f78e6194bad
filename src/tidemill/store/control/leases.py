"""The epoch of a stream and the driver that holds it; written by take-overs only."""

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
    """Raise a stream's epoch and return the new one. From here on no older driver can commit.

    Args:
        connection: autocommit.
        stream: whose.
        pipeline_version: of the driver to be started.
        by: who takes it over.
        expected: the epoch that the decision to take over was made on; None takes over whatever there is.
        requested_at: the wish that it was made on, so that nothing is started against a later one; None for any.

    Raises:
        Fenced: somebody else took it over, or wished something else, since that decision; nothing was changed.
    """
    with translated(), connection.cursor() as cursor:
        connection.begin()
        if requested_at is not None:
            # A wish waits for the lock: it comes before this, and is seen, or after it.
            cursor.execute("SELECT requested_at FROM streams WHERE stream = %s FOR UPDATE", (stream,))
            if cursor.fetchone() != (requested_at,):
                connection.rollback()
                raise Fenced(f"something else was wished of stream {stream} meanwhile")
        if expected is not None:
            cursor.execute("SELECT epoch FROM leases WHERE stream = %s FOR UPDATE", (stream,))
            found = cursor.fetchone()
            if (int(found[0]) if found else 0) != expected:
                connection.rollback()
                raise Fenced(f"stream {stream} was taken over meanwhile", value=f"epoch {found[0] if found else 0}")
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
    """Say where the driver of an epoch runs: any of ``host``, ``pid``, ``log_file``, ``master``, ``submission_id``."""
    changes = ", ".join(f"{name} = %({name})s" for name in where)
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE leases SET {changes} WHERE stream = %(stream)s AND epoch = %(epoch)s",
            {"stream": stream, "epoch": epoch, **where},
        )
