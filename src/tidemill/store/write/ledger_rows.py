"""The input of a commit, and what it writes besides the rows: its ledger row and the position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
from pymysql.connections import Connection

from tidemill.errors import Fenced
from tidemill.store.connection import dialect_of, translated
from tidemill.store.write.context import Range, WriteContext, instant


@dataclass(frozen=True)
class Rejected:
    """A record that cannot become a row."""

    offset: int
    reason: str
    timestamp_us: int | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: str | None = None
    """JSON: ``[[name, base64 or null], …]``."""
    value_bytes: int | None = None
    """Size in Kafka, where ``value`` was cut."""

    def because(self, reason: str) -> Rejected:
        """The same record with its reason."""
        return replace(self, reason=reason)


@dataclass(frozen=True)
class Batch:
    """What one Spark task writes: the rows of each table, and the records that became none."""

    batch_id: int
    range: Range
    rows: dict[str, pa.Table] = field(default_factory=dict)
    """Table name -> its columns and ``_offset``."""
    deleted: dict[str, pa.Table] = field(default_factory=dict)
    """Table name -> the keys that tombstones delete and ``_offset``."""
    filtered: int = 0
    """Records from which no table selects a row."""
    rejected: Sequence[Rejected] = ()
    """Records that the task rejects."""
    gap: int = 0
    newest_us: int | None = None
    """Newest Kafka timestamp among the records, µs since 1970."""
    unselected: int = 0
    """Offsets of the range that a replay does not select."""
    delivered: frozenset[int] = frozenset()
    """The offsets that a replay has read; empty for a stream."""
    warned: int = 0
    """Records for which a check of the pipeline gives a warning."""


@dataclass(frozen=True)
class Counts:
    """A ledger row: what became of the records of one commit."""

    commit_id: int
    written: int = 0
    duplicate: int = 0
    stale: int = 0
    filtered: int = 0
    quarantined: int = 0
    gap: int = 0
    lost: int = 0
    unselected: int = 0
    warned: int = 0

    def plus(self, other: Counts) -> Counts:
        """The sums of two commits of one partition and batch; the id is that of the later one."""
        sums = {name: value + getattr(other, name) for name, value in asdict(self).items()}
        return Counts(**{**sums, "commit_id": max(self.commit_id, other.commit_id)})


_COUNTS = (
    "id, written_rows, duplicate_rows, stale_rows, filtered_rows, quarantined_rows, gap_rows, lost_rows,"
    " unselected_rows, warned_rows"
)


def committed(connection: Connection[Any], write_context: WriteContext, batch_id: int, span: Range) -> Counts | None:
    """The counts of this commit, if an earlier attempt of this driver or replay has made it already.

    For a stream the position decides: it is at or after the end of the range if, and only if, the commit happened.
    """
    with translated(), connection.cursor() as cursor:
        if write_context.replay_id is None:
            key = (write_context.stream, write_context.topic, span.partition, span.until)
            cursor.execute(
                f"SELECT {_COUNTS} FROM commits AS c WHERE stream = %s AND topic = %s AND partition_id = %s"
                " AND until_offset = %s AND epoch = %s AND batch_id = %s AND from_offset = %s AND generation = %s"
                " AND replay_id IS NULL AND EXISTS (SELECT 1 FROM offsets AS o WHERE o.stream = c.stream"
                " AND o.topic = c.topic AND o.partition_id = c.partition_id AND o.position >= c.until_offset)",
                (*key, write_context.epoch, batch_id, span.start, write_context.generation),
            )
        else:
            cursor.execute(
                # A correcting replay reads its ranges twice, in other batches.
                f"SELECT {_COUNTS} FROM commits WHERE replay_id = %s AND partition_id = %s AND from_offset = %s"
                " AND until_offset = %s AND batch_id = %s AND generation = %s",
                (write_context.replay_id, span.partition, span.start, span.until, batch_id, write_context.generation),
            )
        row = cursor.fetchone()
    return Counts(*map(int, row)) if row else None


def await_outcome(connection: Connection[Any], write_context: WriteContext, span: Range) -> None:
    """Wait until an interrupted transaction of this batch has been committed or rolled back.

    The server may not have noticed the lost connection yet, or may still be processing the COMMIT. Until then the
    transaction locks the position, or the ledger row of a replay.
    """
    lock = dialect_of(connection).share_lock
    with translated(), connection.cursor() as cursor:
        if write_context.replay_id is None:
            cursor.execute(
                f"SELECT position FROM offsets WHERE stream = %s AND topic = %s AND partition_id = %s {lock}",
                (write_context.stream, write_context.topic, span.partition),
            )
        else:
            cursor.execute(
                f"SELECT id FROM commits WHERE replay_id = %s AND partition_id = %s AND from_offset = %s {lock}",
                (write_context.replay_id, span.partition, span.start),
            )
        cursor.fetchall()


def resume(
    connection: Connection[Any], write_context: WriteContext, batch_id: int, span: Range
) -> tuple[int, Counts | None]:
    """Where a task continues that an earlier attempt began: the next offset, and the counts of what is committed."""
    if write_context.replay_id is None:
        owner, values = "epoch = %s AND batch_id = %s AND replay_id IS NULL", (write_context.epoch, batch_id)
    else:
        owner, values = "replay_id = %s AND batch_id = %s", (write_context.replay_id, batch_id)
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"SELECT until_offset, {_COUNTS} FROM commits WHERE stream = %s AND topic = %s AND partition_id = %s"
            f" AND generation = %s AND from_offset >= %s AND until_offset BETWEEN %s AND %s AND {owner}"
            f" ORDER BY from_offset",
            (
                *(write_context.stream, write_context.topic, span.partition, write_context.generation),
                *(span.start, span.start + 1, span.until, *values),
            ),
        )
        rows = cursor.fetchall()
    position, counts = span.start, None
    for until, *row in rows:
        position, commit = int(until), Counts(*map(int, row))
        counts = commit if counts is None else counts.plus(commit)
    return position, counts


def open_row(connection: Connection[Any], write_context: WriteContext, batch: Batch) -> int:
    """Insert the ledger row, with all offsets counted as a gap for now, and return its id, which the rows carry."""
    span = batch.range
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO commits (stream, replay_id, epoch, pipeline_version, batch_id, topic, generation,"
            " partition_id, from_offset, until_offset, gap_rows, newest_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(
                    write_context.stream,
                    write_context.replay_id,
                    write_context.epoch,
                    write_context.pipeline_version,
                    batch.batch_id,
                ),
                *(write_context.topic, write_context.generation, span.partition, span.start, span.until),
                *(span.until - span.start, instant(batch.newest_us)),
            ),
        )
        return int(cursor.lastrowid)


def close_row(connection: Connection[Any], counts: Counts) -> None:
    """Write the final counts. A CHECK constraint of the database refuses counts that do not add up."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE commits SET written_rows = %(written)s, duplicate_rows = %(duplicate)s, stale_rows = %(stale)s,"
            " filtered_rows = %(filtered)s, quarantined_rows = %(quarantined)s, gap_rows = %(gap)s,"
            " lost_rows = %(lost)s, unselected_rows = %(unselected)s, warned_rows = %(warned)s"
            " WHERE id = %(commit_id)s",
            asdict(counts),
        )


_ADDED = (
    "commits", "records", "written_rows", "duplicate_rows", "stale_rows", "filtered_rows", "quarantined_rows",
    "gap_rows", "lost_rows",
)  # fmt: skip


def add_to_sums(connection: Connection[Any], commit_id: int) -> None:
    """Add a closed ledger row of the stream itself to the sums of its partition.

    Only the task that commits the partition writes this row, as it does the position's.
    """
    added = ", ".join(f"{name} = ledger_sums.{name} + VALUES({name})" for name in _ADDED)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO ledger_sums (stream, topic, generation, partition_id, from_offset, {', '.join(_ADDED)},"
            " newest_at, last_commit, last_committed_at)"
            " SELECT stream, topic, generation, partition_id, from_offset, merged_commits, until_offset - from_offset,"
            f" {', '.join(_ADDED[2:])}, newest_at, id, committed_at FROM commits WHERE id = %s"
            f" ON DUPLICATE KEY UPDATE {added},"
            " last_commit = GREATEST(ledger_sums.last_commit, VALUES(last_commit)),"
            " last_committed_at = VALUES(last_committed_at),"
            " newest_at = COALESCE(GREATEST(ledger_sums.newest_at, VALUES(newest_at)), ledger_sums.newest_at,"
            " VALUES(newest_at))",
            (commit_id,),
        )


def count_tables(connection: Connection[Any], counts: Counts, tables: dict[str, dict[str, int]]) -> None:
    """Write the counts of each table, where a pipeline has several."""
    columns = ("written", "duplicate", "stale", "filtered")
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO commit_tables (commit_id, table_name, written_rows, duplicate_rows, stale_rows,"
            " filtered_rows) VALUES (%s, %s, %s, %s, %s, %s)",
            [(counts.commit_id, name, *(by_kind.get(c, 0) for c in columns)) for name, by_kind in tables.items()],
        )


def move_position(connection: Connection[Any], write_context: WriteContext, span: Range) -> None:
    """Move the position from the start to the end of a range by compare-and-set.

    Raises:
        Fenced: the position is not at the start of the range.
    """
    with connection.cursor() as cursor:
        moved = cursor.execute(
            "UPDATE offsets SET position = %s WHERE stream = %s AND topic = %s AND partition_id = %s AND position = %s",
            (span.until, write_context.stream, write_context.topic, span.partition, span.start),
        )
    if moved != 1:
        raise Fenced(
            "TM-STORE-POSITION-MOVED",
            stream=write_context.stream,
            partition=span.partition,
            value=f"expected {span.start}",
        )
