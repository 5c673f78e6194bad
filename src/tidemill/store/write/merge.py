"""Merges the rows of a batch into one table and its rollups.

:func:`prepare` loads the rows into a stage, outside of the transaction, and finds those that the database rejects.
:func:`merge_rows` merges the stage into the table and updates the rollups, inside the transaction. :func:`remove_rows`
deletes rows, for tombstones, retention and corrected replays, and subtracts them from the rollups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pymysql.connections import Connection

from tidemill.errors import Contention, StoreError, StructureError, Transient
from tidemill.spec.schema import Pipeline, Table, TableKind
from tidemill.spec.tombstones import deletes_from
from tidemill.store.connection import dialect_of, naming, translated
from tidemill.store.sql import Dialect, identifiers
from tidemill.store.write.accepted import accepted, check_each_key
from tidemill.store.write.bulk_load import bulk_load, rejected_rows
from tidemill.store.write.context import RowContext


@dataclass(frozen=True)
class TableTarget:
    """One table of a pipeline, with the connection that writes to it."""

    connection: Connection[Any]
    schema: str
    pipeline: Pipeline
    name: str
    incomplete: Collection[str] = ()
    """Rollups that do not count all rows yet, but only those up to their cursor."""
    concurrent: bool = False
    """Whether the stream's driver may write at the same time: True for a replay."""
    rows: RowContext = field(default_factory=RowContext)
    """What the rows of the batch have in common."""

    @property
    def dialect(self) -> Dialect:
        """Generates the statements."""
        return dialect_of(self.connection)

    @property
    def table(self) -> Table:
        """The declaration of the table."""
        return self.pipeline.tables[self.name]

    @property
    def marks_deleted(self) -> bool:
        """Whether tombstones delete from it."""
        return self.name in deletes_from(self.pipeline)


@dataclass(frozen=True)
class Staged:
    """What :func:`prepare` has staged of a batch for one table."""

    rows: int = 0
    """Rows that the database accepts; several rows of one key count each."""
    keys: int = 0
    """Rows in the stage: one for each key."""
    tombstones: int = 0
    """Deletions; several of one key count each."""
    rejected: dict[int, str] = field(default_factory=dict)
    """Offset -> why the database rejects the row."""


@dataclass(frozen=True)
class Merged:
    """What :func:`merge_rows` did with the rows and tombstones of one table."""

    written: int
    unchanged: int
    """Duplicates of an event, or stale rows and tombstones of an entity."""
    offsets: frozenset[int] = frozenset()
    """Of the records that were written; empty unless requested."""


def latest_by_key(table: Table, rows: pa.Table) -> pa.Table:
    """Of each key the row to keep: the newest version; of equal versions, and of events, the first in Kafka.

    Keys are compared by their bytes here, which is stricter than some collations. Rows whose keys the database
    considers equal are sorted so that the row to keep comes last: REPLACE keeps the row that it loads last.
    """
    order = [("_offset", "descending")]
    if table.kind is TableKind.ENTITY:
        order.insert(0, (str(table.version), "ascending"))
    indices = pc.sort_indices(rows, sort_keys=order)
    keys = rows.select(list(table.key)).take(indices).append_column("_last", pa.array(np.arange(rows.num_rows)))
    last = keys.group_by(list(table.key)).aggregate([("_last", "max")])["_last_max"]
    return rows.take(indices.take(last.take(pc.sort_indices(last))))


def without_deleted(table: Table, rows: pa.Table, deleted: pa.Table) -> pa.Table:
    """The rows without those whose key a later tombstone deletes."""
    latest = deleted.group_by(list(table.key)).aggregate([("_offset", "max")])
    latest = latest.select([*table.key, "_offset_max"])
    if not rows.num_rows:
        return rows
    types = [rows.schema.field(name).type for name in table.key]
    latest = latest.cast(pa.schema([*zip(table.key, types, strict=True), ("_offset_max", pa.int64())]))
    keyed = rows.select([*table.key, "_offset"]).append_column("_index", pa.array(np.arange(rows.num_rows)))
    joined = keyed.join(latest, list(table.key), join_type="left outer")
    is_later = pc.fill_null(pc.greater(joined["_offset"], joined["_offset_max"]), True)
    indices = joined["_index"].filter(is_later)
    return rows.take(indices.take(pc.sort_indices(indices)))


def prepare(target: TableTarget, rows: pa.Table, deleted: pa.Table | None = None) -> Staged:
    """Create the temporary tables of one table and load the rows into its stage. Outside of a transaction.

    Args:
        target: with a connection in autocommit mode.
        rows: the table's columns and ``_offset``.
        deleted: keys that tombstones delete, and ``_offset``; None if there are none.

    Raises:
        StructureError: the database lacks what the pipeline needs.
        StoreError: the database refuses the rows, and it cannot be determined which ones.
    """
    table = target.table
    _create_temporary_tables(target)
    tombstones, keyless = 0, dict[int, str]()
    if deleted is not None and deleted.num_rows:
        keyless = _stage_deleted(target, deleted)
        deleted = without(deleted, keyless)
        tombstones = deleted.num_rows
        remaining = without_deleted(table, rows, deleted)
    else:
        remaining = rows
    if not remaining.num_rows:
        return Staged(rows.num_rows, 0, tombstones, keyless)
    columns = [*table.columns, "_offset"]
    load = target.dialect.load(target.schema, identifiers.stage(target.name), _declared(table))
    kept, rejected = latest_by_key(table, remaining), dict[int, str]()
    try:
        affected = bulk_load(target.connection, load, kept, columns)
    except StoreError as first:
        if isinstance(first, Transient | StructureError):
            raise
        try:
            kept, rejected = _loadable(target, remaining)
            affected = bulk_load(target.connection, load, kept, columns)
        except StoreError as second:
            if isinstance(second, Transient | StructureError):
                raise
            # The warnings did not name every row: each row is tried by itself.
            kept, rejected = _loadable(target, remaining, one_by_one=True)
            affected = bulk_load(target.connection, load, kept, columns)
    if stale := _deleted_later(target, remaining):
        # Without them, later records of their keys with a lower version are the rows to keep.
        again = prepare(target, without(remaining, stale), deleted)
        unchanged = rows.num_rows - remaining.num_rows + len(stale)
        return Staged(again.rows + unchanged, again.keys, again.tombstones, again.rejected | keyless)
    # A replaced row counts twice.
    return Staged(rows.num_rows - len(rejected), 2 * kept.num_rows - affected, tombstones, keyless | rejected)


def _deleted_later(target: TableTarget, rows: pa.Table) -> set[int]:
    """The offsets of a replay's rows whose key a later record has deleted, in a commit that is done.

    A stream has none: the records that it reads come after all that it has read of the partition.
    """
    if (
        not target.concurrent
        or not target.marks_deleted
        or not _has_rows(target, identifiers.deletion_markers(target.name))
    ):
        return set()
    key = list(target.table.key)
    with translated(), target.connection.cursor() as cursor:
        statement = target.dialect.recorded_deletions(target.schema, target.name, target.table)
        cursor.execute(statement, target.rows.parameters())
        deletions = cursor.fetchall()
    if not deletions:
        return set()
    columns = dict(zip([*key, "_offset"], zip(*deletions, strict=True), strict=True))
    types = {name: rows.schema.field(name).type for name in [*key, "_offset"]}
    markers = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    remaining = without_deleted(target.table, rows, markers)
    return {*rows["_offset"].to_pylist()} - {*remaining["_offset"].to_pylist()}


def _loadable(target: TableTarget, rows: pa.Table, *, one_by_one: bool = False) -> tuple[pa.Table, dict[int, str]]:
    """Of each key the newest row that the database accepts, and the newer rows that it rejects, with the reasons.

    An older loadable row must not be lost because of a newer one that is rejected. A row older than a loadable row is
    stale whether it is loadable or not, so that the result does not depend on how records are grouped into batches. The
    stage is empty afterwards.
    """
    reasons = _rejected(target, rows, one_by_one=one_by_one or not target.dialect.warns_per_row)
    _create_stage(target)
    rejected: dict[int, str] = {}
    while True:
        kept = latest_by_key(target.table, rows)
        bad = {offset: reasons[offset] for offset in kept["_offset"].to_pylist() if offset in reasons}
        if not bad:
            return kept, rejected
        rejected |= bad
        rows = without(rows, bad)


def without(rows: pa.Table, offsets: Collection[int]) -> pa.Table:
    """The rows without those of these records."""
    excluded = pc.is_in(rows["_offset"], value_set=pa.array(sorted(offsets), rows["_offset"].type))
    return rows.filter(pc.invert(excluded))


def _declared(table: Table) -> dict[str, str]:
    return {**table.columns, "_offset": "BIGINT UNSIGNED NOT NULL"}


def _create_temporary_tables(target: TableTarget) -> None:
    _create_stage(target)
    _create_deltas(target)


def _create_stage(target: TableTarget, *, keyed: bool = True) -> None:
    _run(target, target.dialect.create_stage(target.schema, target.name, target.table, keyed=keyed))


def _create_deltas(target: TableTarget) -> None:
    for name, rollup in target.pipeline.rollups_of(target.name).items():
        _run(target, target.dialect.create_delta(target.schema, name, rollup, target.table))


def _run(target: TableTarget, statements: Iterable[str]) -> None:
    with translated(), target.connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)


def prepare_tombstones(target: TableTarget) -> None:
    """Create the temporary tables that :func:`remove_rows` needs. Outside of a transaction."""
    _run(target, target.dialect.create_tombstones(target.schema, target.name, target.table))
    _create_deltas(target)


def _stage_deleted(target: TableTarget, deleted: pa.Table) -> dict[int, str]:
    """Load the keys that tombstones delete; returns those that the database rejects, with the reasons."""
    table = target.table
    prepare_tombstones(target)
    columns = {name: table.columns[name] for name in table.key} | {"_offset": "BIGINT UNSIGNED NOT NULL"}
    # REPLACE keeps what it loads last: the newest tombstone of a key.
    ordered = deleted.take(pc.sort_indices(deleted, sort_keys=[("_offset", "ascending")]))
    load = target.dialect.load(target.schema, identifiers.tombstones(target.name), columns)
    try:
        bulk_load(target.connection, load, ordered, [*columns])
    except StoreError as error:
        if isinstance(error, Transient | StructureError):
            raise
        rejected = rejected_rows(target.connection, load, ordered, [*columns], one_by_one=True)
        prepare_tombstones(target)
        bulk_load(target.connection, load, without(ordered, rejected), [*columns])
        return rejected
    return {}


def _rejected(target: TableTarget, rows: pa.Table, *, one_by_one: bool) -> dict[int, str]:
    """Offset -> reason of every row that is rejected. MariaDB lists at most 65,535 warnings, hence the slices."""
    columns = [*target.table.columns, "_offset"]
    size = max(1, 65_535 // len(columns))
    load = target.dialect.load(target.schema, identifiers.stage(target.name), _declared(target.table), lenient=True)
    rejected: dict[int, str] = {}
    for start in range(0, rows.num_rows, size):
        _create_stage(target, keyed=False)
        part = rows.slice(start, size)
        rejected |= rejected_rows(target.connection, load, part, columns, one_by_one=one_by_one)
    return rejected


def merge_rows(target: TableTarget, staged: Staged, *, with_offsets: bool = False) -> Merged:
    """Apply the deletions, merge the staged rows into the table and update its rollups. Inside a transaction.

    Args:
        target: with the stage that :func:`prepare` loaded, and the commit of the rows.
        staged: what :func:`prepare` returned.
        with_offsets: whether to return the offsets of the records that were written.
    """
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    values = target.rows.parameters()
    with naming(f"table {name}"), translated(), target.connection.cursor() as cursor:
        deleted = _delete(target) if staged.tombstones else 0
        keys = staged.keys
        if target.marks_deleted and keys and _has_rows(target, identifiers.deletion_markers(name)):
            keys -= int(cursor.execute(d.discard_deleted_rows(schema, name, table), values))
        written = _insert_or_lock(target, keys) if keys else 0
        if keys and target.concurrent and target.marks_deleted:
            _check_no_concurrent_deletion(target)
        if keys:
            all_new = written == keys
            for rollup_name, rollup in target.pipeline.rollups_of(name).items():
                complete = rollup_name not in target.incomplete
                with naming(f"rollup {rollup_name}"), translated():
                    for sql in d.move_rollup(schema, rollup_name, rollup, table, all_new=all_new, complete=complete):
                        cursor.execute(sql, values)
            if not all_new:
                with accepted(name):
                    written += int(cursor.execute(d.update(schema, name, table), values))
        offsets: frozenset[int] = frozenset()
        if with_offsets:
            cursor.execute(d.written_offsets(schema, name, table), values)
            written_offsets = [int(row[0]) for row in cursor.fetchall()]
            if deleted:
                cursor.execute(d.offsets_in(schema, identifiers.tombstones(name)))
                written_offsets += [int(row[0]) for row in cursor.fetchall()]
            offsets = frozenset(written_offsets)
    written += deleted
    return Merged(written, staged.rows + staged.tombstones - written, offsets)


def _has_rows(target: TableTarget, table: str) -> bool:
    with target.connection.cursor() as cursor:
        return bool(cursor.execute(target.dialect.first_row(target.schema, table)))


def _insert_or_lock(target: TableTarget, keys: int) -> int:
    """Insert the staged rows of new keys and lock those of existing keys; returns how many were inserted."""
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    values = target.rows.parameters()
    with target.connection.cursor() as cursor:
        with accepted(name):
            # An existing row that is only locked does not count as affected.
            written = int(cursor.execute(d.insert_or_lock(schema, name, table), values))
        for sql in d.lock_existing(schema, name, table) if written < keys else ():
            cursor.execute(sql, values)
    if written < keys:
        check_each_key(target.connection, d.count_known(schema, name, table), name, keys)
    return written


def _check_no_concurrent_deletion(target: TableTarget) -> None:
    """Check that the stream deleted no staged key after :func:`prepare` had read the deletions and before the key was
    locked.

    Raises:
        Contention: it deleted one; the next attempt reads the deletion.
    """
    statement = target.dialect.deleted_concurrently(target.schema, target.name, target.table)
    with target.connection.cursor() as cursor:
        if cursor.execute(statement, target.rows.parameters()):
            raise Contention("TM-STORE-KEY-DELETED", value=target.name)


def _delete(target: TableTarget) -> int:
    """Apply the staged tombstones; returns how many were not recorded before."""
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    values = target.rows.parameters()
    with target.connection.cursor() as cursor:
        cursor.execute(d.discard_recorded_tombstones(schema, name, table), values)
        # The deletion is recorded before the row is deleted: a concurrent replay that locks the key and then reads the
        # record of deletions either finds the deletion, or its row is deleted here.
        cursor.execute(d.record_deletions(schema, name, table), values)
        remove_rows(target, identifiers.OLDER_THAN_TOMBSTONE, values)
        cursor.execute(d.count_rows(schema, identifiers.tombstones(name)))
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def remove_rows(target: TableTarget, condition: str, values: dict[str, Any]) -> int:
    """Delete rows of a table and subtract them from its rollups. Inside a transaction.

    Args:
        target: after :func:`prepare_tombstones`; the temporary table contains the keys and ``_offset``.
        condition: SQL over ``t``, the table's row, and ``k``, the temporary table's row, that must also hold.
        values: parameters of the condition.

    Returns:
        Number of rows deleted.
    """
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    with translated(), target.connection.cursor() as cursor:
        _lock_rows(target, condition, values)
        for rollup_name, rollup in target.pipeline.rollups_of(name).items():
            complete = rollup_name not in target.incomplete
            with naming(f"rollup {rollup_name}"), translated():
                for sql in d.remove_from_rollup(schema, rollup_name, rollup, table, complete=complete):
                    cursor.execute(sql)
        return int(cursor.execute(d.delete_locked_rows(schema, name, table)))


def _lock_rows(target: TableTarget, condition: str, values: dict[str, Any]) -> None:
    """Lock the rows that are to be deleted and store their keys in a temporary table.

    A row that is inserted meanwhile under another of the keys stays: it would be deleted and not subtracted from the
    rollups. The keys pass through this process, because INSERT … SELECT need not lock the rows that it reads.
    """
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    with target.connection.cursor() as cursor:
        cursor.execute(d.empty(schema, identifiers.locked_keys(name)))
        cursor.execute(d.lock_rows_to_remove(schema, name, table, condition), values)
        if keys := cursor.fetchall():
            cursor.executemany(d.insert_locked_key(schema, name, table), keys)
