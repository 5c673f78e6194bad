"""A batch's rows into one table: staged, what the database refuses set aside, settled, rollups moved.

And the way back: rows that tombstones, retention or a corrected replay take out of a table, and out of its rollups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pymysql.connections import Connection

from tidemill.errors import Contention, StoreError, Transient
from tidemill.spec.schema import Pipeline, Table, TableKind
from tidemill.spec.tombstones import deletes_from
from tidemill.store.connection import dialect_of, translated
from tidemill.store.sql import Dialect, identifiers
from tidemill.store.write.bulk_load import bulk_load, refusals


@dataclass(frozen=True)
class TableTarget:
    """One table of a pipeline, over the connection that writes it."""

    connection: Connection[Any]
    schema: str
    pipeline: Pipeline
    name: str
    incomplete: Collection[str] = ()
    """Rollups that do not count all rows yet; only those up to their cursor are moved."""
    beside: bool = False
    """Whether the stream's own driver may write at the same time: a replay."""
    partition: int = 0
    """The Kafka partition of the batch."""
    since_commit: int = 0
    """The commits after it are of this incarnation of the topic."""

    @property
    def dialect(self) -> Dialect:
        """Makes its statements."""
        return dialect_of(self.connection)

    @property
    def table(self) -> Table:
        """Its declaration."""
        return self.pipeline.tables[self.name]

    @property
    def marks_deleted(self) -> bool:
        """Whether tombstones delete from it."""
        return self.name in deletes_from(self.pipeline)


@dataclass(frozen=True)
class Staged:
    """What a batch brought for one table."""

    rows: int = 0
    """Rows that the database takes, several of one key counted one by one."""
    keys: int = 0
    """Rows in the stage: one a key."""
    tombstones: int = 0
    """Deletions, several of one key counted one by one."""
    refused: dict[int, str] = field(default_factory=dict)
    """Offset -> why the database does not take the row."""


@dataclass(frozen=True)
class Merged:
    """What became of the rows and tombstones of one table."""

    written: int
    unchanged: int
    """Duplicates of an event, or stale rows and tombstones of an entity."""
    offsets: frozenset[int] = frozenset()
    """Of the records that were written; empty unless asked for."""


def newest(table: Table, rows: pa.Table) -> pa.Table:
    """Of each key the row to keep: the newest version, and of equal ones (and of events) the first in Kafka.

    Keys are told apart by their bytes here, more finely than some collations do; what the database holds for one key
    all the same comes in such an order that the row to keep is last, for REPLACE keeps what it loads last.
    """
    order = [("_offset", "descending")]
    if table.kind is TableKind.ENTITY:
        order.insert(0, (str(table.version), "ascending"))
    places = pc.sort_indices(rows, sort_keys=order)
    keys = rows.select(list(table.key)).take(places).append_column("_last", pa.array(np.arange(rows.num_rows)))
    last = keys.group_by(list(table.key)).aggregate([("_last", "max")])["_last_max"]
    return rows.take(places.take(last.take(pc.sort_indices(last))))


def without_deleted(table: Table, rows: pa.Table, deleted: pa.Table) -> pa.Table:
    """The rows without those that a tombstone of the same batch comes after."""
    latest = deleted.group_by(list(table.key)).aggregate([("_offset", "max")])
    latest = latest.select([*table.key, "_offset_max"])
    if not rows.num_rows:
        return rows
    types = [rows.schema.field(name).type for name in table.key]
    latest = latest.cast(pa.schema([*zip(table.key, types, strict=True), ("_offset_max", pa.int64())]))
    keyed = rows.select([*table.key, "_offset"]).append_column("_place", pa.array(np.arange(rows.num_rows)))
    joined = keyed.join(latest, list(table.key), join_type="left outer")
    alive = pc.fill_null(pc.greater(joined["_offset"], joined["_offset_max"]), True)
    places = joined["_place"].filter(alive)
    return rows.take(places.take(pc.sort_indices(places)))


def prepare(target: TableTarget, rows: pa.Table, deleted: pa.Table | None = None) -> Staged:
    """Make the temporary tables of one table and load its rows. Outside a transaction.

    Args:
        target: its connection in autocommit mode.
        rows: the table's columns and ``_offset``.
        deleted: keys that tombstones delete and ``_offset``; None without any.

    Raises:
        StoreError: the database refuses the rows and does not say which.
    """
    table = target.table
    _make_temporary(target)
    tombstones, keyless = 0, dict[int, str]()
    if deleted is not None and deleted.num_rows:
        keyless = _stage_deleted(target, deleted)
        deleted = without(deleted, keyless)
        tombstones = deleted.num_rows
        fresh = without_deleted(table, rows, deleted)
    else:
        fresh = rows
    if not fresh.num_rows:
        return Staged(rows.num_rows, 0, tombstones, keyless)
    columns = [*table.columns, "_offset"]
    load = target.dialect.load(target.schema, identifiers.stage(target.name), _declared(table))
    kept, refused = newest(table, fresh), dict[int, str]()
    try:
        affected = bulk_load(target.connection, load, kept, columns)
    except StoreError as first:
        if isinstance(first, Transient):
            raise
        try:
            kept, refused = _loadable(target, fresh)
            affected = bulk_load(target.connection, load, kept, columns)
        except StoreError as second:
            if isinstance(second, Transient):
                raise
            # No warning told all: the database is asked row by row.
            kept, refused = _loadable(target, fresh, one_by_one=True)
            affected = bulk_load(target.connection, load, kept, columns)
    if buried := _deleted_later(target, fresh):
        # They may have hidden newer records of their keys, which have a lower version.
        again = prepare(target, without(fresh, buried), deleted)
        unchanged = rows.num_rows - fresh.num_rows + len(buried)
        return Staged(again.rows + unchanged, again.keys, again.tombstones, again.refused | keyless)
    # A replaced row counts twice.
    return Staged(rows.num_rows - len(refused), 2 * kept.num_rows - affected, tombstones, keyless | refused)


def _deleted_later(target: TableTarget, rows: pa.Table) -> set[int]:
    """The offsets of a replay's rows whose key a later record deleted in an earlier commit.

    A stream has none: what it reads comes after all it has read of the partition.
    """
    if not target.beside or not target.marks_deleted or not _any(target, identifiers.deletion_markers(target.name)):
        return set()
    key, values = list(target.table.key), {"partition": target.partition, "since_commit": target.since_commit}
    with translated(), target.connection.cursor() as cursor:
        cursor.execute(target.dialect.recorded_deletions(target.schema, target.name, target.table), values)
        found = cursor.fetchall()
    if not found:
        return set()
    columns = dict(zip([*key, "_offset"], zip(*found, strict=True), strict=True))
    types = {name: rows.schema.field(name).type for name in [*key, "_offset"]}
    markers = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    alive = without_deleted(target.table, rows, markers)
    return {*rows["_offset"].to_pylist()} - {*alive["_offset"].to_pylist()}


def _loadable(target: TableTarget, rows: pa.Table, *, one_by_one: bool = False) -> tuple[pa.Table, dict[int, str]]:
    """Of each key the newest row that the database takes, and the newer ones that it does not, with the reasons.

    An older row that fits must not be lost with a newer one that does not. What is behind a row that fits is stale
    whether it would fit or not, so that nothing depends on which other rows a batch holds. The stage is empty
    afterwards.
    """
    unfit = _refused(target, rows, one_by_one=one_by_one or not target.dialect.warns_per_row)
    _make_stage(target)
    refused: dict[int, str] = {}
    while True:
        kept = newest(target.table, rows)
        bad = {offset: unfit[offset] for offset in kept["_offset"].to_pylist() if offset in unfit}
        if not bad:
            return kept, refused
        refused |= bad
        rows = without(rows, bad)


def without(rows: pa.Table, offsets: Collection[int]) -> pa.Table:
    """The rows of all other records."""
    gone = pc.is_in(rows["_offset"], value_set=pa.array(sorted(offsets), rows["_offset"].type))
    return rows.filter(pc.invert(gone))


def _declared(table: Table) -> dict[str, str]:
    return {**table.columns, "_offset": "BIGINT UNSIGNED NOT NULL"}


def _make_temporary(target: TableTarget) -> None:
    _make_stage(target)
    _make_deltas(target)


def _make_stage(target: TableTarget, *, keyed: bool = True) -> None:
    _run(target, target.dialect.create_stage(target.schema, target.name, target.table, keyed=keyed))


def _make_deltas(target: TableTarget) -> None:
    for name, rollup in target.pipeline.rollups_of(target.name).items():
        _run(target, target.dialect.create_delta(target.schema, name, rollup, target.table))


def _run(target: TableTarget, statements: Iterable[str]) -> None:
    with translated(), target.connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)


def prepare_tombstones(target: TableTarget) -> None:
    """Make the temporary tables that :func:`remove_rows` reads and needs. Outside a transaction."""
    _run(target, target.dialect.create_tombstones(target.schema, target.name, target.table))
    _make_deltas(target)


def _stage_deleted(target: TableTarget, deleted: pa.Table) -> dict[int, str]:
    """Load the keys that tombstones delete; returns those that no row can have, with the reasons."""
    table = target.table
    prepare_tombstones(target)
    columns = {name: table.columns[name] for name in table.key} | {"_offset": "BIGINT UNSIGNED NOT NULL"}
    # REPLACE keeps what it loads last: the newest tombstone of a key.
    ordered = deleted.take(pc.sort_indices(deleted, sort_keys=[("_offset", "ascending")]))
    load = target.dialect.load(target.schema, identifiers.tombstones(target.name), columns)
    try:
        bulk_load(target.connection, load, ordered, [*columns])
    except StoreError as error:
        if isinstance(error, Transient):
            raise
        refused = refusals(target.connection, load, ordered, [*columns], one_by_one=True)
        prepare_tombstones(target)
        bulk_load(target.connection, load, without(ordered, refused), [*columns])
        return refused
    return {}


def _refused(target: TableTarget, rows: pa.Table, *, one_by_one: bool) -> dict[int, str]:
    """Offset -> reason of every row that does not fit. MariaDB lists at most 65,535 warnings, hence the slices."""
    columns = [*target.table.columns, "_offset"]
    size = max(1, 65_535 // len(columns))
    load = target.dialect.load(target.schema, identifiers.stage(target.name), _declared(target.table), lenient=True)
    refused: dict[int, str] = {}
    for start in range(0, rows.num_rows, size):
        _make_stage(target, keyed=False)
        part = rows.slice(start, size)
        refused |= refusals(target.connection, load, part, columns, one_by_one=one_by_one)
    return refused


def merge_rows(target: TableTarget, staged: Staged, values: dict[str, int], *, with_offsets: bool = False) -> Merged:
    """Apply the deletions, settle the staged rows against the table and move its rollups. Inside a transaction.

    Args:
        target: with the stage that :func:`prepare` made.
        staged: what :func:`prepare` returned.
        values: ``commit``, ``partition``, ``pipeline_version`` and ``since_commit`` of the rows. The commits after
            ``since_commit`` belong to this generation of the topic.
        with_offsets: whether to name the records that were written.
    """
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    with translated(), target.connection.cursor() as cursor:
        deleted = _delete(target, values) if staged.tombstones else 0
        keys = staged.keys
        if target.marks_deleted and keys and _any(target, identifiers.deletion_markers(name)):
            keys -= int(cursor.execute(d.discard_deleted_rows(schema, name, table), values))
        # A known row that is only locked does not count as affected.
        written = int(cursor.execute(d.insert_or_lock(schema, name, table), values)) if keys else 0
        for sql in d.lock_existing(schema, name, table) if written < keys else ():
            cursor.execute(sql, values)
        if keys and target.beside and target.marks_deleted:
            _refuse_deleted_meanwhile(target, values)
        if keys:
            all_new = written == keys
            for rollup_name, rollup in target.pipeline.rollups_of(name).items():
                complete = rollup_name not in target.incomplete
                for sql in d.move_rollup(schema, rollup_name, rollup, table, all_new=all_new, complete=complete):
                    cursor.execute(sql, values)
            if not all_new:
                written += int(cursor.execute(d.update(schema, name, table), values))
        offsets: frozenset[int] = frozenset()
        if with_offsets:
            cursor.execute(d.written_offsets(schema, name, table), values)
            found = [int(row[0]) for row in cursor.fetchall()]
            if deleted:
                cursor.execute(d.offsets_in(schema, identifiers.tombstones(name)))
                found += [int(row[0]) for row in cursor.fetchall()]
            offsets = frozenset(found)
    written += deleted
    return Merged(written, staged.rows + staged.tombstones - written, offsets)


def _any(target: TableTarget, table: str) -> bool:
    with target.connection.cursor() as cursor:
        return bool(cursor.execute(target.dialect.first_row(target.schema, table)))


def _refuse_deleted_meanwhile(target: TableTarget, values: dict[str, int]) -> None:
    """A key that the stream deleted after this batch had looked for deletions, and before it claimed the key.

    Raises:
        Contention: there is one; the next try sees the deletion.
    """
    with target.connection.cursor() as cursor:
        if cursor.execute(target.dialect.deleted_concurrently(target.schema, target.name, target.table), values):
            raise Contention("a key was deleted while an older record of it was written", value=target.name)


def _delete(target: TableTarget, values: dict[str, int]) -> int:
    """Apply the staged tombstones; returns how many were not known before."""
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    with target.connection.cursor() as cursor:
        cursor.execute(d.discard_recorded_tombstones(schema, name, table), values)
        # Marked before it is removed: whoever claims a key beside us and then asks for its mark finds it, or is found.
        cursor.execute(d.record_deletions(schema, name, table), values)
        remove_rows(target, identifiers.OLDER_THAN_TOMBSTONE, values)
        cursor.execute(d.count_rows(schema, identifiers.tombstones(name)))
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def remove_rows(target: TableTarget, condition: str, values: dict[str, Any]) -> int:
    """Take rows out of a table and out of its rollups. Inside a transaction.

    Args:
        target: its temporary table ``_gone_<table>``, which :func:`prepare_gone` made, holds keys and ``_offset``.
        condition: SQL over ``t``, the table's row, and ``g``, the temporary table's, that must hold as well.
        values: parameters of the condition.

    Returns:
        Rows removed.
    """
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    with translated(), target.connection.cursor() as cursor:
        _lock_leaving_rows(target, condition, values)
        for rollup_name, rollup in target.pipeline.rollups_of(name).items():
            complete = rollup_name not in target.incomplete
            for sql in d.remove_from_rollup(schema, rollup_name, rollup, table, complete=complete):
                cursor.execute(sql)
        return int(cursor.execute(d.delete_locked_rows(schema, name, table)))


def _lock_leaving_rows(target: TableTarget, condition: str, values: dict[str, Any]) -> None:
    """Lock the rows that are to leave and note their keys.

    A row that comes under one of the other keys meanwhile stays: it would leave the table and not the rollups. The
    keys go by way of this process, because a query that fills a table need not lock what it reads.
    """
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    with target.connection.cursor() as cursor:
        cursor.execute(d.empty(schema, identifiers.locked_keys(name)))
        cursor.execute(d.lock_rows_to_remove(schema, name, table, condition), values)
        if found := cursor.fetchall():
            cursor.executemany(d.insert_locked_key(schema, name, table), found)
