"""Verifies that nothing was lost: compares the ledger with itself, with Kafka and with the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.spec.schema import Pipeline
from tidemill.store import live_tables
from tidemill.store.connection import dialect_of, translated
from tidemill.store.maintenance.table_audit import audit_tables

_NAMED = 5
"""How many differences of one kind are reported; the first is the most important."""

_WHOLE = "c.stream = %(stream)s"
"""All commits of a stream, of replays too."""
_SINCE = (
    "c.stream = %(stream)s AND c.topic = %(topic)s AND c.partition_id = %(partition)s"
    " AND c.until_offset > %(verified)s AND c.generation = %(generation)s AND c.replay_id IS NULL"
)
"""The stream's own commits of one partition after those that a verification has found right: a range of an index."""
_Q_WHOLE = "q.stream = %(stream)s AND q.replay_id IS NULL"
_Q_SINCE = (
    "q.stream = %(stream)s AND q.topic = %(topic)s AND q.generation = %(generation)s"
    " AND q.partition_id = %(partition)s AND q.record_offset >= %(begins)s AND q.replay_id IS NULL"
)
_BROKEN = f"""
SELECT c.id, c.partition_id FROM commits AS c WHERE {{scope}} AND c.until_offset <> c.from_offset
    + c.written_rows + c.duplicate_rows + c.stale_rows + c.filtered_rows + c.quarantined_rows + c.gap_rows
    + c.lost_rows + c.unselected_rows ORDER BY c.id LIMIT {_NAMED}
"""
_HOLES = f"""
SELECT topic, generation, partition_id, from_offset, before_it FROM (
    SELECT c.topic, c.generation, c.partition_id, c.from_offset, LAG(c.until_offset)
        OVER (PARTITION BY c.topic, c.generation, c.partition_id ORDER BY c.from_offset, c.id) AS before_it
    FROM commits AS c WHERE {{scope}} AND c.replay_id IS NULL
) AS chain WHERE before_it <> from_offset ORDER BY topic, generation, partition_id, from_offset LIMIT {_NAMED}
"""
_ENDS = """
SELECT c.topic, c.partition_id, MAX(c.until_offset) FROM commits AS c
LEFT JOIN topics AS g ON g.stream = c.stream AND g.topic = c.topic
WHERE c.stream = %(stream)s AND c.replay_id IS NULL AND c.generation = COALESCE(g.generation, 1)
GROUP BY c.topic, c.partition_id ORDER BY c.topic, c.partition_id
"""
_CHAINS = """
SELECT s.topic, s.generation, s.partition_id, s.verified_offset, COALESCE(g.generation, 1) = s.generation
FROM ledger_sums AS s LEFT JOIN topics AS g ON g.stream = s.stream AND g.topic = s.topic
WHERE s.stream = %s ORDER BY s.topic, s.generation, s.partition_id
"""
_BOUNDS = f"SELECT MIN(c.from_offset), MAX(c.until_offset) FROM commits AS c WHERE {_SINCE}"
_QUARANTINE = f"""
SELECT c.id, c.partition_id, c.from_offset, c.until_offset, c.quarantined_rows, c.purged_rows, COALESCE(q.kept, 0)
FROM commits AS c LEFT JOIN (
    SELECT q.commit_id, COUNT(*) AS kept FROM quarantine AS q WHERE {{quarantined}} GROUP BY q.commit_id
) AS q ON q.commit_id = c.id
WHERE {{scope}} AND c.replay_id IS NULL AND c.quarantined_rows <> c.purged_rows + COALESCE(q.kept, 0)
ORDER BY c.id LIMIT {_NAMED}
"""
_STRAY = f"""
SELECT q.id, q.partition_id, q.record_offset, q.commit_id FROM quarantine AS q
LEFT JOIN commits AS c ON c.id = q.commit_id AND c.stream = q.stream AND c.replay_id IS NULL AND c.topic = q.topic
    AND c.generation = q.generation AND c.partition_id = q.partition_id
    AND q.record_offset >= c.from_offset AND q.record_offset < c.until_offset
WHERE {{quarantined}} AND c.id IS NULL ORDER BY q.id LIMIT {_NAMED}
"""
_SUMS = """
SELECT s.topic, s.generation, s.partition_id, s.records, c.records
FROM ledger_sums AS s LEFT JOIN (
    SELECT topic, generation, partition_id, SUM(merged_commits) AS commits, SUM(until_offset - from_offset) AS records,
        SUM(written_rows) AS written_rows, SUM(duplicate_rows) AS duplicate_rows, SUM(stale_rows) AS stale_rows,
        SUM(filtered_rows) AS filtered_rows, SUM(quarantined_rows) AS quarantined_rows, SUM(gap_rows) AS gap_rows,
        SUM(lost_rows) AS lost_rows, MAX(id) AS last_commit
    FROM commits WHERE stream = %(stream)s AND replay_id IS NULL GROUP BY topic, generation, partition_id
) AS c ON c.topic = s.topic AND c.generation = s.generation AND c.partition_id = s.partition_id
WHERE s.stream = %(stream)s AND NOT (s.commits <=> c.commits AND s.records <=> c.records
    AND s.written_rows <=> c.written_rows AND s.duplicate_rows <=> c.duplicate_rows AND s.stale_rows <=> c.stale_rows
    AND s.filtered_rows <=> c.filtered_rows AND s.quarantined_rows <=> c.quarantined_rows
    AND s.gap_rows <=> c.gap_rows AND s.lost_rows <=> c.lost_rows AND s.last_commit <=> c.last_commit)
ORDER BY s.topic, s.generation, s.partition_id
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
    ends: tuple[tuple[str, int, int, int], ...] = ()
    """Topic, generation and partition, and up to which offset their commits were found right."""


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
    connection: Connection[Any],
    settings: Settings,
    pipeline: Pipeline,
    offsets: Offsets | None = None,
    *,
    whole: bool = True,
) -> Findings:
    """Verify one pipeline in one snapshot of the database, while its stream and its replays may be running.

    Args:
        connection: as any account that may read; in autocommit mode.
        settings: schemas.
        pipeline: declares stream, tables and rollups.
        offsets: reads offsets from Kafka. None to leave Kafka out.
        whole: whether the ledger is verified from its beginning, and not from where :func:`record_verified` noted.
    """
    # The first and the last offset of a partition only rise: the first is read before the snapshot, the last after it.
    starts = offsets("earliest") if offsets else {}
    structure = [*live_tables.differences(connection, settings, pipeline)]
    with translated(), connection.cursor() as cursor:
        for sql in dialect_of(connection).snapshot_read():
            cursor.execute(sql)
        try:
            positions = _positions(cursor, pipeline.name)
            own = {at: offset for (topic, at), offset in positions.items() if topic == pipeline.source.topic}
            chains = _chains(cursor, pipeline.name)
            if whole:
                differences = [*_whole_ledger(cursor, pipeline.name, positions)]
            else:
                differences = [found for chain in chains for found in _newer_commits(cursor, chain, positions)]
            if offsets:
                differences += _kafka(own, starts, offsets("latest"))
            scopes = [(_WHOLE, {"stream": pipeline.name})] if whole else [(_SINCE, vars(each)) for each in chains]
            audit = audit_tables(cursor, settings, pipeline, own, scopes, whole=whole)
            differences += audit.differences
            if whole and not differences:  # or they follow from those
                differences += _sums(cursor, pipeline.name)
            ends = tuple((each.topic, each.generation, each.partition, _bounds(cursor, each)[1]) for each in chains)
        finally:
            connection.rollback()
    return Findings((*structure, *differences), audit.notes, ends)


def record_verified(connection: Connection[Any], stream: str, findings: Findings) -> None:
    """Note up to where the ledger is right, so that the next verification begins there. If there is no difference.

    Args:
        connection: as the stream account.
        stream: whose ledger.
        findings: of its verification.
    """
    if findings.differences:
        return
    with translated(), connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE ledger_sums SET verified_offset = %s"
            " WHERE stream = %s AND topic = %s AND generation = %s AND partition_id = %s",
            [(end, stream, topic, generation, partition) for topic, generation, partition, end in findings.ends],
        )


@dataclass(frozen=True)
class _Chain:
    """The stream's own commits of one partition."""

    stream: str
    topic: str
    generation: int
    partition: int
    verified: int
    """Up to this offset a verification has found them right."""
    is_current: bool
    """Whether the topic has this generation now."""


def _chains(cursor: Any, stream: str) -> list[_Chain]:
    cursor.execute(_CHAINS, (stream,))
    return [
        _Chain(stream, str(topic), int(generation), int(partition), int(verified), bool(is_current))
        for topic, generation, partition, verified, is_current in cursor.fetchall()
    ]


def _bounds(cursor: Any, chain: _Chain) -> tuple[int, int]:
    """From where to where the commits after the verified ones reach."""
    cursor.execute(_BOUNDS, vars(chain))
    begins, ends = cursor.fetchone()
    return (chain.verified, chain.verified) if begins is None else (int(begins), int(ends))


def _positions(cursor: Any, stream: str) -> dict[tuple[str, int], int]:
    cursor.execute(
        "SELECT topic, partition_id, position FROM offsets WHERE stream = %s ORDER BY topic, partition_id", (stream,)
    )
    return {(str(topic), int(partition)): int(position) for topic, partition, position in cursor.fetchall()}


def _whole_ledger(cursor: Any, stream: str, positions: dict[tuple[str, int], int]) -> Iterator[str]:
    values = {"stream": stream}
    yield from _rows(cursor, _WHOLE, values)
    cursor.execute(_ENDS, values)
    for topic, partition, until in cursor.fetchall():
        yield from _end(partition, int(until), positions.get((topic, partition)))
    yield from _quarantine(cursor, (_WHOLE, _Q_WHOLE), values)


def _newer_commits(cursor: Any, chain: _Chain, positions: dict[tuple[str, int], int]) -> Iterator[str]:
    begins, ends = _bounds(cursor, chain)
    values = {**vars(chain), "begins": begins}
    if chain.verified and begins > chain.verified:
        yield _hole(chain.topic, chain.generation, chain.partition, begins, chain.verified)
    yield from _rows(cursor, _SINCE, values)
    if chain.is_current:
        yield from _end(chain.partition, ends, positions.get((chain.topic, chain.partition)))
    yield from _quarantine(cursor, (_SINCE, _Q_SINCE), values)


def _rows(cursor: Any, scope: str, values: dict[str, Any]) -> Iterator[str]:
    cursor.execute(_BROKEN.format(scope=scope), values)
    for commit, partition in cursor.fetchall():
        yield f"partition {partition}: commit {commit} does not add up"
    cursor.execute(_HOLES.format(scope=scope), values)
    for topic, generation, partition, begins, before in cursor.fetchall():
        yield _hole(topic, generation, partition, begins, before)


def _hole(topic: str, generation: int, partition: int, begins: int, before: int) -> str:
    where = f"partition {partition}" + (f" of generation {generation} of {topic}" if generation > 1 else "")
    if begins > before:
        return f"{where}: offsets {before} to {begins} are in no commit"
    return f"{where}: offsets {begins} to {before} are in two commits"


def _end(partition: int, until: int, position: int | None) -> Iterator[str]:
    if position is None:
        yield f"partition {partition}: the ledger ends at {until}, and the stream has no position"
    elif position != until:
        yield f"partition {partition}: the position is {position}, the ledger ends at {until}"


def _quarantine(cursor: Any, scopes: tuple[str, str], values: dict[str, Any]) -> Iterator[str]:
    scope, quarantined = scopes
    cursor.execute(_QUARANTINE.format(scope=scope, quarantined=quarantined), values)
    for commit, partition, begins, until, counted, purged, stored in cursor.fetchall():
        removed = f", of which maintenance removed {purged}" if purged else ""
        yield (
            f"partition {partition}: commit {commit} of offsets {begins} to {until} counts {counted} quarantined"
            f" records{removed}, the quarantine has {stored}"
        )
    cursor.execute(_STRAY.format(quarantined=quarantined), values)
    for record, partition, offset, commit in cursor.fetchall():
        yield (
            f"partition {partition}: record {record} of the quarantine, offset {offset}, is not of the commit that it"
            f" names, {commit}"
        )


def _sums(cursor: Any, stream: str) -> Iterator[str]:
    cursor.execute(_SUMS, {"stream": stream})
    for _topic, _generation, partition, summed, counted in cursor.fetchall():
        yield (
            f"partition {partition}: the sums of the ledger, {summed} offsets, are not those of its commits,"
            f" {counted or 0} offsets"
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
