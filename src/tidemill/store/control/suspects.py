"""The ranges of a stream under suspicion: a driver ended without an error while it read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from tidemill.store.connection import translated
from tidemill.store.write.context import Range, WriteContext


@dataclass(frozen=True)
class Suspect:
    """A range under suspicion."""

    range: Range
    epoch: int = 0
    """Of the driver that read it last."""
    attempts: int = 0
    """How often a driver began to read exactly this range."""


def read_suspects(connection: Connection[Any], write_context: WriteContext) -> tuple[Suspect, ...]:
    """The ranges of a stream under suspicion, by partition."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT partition_id, from_offset, until_offset, epoch, attempts FROM suspect_ranges"
            " WHERE stream = %s AND topic = %s ORDER BY partition_id",
            (write_context.stream, write_context.topic),
        )
        return tuple(Suspect(Range(*map(int, span)), int(epoch), int(n)) for *span, epoch, n in cursor.fetchall())


def record_suspect(connection: Connection[Any], write_context: WriteContext, suspect: Suspect) -> None:
    """Record the suspect range of a partition; it replaces the one that was recorded before."""
    span = suspect.range
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "REPLACE INTO suspect_ranges (stream, topic, partition_id, from_offset, until_offset, epoch, attempts)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                *(write_context.stream, write_context.topic, span.partition, span.start, span.until),
                *(suspect.epoch, suspect.attempts),
            ),
        )


def clear_suspect(connection: Connection[Any], write_context: WriteContext, partition: int) -> None:
    """Remove the suspicion of a partition's range."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM suspect_ranges WHERE stream = %s AND topic = %s AND partition_id = %s",
            (write_context.stream, write_context.topic, partition),
        )
