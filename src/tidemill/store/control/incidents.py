"""Incidents: conditions that a person should know about, by subject and kind, while they last."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.store.connection import translated

QUARANTINE_FULL = "quarantine-full"
"""Kind of the incident that is open while a stream's quarantine keeps no more bytes on this day."""


def open_incident(connection: Connection[Any], subject: str, kind: str, message: str) -> None:
    """Open an incident, unless one of this subject and kind is open."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO incidents (subject, kind, message) SELECT %s, %s, %s FROM DUAL WHERE NOT EXISTS"
            " (SELECT 1 FROM incidents WHERE subject = %s AND kind = %s AND closed_at IS NULL)",
            (subject, kind, message[:2000], subject, kind),
        )


def close_incident(connection: Connection[Any], subject: str, kind: str) -> None:
    """Close the open incident of a subject and kind, if there is one."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE incidents SET closed_at = UTC_TIMESTAMP(6) WHERE subject = %s AND kind = %s AND closed_at IS NULL",
            (subject, kind),
        )


def restate_incident(connection: Connection[Any], subject: str, kind: str, message: str) -> None:
    """Replace the message of the open incident of a subject and kind, if there is one: what it counts has changed."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE incidents SET message = %s WHERE subject = %s AND kind = %s AND closed_at IS NULL",
            (message[:2000], subject, kind),
        )
