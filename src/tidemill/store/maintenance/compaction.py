"""Old ledger rows put together: the same sums over the same offsets in fewer rows.

Adjacent commits of one partition become one row: it begins where the first began, ends where the last ended, keeps
the last one's id and adds up what they counted. The row of the newest commit of a partition is left alone, for a
driver asks it whether its commit happened; so are the rows of a replay that is not done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymysql.connections import Connection

from tidemill.store.connection import translated
from tidemill.store.steps import pause_for_others, run_step

STEP_COMMITS = 500
"""Rows that one transaction puts together."""
_PAGE = 5_000
_SUMS = (
    "written_rows", "duplicate_rows", "stale_rows", "filtered_rows", "quarantined_rows", "gap_rows", "lost_rows",
    "unselected_rows", "warned_rows", "purged_rows", "merged_commits",
)  # fmt: skip
_OF_TABLES = ("written_rows", "duplicate_rows", "stale_rows", "filtered_rows")

_CHAINS = """
SELECT c.topic, c.generation, c.partition_id, c.replay_id, MAX(c.id) FROM commits AS c
LEFT JOIN replays AS r ON r.id = c.replay_id
WHERE c.stream = %s AND (c.replay_id IS NULL OR r.state = 'done')
GROUP BY c.topic, c.generation, c.partition_id, c.replay_id HAVING COUNT(*) > 1
"""
_ROWS = f"""
SELECT id, from_offset, until_offset, pipeline_version FROM commits
WHERE stream = %(stream)s AND topic = %(topic)s AND generation = %(generation)s AND partition_id = %(partition)s
    AND replay_id <=> %(replay)s AND id <= %(last)s AND committed_at < %(cutoff)s AND until_offset > %(after)s
ORDER BY until_offset, id LIMIT {_PAGE}
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
    """The newest commit that may be touched."""


@dataclass(frozen=True)
class _Commit:
    id: int
    start: int
    until: int
    version: int

    def goes_on(self, other: _Commit) -> bool:
        """Whether the other one begins where this one ends."""
        return self.until == other.start and self.version == other.version and self.id < other.id


def compact(connection: Connection[Any], stream: str, cutoff: datetime, *, dry_run: bool = False) -> int:
    """Put together the commits from before ``cutoff``, each step in a transaction of its own.

    Args:
        connection: as the stream account, in autocommit mode.
        stream: whose.
        cutoff: naive UTC.
        dry_run: only count.

    Returns:
        How many rows the ledger has less.
    """
    gained = 0
    for chain in _chains(connection, stream):
        run: list[_Commit] = []
        for commit in _old_commits(connection, chain, cutoff):
            if run and not run[-1].goes_on(commit):
                gained += _finish(connection, chain, run, dry_run)
                run = []
            run.append(commit)
            if len(run) == STEP_COMMITS:
                gained += _finish(connection, chain, run, dry_run)
                run = [_Commit(commit.id, run[0].start, commit.until, commit.version)]
        gained += _finish(connection, chain, run, dry_run)
    return gained


def _chains(connection: Connection[Any], stream: str) -> list[_Chain]:
    with translated(), connection.cursor() as cursor:
        cursor.execute(_CHAINS, (stream,))
        return [
            _Chain(stream, topic, generation, partition, replay, newest - 1 if replay is None else newest)
            for topic, generation, partition, replay, newest in cursor.fetchall()
        ]


def _old_commits(connection: Connection[Any], chain: _Chain, cutoff: datetime) -> Iterator[_Commit]:
    """In order of their offsets."""
    values = {"stream": chain.stream, "topic": chain.topic, "generation": chain.generation,
              "partition": chain.partition, "replay": chain.replay, "last": chain.last, "cutoff": cutoff}  # fmt: skip
    after = 0
    while True:
        with translated(), connection.cursor() as cursor:
            cursor.execute(_ROWS, values | {"after": after})
            found = [_Commit(*map(int, row)) for row in cursor.fetchall()]
        yield from found
        if len(found) < _PAGE:
            return
        after = found[-1].until


def _finish(connection: Connection[Any], chain: _Chain, run: list[_Commit], dry_run: bool) -> int:
    """Put a run of commits together; returns how many rows that saves."""
    if len(run) < 2:
        return 0
    if dry_run:
        return len(run) - 1
    began = time.monotonic()
    merged = run_step(connection, lambda cursor: _merge(cursor, chain, run))
    pause_for_others(began)
    return len(run) - 1 if merged else 0


def _merge(cursor: Any, chain: _Chain, run: list[_Commit]) -> bool:
    """The one transaction. False if the rows are not what they were: somebody else puts them together."""
    ids = [commit.id for commit in run]
    cursor.execute("SELECT id, from_offset, until_offset FROM commits WHERE id IN %s ORDER BY id FOR UPDATE", (ids,))
    if [*cursor.fetchall()] != [(commit.id, commit.start, commit.until) for commit in run]:
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


def _move_details(cursor: Any, chain: _Chain, run: list[_Commit]) -> None:
    """What hangs on the rows that go is hung on the one that stays."""
    last, others = run[-1].id, [commit.id for commit in run[:-1]]
    names = ", ".join(_OF_TABLES)
    added = ", ".join(f"{name} = commit_tables.{name} + VALUES({name})" for name in _OF_TABLES)
    cursor.execute(
        f"INSERT INTO commit_tables (commit_id, table_name, {names})"
        f" SELECT %s, table_name, {', '.join(f'SUM({name})' for name in _OF_TABLES)} FROM commit_tables"
        f" WHERE commit_id IN %s GROUP BY table_name ON DUPLICATE KEY UPDATE {added}",
        (last, others),
    )
    cursor.execute("DELETE FROM commit_tables WHERE commit_id IN %s", (others,))
    place = (chain.stream, chain.topic, chain.generation, chain.partition, run[0].start, run[-1].until)
    for column in ("commit_id", "resolved_commit"):
        cursor.execute(
            f"UPDATE quarantine SET {column} = %s WHERE stream = %s AND topic = %s AND generation = %s"
            f" AND partition_id = %s AND record_offset >= %s AND record_offset < %s AND {column} IN %s",
            (last, *place, others),
        )
