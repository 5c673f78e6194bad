"""Compacts the ledger: merges old rows into fewer rows with the same sums over the same offsets.

Adjacent commits of one partition become one row: from the start of the first to the end of the last commit, with the id
of the last one and the sums of their counts. The newest commit of a partition is never merged, because a driver reads
it to find out whether its commit happened; neither are the rows of a replay that is not done.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymysql.connections import Connection

from tidemill.store.connection import translated
from tidemill.store.steps import pause_for_others, run_step

STEP_COMMITS = 500
"""Rows that one transaction merges."""
_PAGE = 5_000
_SUMS = (
    "written_rows", "duplicate_rows", "stale_rows", "filtered_rows", "quarantined_rows", "gap_rows", "lost_rows",
    "unselected_rows", "warned_rows", "purged_rows", "merged_commits",
)  # fmt: skip
_OF_TABLES = ("written_rows", "duplicate_rows", "stale_rows", "filtered_rows")

_OWN_CHAINS = """
SELECT topic, generation, partition_id, NULL, last_commit - 1 FROM ledger_sums WHERE stream = %s
"""
_CHAINS_OF_REPLAYS = """
SELECT c.topic, c.generation, c.partition_id, c.replay_id, MAX(c.id)
FROM replays AS r JOIN commits AS c ON c.replay_id = r.id WHERE r.stream = %s AND r.state = 'done'
GROUP BY c.topic, c.generation, c.partition_id, c.replay_id HAVING COUNT(*) > 1
"""
_ROWS = """
SELECT id, from_offset, until_offset, pipeline_version, committed_at FROM commits
WHERE stream = %(stream)s AND topic = %(topic)s AND generation = %(generation)s AND partition_id = %(partition)s
    AND replay_id <=> %(replay)s AND id <= %(last)s AND until_offset > %(after)s
ORDER BY until_offset, id LIMIT %(page)s
"""


@dataclass(frozen=True)
class _Chain:
    """The commits of one partition, by the stream itself or by one replay."""

    stream: str
    topic: str
    generation: int
    partition: int
    replay: int | None
    last: int
    """The newest commit that may be merged."""


@dataclass(frozen=True)
class _LedgerRow:
    id: int
    start: int
    until: int
    version: int

    def is_continued_by(self, other: _LedgerRow) -> bool:
        """Whether the other row begins where this one ends."""
        return self.until == other.start and self.version == other.version and self.id < other.id


def compact(connection: Connection[Any], stream: str, cutoff: datetime, *, dry_run: bool = False) -> int:
    """Merge the commits from before ``cutoff``, each step in a transaction of its own.

    Args:
        connection: as the stream account, in autocommit mode.
        stream: name of the stream.
        cutoff: naive UTC.
        dry_run: only count.

    Returns:
        By how many rows the ledger became shorter.
    """
    merged = 0
    for chain in _chains(connection, stream):
        run: list[_LedgerRow] = []
        for row in _old_rows(connection, chain, cutoff):
            if run and not run[-1].is_continued_by(row):
                merged += _finish(connection, chain, run, dry_run)
                run = []
            run.append(row)
            if len(run) == STEP_COMMITS:
                merged += _finish(connection, chain, run, dry_run)
                run = [_LedgerRow(row.id, run[0].start, row.until, row.version)]
        merged += _finish(connection, chain, run, dry_run)
    return merged


def _chains(connection: Connection[Any], stream: str) -> list[_Chain]:
    with translated(), connection.cursor() as cursor:
        cursor.execute(_OWN_CHAINS, (stream,))
        chains = [*cursor.fetchall()]
        cursor.execute(_CHAINS_OF_REPLAYS, (stream,))
        return [_Chain(stream, *chain) for chain in (*chains, *cursor.fetchall())]


def _old_rows(connection: Connection[Any], chain: _Chain, cutoff: datetime) -> Iterator[_LedgerRow]:
    """The rows from before the cutoff in order of their offsets, up to the first that is not: those after are newer."""
    values = {"stream": chain.stream, "topic": chain.topic, "generation": chain.generation,
              "partition": chain.partition, "replay": chain.replay, "last": chain.last, "page": _PAGE}  # fmt: skip
    after = 0
    while True:
        with translated(), connection.cursor() as cursor:
            cursor.execute(_ROWS, values | {"after": after})
            rows = cursor.fetchall()
        old = itertools.takewhile(lambda row: row[-1] < cutoff, rows)
        page = [_LedgerRow(*map(int, row[:-1])) for row in old]
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].until


def _finish(connection: Connection[Any], chain: _Chain, run: list[_LedgerRow], dry_run: bool) -> int:
    """Merge a run of adjacent rows; returns by how many the ledger became shorter."""
    if len(run) < 2:
        return 0
    if dry_run:
        return len(run) - 1
    began = time.monotonic()
    merged = run_step(connection, lambda cursor: _merge(cursor, chain, run))
    pause_for_others(began)
    return len(run) - 1 if merged else 0


def _merge(cursor: Any, chain: _Chain, run: list[_LedgerRow]) -> bool:
    """The transaction of one merge. False if another process has merged some of the rows since they were read."""
    ids = [row.id for row in run]
    cursor.execute("SELECT id, from_offset, until_offset FROM commits WHERE id IN %s ORDER BY id FOR UPDATE", (ids,))
    if [*cursor.fetchall()] != [(row.id, row.start, row.until) for row in run]:
        return False
    last, others = ids[-1], ids[:-1]
    sums = ", ".join(f"SUM({name}) AS {name}" for name in _SUMS)
    sets = ", ".join(f"l.{name} = s.{name}" for name in _SUMS)
    cursor.execute(
        f"UPDATE commits AS l JOIN (SELECT MAX(newest_at) AS newest_at, {sums} FROM commits WHERE id IN %s) AS s"
        f" SET l.from_offset = %s, l.newest_at = s.newest_at, {sets} WHERE l.id = %s",
        (ids, run[0].start, last),
    )
    _move_details(cursor, chain, run)
    cursor.execute("DELETE FROM commits WHERE id IN %s", (others,))
    return True


def _move_details(cursor: Any, chain: _Chain, run: list[_LedgerRow]) -> None:
    """Let the rows that refer to the merged commits refer to the one that remains."""
    last, others = run[-1].id, [row.id for row in run[:-1]]
    names = ", ".join(_OF_TABLES)
    added = ", ".join(f"{name} = commit_tables.{name} + VALUES({name})" for name in _OF_TABLES)
    cursor.execute(
        f"INSERT INTO commit_tables (commit_id, table_name, {names})"
        f" SELECT %s, table_name, {', '.join(f'SUM({name})' for name in _OF_TABLES)} FROM commit_tables"
        f" WHERE commit_id IN %s GROUP BY table_name ON DUPLICATE KEY UPDATE {added}",
        (last, others),
    )
    cursor.execute("DELETE FROM commit_tables WHERE commit_id IN %s", (others,))
    span = (chain.stream, chain.topic, chain.generation, chain.partition, run[0].start, run[-1].until)
    for column in ("commit_id", "resolved_commit"):
        cursor.execute(
            f"UPDATE quarantine SET {column} = %s WHERE stream = %s AND topic = %s AND generation = %s"
            f" AND partition_id = %s AND record_offset >= %s AND record_offset < %s AND {column} IN %s",
            (last, *span, others),
        )
