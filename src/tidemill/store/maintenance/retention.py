"""What leaves by its age: rows of tables with a retention, deletion markers, quarantined records.

Always in small transactions, in key order as writers go, and with the same locks: a row that leaves takes its part in
the rollups with it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymysql.connections import Connection

from tidemill.spec.schema import Pipeline, Table
from tidemill.store.connection import dialect_of, translated
from tidemill.store.maintenance.rollup_backfill import incomplete_rollups
from tidemill.store.sql import identifiers
from tidemill.store.sql.maintenance import MARKER_UNTIL, older_than
from tidemill.store.steps import pause_for_others, run_step
from tidemill.store.write.fencing import check_pipeline_version
from tidemill.store.write.merge import TableTarget, prepare_tombstones, remove_rows

BATCH_ROWS = 2_000
"""Rows that leave in one transaction."""
BATCH_RECORDS = 500
"""Quarantined records that leave in one transaction; each may be megabytes."""


@dataclass(frozen=True)
class Place:
    """One table, over a connection as the stream account in autocommit mode."""

    connection: Connection[Any]
    schema: str
    pipeline: Pipeline
    name: str
    version: int
    """The pipeline's, as applied: a newer one may have rollups that this one does not know."""

    @property
    def table(self) -> Table:
        """Its declaration."""
        return self.pipeline.tables[self.name]

    def target(self) -> TableTarget:
        """As settling knows it. Inside a transaction."""
        building = incomplete_rollups(self.connection, self.pipeline)
        return TableTarget(self.connection, self.schema, self.pipeline, self.name, building)


def remove_old_rows(place: Place, cutoff: datetime, *, dry_run: bool = False, rows: int = BATCH_ROWS) -> int:
    """Remove the rows whose retention ended before ``cutoff`` (naive UTC), and move the rollups along.

    Returns:
        Rows removed, or to be removed.

    Raises:
        Fenced: the stream runs a newer pipeline version.
    """
    retention = place.table.retention
    if retention is None:
        return 0
    condition, values = older_than(retention.column), {"cutoff": cutoff}
    if dry_run:
        statement = dialect_of(place.connection).count_expired(place.schema, place.name, condition)
        return _count(place.connection, statement, values)

    def remove(_cursor: Any) -> int:
        removed = remove_rows(place.target(), condition, values)
        check_pipeline_version(place.connection, place.pipeline.name, place.version)
        return removed

    prepare_tombstones(TableTarget(place.connection, place.schema, place.pipeline, place.name))
    return _walk(place, (condition, values), remove, rows=rows)


def remove_old_markers(place: Place, commit: int, *, dry_run: bool = False, rows: int = BATCH_ROWS) -> int:
    """Forget the keys that tombstones up to a commit deleted; returns how many."""
    source, values, d = identifiers.deletion_markers(place.name), {"commit": commit}, dialect_of(place.connection)
    if dry_run:
        return _count(place.connection, d.count_expired(place.schema, source, MARKER_UNTIL), values)
    prepare_tombstones(TableTarget(place.connection, place.schema, place.pipeline, place.name))
    statement = d.delete_expired_markers(place.schema, place.name, place.table)
    condition = (MARKER_UNTIL, values)
    return _walk(place, condition, lambda cursor: int(cursor.execute(statement, values)), rows=rows, source=source)


def _walk(
    place: Place,
    condition: tuple[str, dict[str, Any]],
    remove: Callable[[Any], int],
    *,
    rows: int,
    source: str = "",
) -> int:
    """Stage the next keys that meet the condition and remove them, until none is left."""
    connection, schema, name, table = place.connection, place.schema, place.name, place.table
    text, values = condition
    removed, reached, d = 0, dict[str, Any](), dialect_of(connection)
    while True:
        began = time.monotonic()
        with translated(), connection.cursor() as cursor:
            cursor.execute(d.clear_tombstones(schema, name))
            stage = d.stage_expired(schema, name, table, text, source=source or name, first=not reached)
            staged = int(cursor.execute(stage, values | reached | {"rows": rows}))
            cursor.execute(d.last_tombstone(schema, name, table))
            last = cursor.fetchone()
        if last is None:
            return removed
        removed += run_step(connection, remove)
        if staged < rows:
            return removed
        reached = {f"k{position}": value for position, value in enumerate(last)}
        pause_for_others(began)


def purge_quarantined(connection: Connection[Any], stream: str, cutoff: datetime, *, dry_run: bool = False) -> int:
    """Remove the records that were quarantined before ``cutoff`` (naive UTC), whatever became of them.

    Their commits remember how many they were.

    Returns:
        Records removed, or to be removed.
    """
    # A record without its commit is a difference that verification names: it stays as evidence.
    old = (
        "FROM quarantine AS q JOIN commits AS c ON c.id = q.commit_id AND c.stream = q.stream"
        " WHERE q.stream = %(stream)s AND q.quarantined_at < %(cutoff)s"
    )
    values = {"stream": stream, "cutoff": cutoff}
    if dry_run:
        return _count(connection, f"SELECT COUNT(*) {old}", values)
    removed = 0
    while True:
        began = time.monotonic()
        with translated(), connection.cursor() as cursor:
            cursor.execute(f"SELECT q.id {old} ORDER BY q.id LIMIT {BATCH_RECORDS}", values)
            ids = [int(row[0]) for row in cursor.fetchall()]
        if not ids:
            return removed
        gone = run_step(connection, lambda cursor, ids=ids: _purge(cursor, ids))  # type: ignore[misc]  # ids is bound
        removed += gone
        if len(ids) < BATCH_RECORDS or not gone:
            return removed
        pause_for_others(began)


def _purge(cursor: Any, ids: list[int]) -> int:
    cursor.execute("SELECT id, commit_id FROM quarantine WHERE id IN %s ORDER BY id FOR UPDATE", (ids,))
    found = cursor.fetchall()
    for commit, records in sorted(Counter(int(commit) for _, commit in found).items()):
        cursor.execute("UPDATE commits SET purged_rows = purged_rows + %s WHERE id = %s", (records, commit))
    return int(cursor.execute("DELETE FROM quarantine WHERE id IN %s", (ids,)))


def _count(connection: Connection[Any], statement: str, values: dict[str, Any]) -> int:
    with translated(), connection.cursor() as cursor:
        cursor.execute(statement, values)
        row = cursor.fetchone()
    return int(row[0]) if row else 0
