"""Reading the quarantine: its records, one record with its bytes, and the bytes that a replay needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.store.connection import translated
from tidemill.store.write.context import Range

PAGE = 5_000
"""Records that one query returns."""


@dataclass(frozen=True)
class QuarantineFilter:
    """Selects records of a stream's quarantine."""

    reason: str | None = None
    """A part of the reason's text; case does not matter."""
    ids: tuple[int, ...] = ()
    """Only these records; empty for all."""
    resolved: bool = False
    """Whether to include records that a replay has resolved."""

    def where(self) -> tuple[str, list[object]]:
        """As an SQL condition and its values."""
        parts: list[str] = [] if self.resolved else ["resolved_commit IS NULL"]
        values: list[object] = []
        if self.reason is not None:
            parts.append("INSTR(LOWER(reason), LOWER(%s)) > 0")
            values.append(self.reason)
        if self.ids:
            parts.append(f"id IN ({', '.join(['%s'] * len(self.ids))})")
            values += self.ids
        return " AND ".join(["TRUE", *parts]), values


@dataclass(frozen=True)
class QuarantinedRecord:
    """One record of the quarantine without its bytes. Times are naive UTC."""

    id: int
    topic: str
    generation: int
    partition_id: int
    record_offset: int
    record_at: datetime | None
    """Kafka's timestamp; None if the record could not be read from Kafka when it was quarantined."""
    value_bytes: int | None
    """Size of the value in Kafka; None if it has none."""
    kept_bytes: int
    """How many bytes of key, value and headers the quarantine stores."""
    cut: bool
    """Whether the stored value is shorter than the record's."""
    reason: str
    pipeline_version: int
    resolved_commit: int | None


_COLUMNS = (
    "id, topic, generation, partition_id, record_offset, record_at, value_bytes,"
    " COALESCE(LENGTH(record_key), 0) + COALESCE(LENGTH(record_value), 0) + COALESCE(LENGTH(record_headers), 0)"
    " AS kept_bytes, COALESCE(value_bytes > LENGTH(record_value), value_bytes IS NOT NULL) AS cut, reason,"
    " pipeline_version, resolved_commit"
)


def latest_records(
    connection: Connection[Any], stream: str, choice: QuarantineFilter, limit: int
) -> list[QuarantinedRecord]:
    """The records that were quarantined last, newest first."""
    return _select(connection, stream, choice, "ORDER BY id DESC LIMIT %s", limit)


def records_in_order(
    connection: Connection[Any], stream: str, topic: str, choice: QuarantineFilter
) -> Iterator[QuarantinedRecord]:
    """The selected records of one topic in order of generation, partition and offset; reads one page at a time."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT generation, partition_id FROM quarantine WHERE stream = %s AND topic = %s"
            " ORDER BY generation, partition_id",
            (stream, topic),
        )
        partitions = cursor.fetchall()
    end = (
        "AND topic = %s AND generation = %s AND partition_id = %s AND record_offset >= %s"
        " ORDER BY record_offset LIMIT %s"
    )
    for generation, partition in partitions:
        begin, full = 0, True
        while full:
            page = _select(connection, stream, choice, end, topic, generation, partition, begin, PAGE)
            yield from page
            full = len(page) == PAGE
            begin = page[-1].record_offset + 1 if full else begin


def _select(
    connection: Connection[Any], stream: str, choice: QuarantineFilter, end: str, *more: object
) -> list[QuarantinedRecord]:
    condition, values = choice.where()
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM quarantine WHERE stream = %s AND {condition} {end}", (stream, *values, *more)
        )
        return [QuarantinedRecord(**{**row, "cut": bool(row["cut"])}) for row in cursor.fetchall()]


@dataclass(frozen=True)
class StoredRecord:
    """A record of the quarantine with everything that is stored of it."""

    id: int
    record_offset: int
    timestamp_us: int | None
    """µs since 1970."""
    key: bytes | None
    value: bytes | None
    headers: str | None
    """JSON: ``[[name, base64 or null], …]``."""
    value_bytes: int | None

    @property
    def partial(self) -> bool:
        """Whether Kafka had more of it than the quarantine stores."""
        return self.timestamp_us is None or (self.value_bytes or 0) > len(self.value or b"")


_WHOLE = (
    "SELECT id, record_offset, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', record_at), record_key, record_value,"
    " record_headers, value_bytes FROM quarantine WHERE stream = %s AND "
)


def read_range(
    connection: Connection[Any], topic: tuple[str, str, int], span: Range, choice: QuarantineFilter, up_to: int
) -> list[StoredRecord]:
    """The selected records of one range, in order of their offsets.

    Args:
        connection: as any account that may read.
        topic: stream, topic and generation.
        span: partition and offsets.
        choice: selects among them.
        up_to: the greatest id to return.
    """
    condition, values = choice.where()
    return _whole(
        connection,
        f"topic = %s AND generation = %s AND partition_id = %s AND record_offset >= %s AND record_offset < %s"
        f" AND id <= %s AND {condition} ORDER BY record_offset",
        (*topic, span.partition, span.start, span.until, up_to, *values),
    )


def read_one(connection: Connection[Any], stream: str, number: int) -> StoredRecord | None:
    """One record by its id."""
    records = _whole(connection, "id = %s", (stream, number))
    return records[0] if records else None


def _whole(connection: Connection[Any], condition: str, values: Sequence[object]) -> list[StoredRecord]:
    with translated(), connection.cursor() as cursor:
        cursor.execute(_WHOLE + condition, tuple(values))
        return [StoredRecord(*row) for row in cursor.fetchall()]
