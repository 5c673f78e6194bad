"""Verifies that nothing was lost: compares the ledger with itself, with Kafka and with the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import dialect_of, translated
from tidemill.store.maintenance.table_audit import audit_tables

_NAMED = 5
"""How many differences of one kind are reported; the first is the most important."""

_BROKEN = f"""
SELECT id, partition_id FROM commits WHERE stream = %(stream)s AND until_offset <> from_offset
    + written_rows + duplicate_rows + stale_rows + filtered_rows + quarantined_rows + gap_rows + lost_rows
    + unselected_rows ORDER BY id LIMIT {_NAMED}
"""
_HOLES = f"""
SELECT topic, generation, partition_id, from_offset, before_it FROM (
    SELECT topic, generation, partition_id, from_offset,
           LAG(until_offset) OVER (PARTITION BY topic, generation, partition_id ORDER BY from_offset, id) AS before_it
    FROM commits WHERE stream = %(stream)s AND replay_id IS NULL
) AS chain WHERE before_it <> from_offset ORDER BY topic, generation, partition_id, from_offset LIMIT {_NAMED}
"""
_ENDS = """
SELECT c.topic, c.partition_id, MAX(c.until_offset) FROM commits AS c
LEFT JOIN topics AS g ON g.stream = c.stream AND g.topic = c.topic
WHERE c.stream = %(stream)s AND c.replay_id IS NULL AND c.generation = COALESCE(g.generation, 1)
GROUP BY c.topic, c.partition_id ORDER BY c.topic, c.partition_id
"""
_QUARANTINE = f"""
SELECT c.id, c.partition_id, c.from_offset, c.until_offset, c.quarantined_rows, c.purged_rows, COALESCE(q.kept, 0)
FROM commits AS c LEFT JOIN (
    SELECT commit_id, COUNT(*) AS kept FROM quarantine
    WHERE stream = %(stream)s AND replay_id IS NULL GROUP BY commit_id
) AS q ON q.commit_id = c.id
WHERE c.stream = %(stream)s AND c.replay_id IS NULL AND c.quarantined_rows <> c.purged_rows + COALESCE(q.kept, 0)
ORDER BY c.id LIMIT {_NAMED}
"""
_STRAY = f"""
SELECT q.id, q.partition_id, q.record_offset, q.commit_id FROM quarantine AS q
LEFT JOIN commits AS c ON c.id = q.commit_id AND c.stream = q.stream AND c.replay_id IS NULL AND c.topic = q.topic
    AND c.generation = q.generation AND c.partition_id = q.partition_id
    AND q.record_offset >= c.from_offset AND q.record_offset < c.until_offset
WHERE q.stream = %(stream)s AND q.replay_id IS NULL AND c.id IS NULL ORDER BY q.id LIMIT {_NAMED}
"""

Offsets = Callable[[str], dict[int, int]]
"""``earliest`` or ``latest`` -> partition of the pipeline's topic -> offset, which the call reads from Kafka."""


@dataclass(frozen=True)
class Findings:
    """The result of a verification."""

    differences: tuple[str, ...]
    """One sentence each; empty if everything agrees."""
    notes: tuple[str, ...]
    """What could not be compared yet; no differences."""


def verify(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, ends: dict[int, int] | None = None
) -> list[str]:
    """The differences that :func:`verify_snapshot` finds.

    Args:
        connection: as any account that may read.
        settings: schemas.
        pipeline: declares stream, tables and rollups.
        ends: Kafka partition -> end offset, for a stream that is idle. None to leave Kafka out.
    """
    known = None if ends is None else {"earliest": {}, "latest": ends}
    return list(verify_snapshot(connection, settings, pipeline, known.__getitem__ if known else None).differences)


def verify_snapshot(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, offsets: Offsets | None = None
) -> Findings:
    """Verify one pipeline in one snapshot of the database, while its stream and its replays may be running.

    Args:
        connection: as any account that may read; in autocommit mode.
        settings: schemas.
        pipeline: declares stream, tables and rollups.
        offsets: reads offsets from Kafka. None to leave Kafka out.
    """
    # The first and the last offset of a partition only rise: the first is read before the snapshot, the last after it.
    starts = offsets("earliest") if offsets else {}
    with translated(), connection.cursor() as cursor:
        for sql in dialect_of(connection).snapshot_read():
            cursor.execute(sql)
        try:
            positions = _positions(cursor, pipeline.name)
            own = {at: offset for (topic, at), offset in positions.items() if topic == pipeline.source.topic}
            differences = [*_ledger(cursor, pipeline.name, positions), *_quarantine(cursor, pipeline.name)]
            if offsets:
                differences += _kafka(own, starts, offsets("latest"))
            audit = audit_tables(cursor, settings, pipeline, own)
        finally:
            connection.rollback()
    return Findings((*differences, *audit.differences), audit.notes)


def _positions(cursor: Any, stream: str) -> dict[tuple[str, int], int]:
    cursor.execute(
        "SELECT topic, partition_id, position FROM offsets WHERE stream = %s ORDER BY topic, partition_id", (stream,)
    )
    return {(str(topic), int(partition)): int(position) for topic, partition, position in cursor.fetchall()}


def _ledger(cursor: Any, stream: str, positions: dict[tuple[str, int], int]) -> Iterator[str]:
    values = {"stream": stream}
    cursor.execute(_BROKEN, values)
    for commit, partition in cursor.fetchall():
        yield f"partition {partition}: commit {commit} does not add up"
    cursor.execute(_HOLES, values)
    for topic, generation, partition, begins, before in cursor.fetchall():
        where = f"partition {partition}" + (f" of generation {generation} of {topic}" if generation > 1 else "")
        if begins > before:
            yield f"{where}: offsets {before} to {begins} are in no commit"
        else:
            yield f"{where}: offsets {begins} to {before} are in two commits"
    cursor.execute(_ENDS, values)
    for topic, partition, until in cursor.fetchall():
        position = positions.get((topic, partition))
        if position is None:
            yield f"partition {partition}: the ledger ends at {until}, and the stream has no position"
        elif position != until:
            yield f"partition {partition}: the position is {position}, the ledger ends at {until}"


def _quarantine(cursor: Any, stream: str) -> Iterator[str]:
    cursor.execute(_QUARANTINE, {"stream": stream})
    for commit, partition, begins, until, counted, purged, stored in cursor.fetchall():
        removed = f", of which maintenance removed {purged}" if purged else ""
        yield (
            f"partition {partition}: commit {commit} of offsets {begins} to {until} counts {counted} quarantined"
            f" records{removed}, the quarantine has {stored}"
        )
    cursor.execute(_STRAY, {"stream": stream})
    for record, partition, offset, commit in cursor.fetchall():
        yield (
            f"partition {partition}: record {record} of the quarantine, offset {offset}, is not of the commit that it"
            f" names, {commit}"
        )


def _kafka(positions: dict[int, int], starts: dict[int, int], ends: dict[int, int]) -> Iterator[str]:
    for partition, position in positions.items():
        if partition not in ends:
            yield f"partition {partition}: the stream has a position, Kafka has no such partition"
        elif position > ends[partition]:
            yield f"partition {partition}: the position is {position}, Kafka ends at {ends[partition]}"
        elif position < starts.get(partition, 0):
            begins = starts[partition]
            yield (
                f"partition {partition}: Kafka's retention removed offsets that the stream had not read: the position"
                f" is {position}, Kafka begins at {begins}, {begins - position} offsets can no longer be read"
            )
