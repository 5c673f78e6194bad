"""The quarantine of a commit: records with their bytes, and the records that a replay has resolved.

The bytes are staged in a temporary table before the transaction begins, as rows are: reading them from Kafka and
sending them takes no lock that another transaction waits for. They are staged record by record, so that the memory of a
worker holds one statement of them, however many records a commit quarantines and however large these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pymysql.connections import Connection

from tidemill.spec.schema import Pipeline
from tidemill.store.connection import dialect_of, translated
from tidemill.store.control.incidents import QUARANTINE_FULL, open_incident
from tidemill.store.sql.identifiers import in_schema
from tidemill.store.write.context import WriteContext, instant
from tidemill.store.write.ledger_rows import Batch, Rejected

WHOLE_BYTES = 2 * 2**20
"""A longer key or value is cut when it is quarantined, because a statement has a maximum length, too."""
KEPT_BYTES = 65_536
"""How much of it is stored then."""
_STAGE = "_stage_quarantine"
_KEPT = "record_key, record_value, record_headers, value_bytes, reason"
_BODY = (
    "(record_offset BIGINT UNSIGNED NOT NULL PRIMARY KEY, record_at DATETIME(6) NULL, record_key LONGBLOB NULL,"
    " record_value LONGBLOB NULL, record_headers LONGTEXT NULL, value_bytes BIGINT UNSIGNED NULL,"
    " reason VARCHAR(1000) NOT NULL)"
)
_KEPT_TODAY = (
    "SELECT CAST(COALESCE(SUM(kept_bytes), 0) AS SIGNED) FROM quarantine_bytes WHERE stream = %s AND day = UTC_DATE()"
)
_ADD_KEPT = (
    "INSERT INTO quarantine_bytes (stream, day, partition_id, kept_bytes) VALUES (%s, UTC_DATE(), %s, %s)"
    " ON DUPLICATE KEY UPDATE kept_bytes = kept_bytes + VALUES(kept_bytes)"
)

ReadRaw = Callable[[Iterable[int]], Iterable[Rejected]]
"""Offsets of one partition in rising order -> those of their records that Kafka still has, in the same order. The
records are made one by one, as they are asked for."""


class QuarantineStage:
    """The records that one attempt of a commit quarantines, in a temporary table of its connection."""

    def __init__(self, connection: Connection[Any], schema: str, pipeline: Pipeline) -> None:
        self.connection, self.pipeline = connection, pipeline
        self.table = in_schema(schema, _STAGE)
        self.offsets: set[int] = set()
        """Of the staged records."""
        self._exists = False
        self._allowed_bytes = 0
        """How many more bytes may be kept today."""
        self._kept_bytes, self._incomplete = 0, 0
        """Of the staged records; how many of them are staged without their bytes."""

    @property
    def is_full(self) -> bool:
        """Whether no further bytes may be kept today."""
        self._create()
        return self._kept_bytes >= self._allowed_bytes

    def add(self, rejected: Iterable[Rejected]) -> None:
        """Stage records. Outside of a transaction."""
        self._create()
        with translated(), self.connection.cursor() as cursor:
            # PyMySQL reads the rows one by one, and sends a statement for each megabyte of them.
            cursor.executemany(
                f"INSERT INTO {self.table} (record_offset, record_at, {_KEPT}) VALUES (%s, %s, %s, %s, %s, %s, %s)",
                map(self._values, rejected),
            )

    def _create(self) -> None:
        if self._exists:
            return
        dialect = dialect_of(self.connection)
        with translated(), self.connection.cursor() as cursor:
            for sql in dialect.create_temporary(self.table, f"{_BODY}{dialect.table_options()}"):
                cursor.execute(sql)
            cursor.execute(_KEPT_TODAY, (self.pipeline.name,))
            (kept,) = cursor.fetchone() or (0,)
        self._exists = True
        self._allowed_bytes = max(0, self.pipeline.quarantine.max_bytes_per_day - int(kept))

    def _values(self, bad: Rejected) -> tuple[object, ...]:
        self.offsets.add(bad.offset)
        kept = (_cut(bad.key), _cut(bad.value), _short(bad.headers))
        size = sum(len(part) for part in kept if part is not None)
        if self._kept_bytes + size > self._allowed_bytes:
            # Without its time, so that a replay reads it from Kafka, as any record of which not everything is kept.
            self._incomplete += 1
            return (bad.offset, None, None, None, None, _size(bad), bad.reason[:1000])
        self._kept_bytes += size
        return (bad.offset, instant(bad.timestamp_us), *kept, _size(bad), bad.reason[:1000])

    def insert(self, write_context: WriteContext, batch: Batch, commit_id: int) -> None:
        """Quarantine the staged records, each once; a replay also marks the quarantined records that it has resolved.

        Inside the transaction.
        """
        key = (write_context.stream, write_context.topic, write_context.generation, batch.range.partition)
        if write_context.replay_id is not None:
            _resolve(self.connection, key, batch, self.offsets, commit_id)
        if not self.offsets:
            return
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO quarantine (stream, topic, generation, partition_id, record_offset, record_at, {_KEPT},"
                " pipeline_version, commit_id, replay_id) SELECT %s, %s, %s, %s, record_offset,"
                f" record_at, {_KEPT}, %s, %s, %s FROM {self.table} ORDER BY record_offset"
                " ON DUPLICATE KEY UPDATE reason = VALUES(reason), pipeline_version = VALUES(pipeline_version),"
                " resolved_commit = NULL, resolved_at = NULL",
                (*key, write_context.pipeline_version, commit_id, write_context.replay_id),
            )
            cursor.execute(_ADD_KEPT, (write_context.stream, batch.range.partition, self._kept_bytes))
        if self._incomplete:
            limit = self.pipeline.quarantine.max_bytes_per_day
            message = f"quarantine.max_bytes_per_day, {limit:,} bytes, is reached: only coordinates and reason are kept"
            open_incident(self.connection, f"stream {write_context.stream}", QUARANTINE_FULL, message)

    def drop(self) -> None:
        """Give the space of the staged records back. After the transaction."""
        if self._exists:
            with translated(), self.connection.cursor() as cursor:
                cursor.execute(f"DROP TEMPORARY TABLE IF EXISTS {self.table}")


def with_bytes(reasons: Mapping[int, str], read_raw: ReadRaw | None) -> Iterator[Rejected]:
    """Records that only the database rejects, with their bytes where Kafka still has them.

    Args:
        reasons: offset -> why the database rejects the record.
        read_raw: reads the bytes; None to leave them out.
    """
    missing = dict(reasons)
    for record in read_raw(sorted(reasons)) if read_raw and reasons else ():
        reason = missing.pop(record.offset, None)
        if reason is not None:
            yield record.because(reason)
    for offset, reason in missing.items():
        yield Rejected(offset, "").because(reason)


def _cut(content: bytes | None) -> bytes | None:
    return content[:KEPT_BYTES] if content is not None and len(content) > WHOLE_BYTES else content


def _short(headers: str | None) -> str | None:
    """Headers that are too long are replaced, because a part of them would not be JSON."""
    return headers if headers is None or len(headers) <= WHOLE_BYTES else '[["headers", null]]'


def _size(bad: Rejected) -> int | None:
    if bad.value_bytes is not None:
        return bad.value_bytes
    return None if bad.value is None else len(bad.value)


def _resolve(
    connection: Connection[Any], key: tuple[object, ...], batch: Batch, bad: Iterable[int], commit_id: int
) -> None:
    """Mark the quarantined records that have become rows, or from which no table selects a row any more."""
    span = batch.range
    where = (
        "stream = %s AND topic = %s AND generation = %s AND partition_id = %s AND resolved_commit IS NULL"
        " AND record_offset >= %s AND record_offset < %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT record_offset FROM quarantine WHERE {where}", (*key, span.start, span.until))
        sound = batch.delivered - {*bad}
        resolved = [int(row[0]) for row in cursor.fetchall() if row[0] in sound]
        if resolved:
            cursor.executemany(
                f"UPDATE quarantine SET resolved_commit = %s, resolved_at = UTC_TIMESTAMP(6) WHERE {where}"
                " AND record_offset = %s",
                [(commit_id, *key, span.start, span.until, offset) for offset in resolved],
            )
