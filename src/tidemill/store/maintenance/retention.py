"""Removes what is too old: rows of tables with a retention, deletion markers, quarantined records.

In small transactions, in the same key order and with the same locks as writers. A row that is removed is subtracted
from the rollups, too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
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
"""Rows that one transaction removes."""
BATCH_RECORDS = 500
"""Quarantined records that one transaction removes; each may have megabytes."""


@dataclass(frozen=True)
class MaintainedTable:
    """One table, with a connection as the stream account in autocommit mode."""

    connection: Connection[Any]
    schema: str
    pipeline: Pipeline
    name: str
    version: int
    """The applied version of the pipeline: a newer one may have rollups that this one does not know."""

    @property
    def declaration(self) -> Table:
        """The declaration of the table."""
        return self.pipeline.tables[self.name]

    def target(self, incomplete: Collection[str] = ()) -> TableTarget:
        """The table as the write path knows it."""
        return TableTarget(self.connection, self.schema, self.pipeline, self.name, incomplete)


def remove_old_rows(table: MaintainedTable, cutoff: datetime, *, dry_run: bool = False, rows: int = BATCH_ROWS) -> int:
    """Remove the rows whose retention ended before ``cutoff`` (naive UTC), and subtract them from the rollups.

    Returns:
        Number of rows removed, or to be removed.

    Raises:
        Fenced: the stream runs a newer pipeline version.
    """
    retention = table.declaration.retention
    if retention is None:
        return 0
    condition, values = older_than(retention.column), {"cutoff": cutoff}
    if dry_run:
        statement = dialect_of(table.connection).count_expired(table.schema, table.name, condition)
        return _count(table.connection, statement, values)

    def remove(_cursor: Any) -> int:
        target = table.target(incomplete_rollups(table.connection, table.pipeline))
        removed = remove_rows(target, condition, values)
        check_pipeline_version(table.connection, table.pipeline.name, table.version)
        return removed

    prepare_tombstones(table.target())
    return _walk(table, (condition, values), remove, rows=rows)


def remove_old_markers(table: MaintainedTable, commit: int, *, dry_run: bool = False, rows: int = BATCH_ROWS) -> int:
    """Remove the deletion markers of commits up to ``commit``; returns how many."""
    source, values, d = identifiers.deletion_markers(table.name), {"commit": commit}, dialect_of(table.connection)
    if dry_run:
        return _count(table.connection, d.count_expired(table.schema, source, MARKER_UNTIL), values)
    prepare_tombstones(table.target())
    statement = d.delete_expired_markers(table.schema, table.name, table.declaration)
    condition = (MARKER_UNTIL, values)
    return _walk(table, condition, lambda cursor: int(cursor.execute(statement, values)), rows=rows, source=source)


def _walk(
    table: MaintainedTable,
    condition: tuple[str, dict[str, Any]],
    remove: Callable[[Any], int],
    *,
    rows: int,
    source: str = "",
) -> int:
    """Stage the next keys that meet the condition and remove their rows, until none is left."""
    connection, schema, name, declared = table.connection, table.schema, table.name, table.declaration
    text, values = condition
    removed, reached, d = 0, dict[str, Any](), dialect_of(connection)
    while True:
        began = time.monotonic()
        with translated(), connection.cursor() as cursor:
            cursor.execute(d.clear_tombstones(schema, name))
            stage = d.stage_expired(schema, name, declared, text, source=source or name, first=not reached)
            staged = int(cursor.execute(stage, values | reached | {"rows": rows}))
            cursor.execute(d.last_tombstone(schema, name, declared))
            last = cursor.fetchone()
        if last is None:
            return removed
        removed += run_step(connection, remove)
        if staged < rows:
            return removed
        reached = {f"k{index}": value for index, value in enumerate(last)}
        pause_for_others(began)


def purge_quarantined(connection: Connection[Any], stream: str, cutoff: datetime, *, dry_run: bool = False) -> int:
    """Remove the records that were quarantined before ``cutoff`` (naive UTC), resolved or not.

    Their commits record how many were removed.

    Returns:
        Number of records removed, or to be removed.
    """
    # A record without its commit is a difference that verification reports: it stays as evidence.
    old = (
        f"FROM quarantine AS q {dialect_of(connection).join} commits AS c ON c.id = q.commit_id AND c.stream = q.stream"
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
        purged = run_step(connection, lambda cursor, ids=ids: _purge(cursor, ids))  # type: ignore[misc]  # ids is bound
        removed += purged
        if len(ids) < BATCH_RECORDS or not purged:
            return removed
        pause_for_others(began)


def _purge(cursor: Any, ids: list[int]) -> int:
    cursor.execute("SELECT id, commit_id FROM quarantine WHERE id IN %s ORDER BY id FOR UPDATE", (ids,))
    rows = cursor.fetchall()
    for commit, records in sorted(Counter(int(commit) for _, commit in rows).items()):
        cursor.execute("UPDATE commits SET purged_rows = purged_rows + %s WHERE id = %s", (records, commit))
    return int(cursor.execute("DELETE FROM quarantine WHERE id IN %s", (ids,)))


def _count(connection: Connection[Any], statement: str, values: dict[str, Any]) -> int:
    with translated(), connection.cursor() as cursor:
        cursor.execute(statement, values)
        row = cursor.fetchone()
    return int(row[0]) if row else 0
