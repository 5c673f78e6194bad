"""What a person should know about one subject, while it lasts."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.store.connection import translated


def open_incident(connection: Connection[Any], subject: str, kind: str, message: str) -> None:
    """Record what a person should know, once while it is open."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO incidents (subject, kind, message) SELECT %s, %s, %s FROM DUAL WHERE NOT EXISTS"
            " (SELECT 1 FROM incidents WHERE subject = %s AND kind = %s AND closed_at IS NULL)",
            (subject, kind, message[:2000], subject, kind),
        )


def close_incident(connection: Connection[Any], subject: str, kind: str) -> None:
    """It is over."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE incidents SET closed_at = UTC_TIMESTAMP(6) WHERE subject = %s AND kind = %s AND closed_at IS NULL",
            (subject, kind),
        )
