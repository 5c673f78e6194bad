"""Finds the rows that a table accepts and one of its rollups cannot count.

For example, a group key divides by zero or does not fit its type, or a product exceeds 64 bits: the statement that
updates the rollup then fails for all rows together and names none. Only then this module searches for the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.spec.schema import Table, TableKind
from tidemill.store.connection import naming, translated
from tidemill.store.sql import identifiers
from tidemill.store.write.bulk_load import reason_of, rejected_rows
from tidemill.store.write.halving import find_refused
from tidemill.store.write.merge import TableTarget, without_deleted

_ROWS = 1_000
"""Rows that are loaded and searched at a time, because every attempt reads all loaded rows."""


def rejected_by_rollups(target: TableTarget, rows: pa.Table, deleted: pa.Table | None) -> dict[int, str]:
    """The rows that would be written and that a rollup of the table cannot count. Outside of a transaction.

    A row older than one that all rollups can count is stale, whether they can count it or not. The contents of the
    stage are undefined afterwards.

    Args:
        target: after :func:`tidemill.store.write.merge.prepare`.
        rows: the table's columns and ``_offset``.
        deleted: keys that tombstones delete, and ``_offset``; None if there are none.

    Returns:
        Offset -> the rollup and the database's message.
    """
    if not target.pipeline.rollups_of(target.name) or not rows.num_rows:
        return {}
    remaining = without_deleted(target.table, rows, deleted) if deleted is not None and deleted.num_rows else rows
    reasons: dict[int, str] = {}
    for start in range(0, remaining.num_rows, _ROWS):
        reasons |= _search(target, remaining.slice(start, _ROWS))
    return {offset: reasons[offset] for offset in _not_stale(target.table, remaining, reasons)} if reasons else {}


def _search(target: TableTarget, rows: pa.Table) -> dict[int, str]:
    """Offset -> reason of the rows that a rollup cannot count, stale ones included."""
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    columns = [*table.columns, "_offset"]
    declared = {**table.columns, "_offset": "BIGINT UNSIGNED NOT NULL"}
    with translated(), target.connection.cursor() as cursor:
        for sql in d.create_stage(schema, name, table, keyed=False):
            cursor.execute(sql)
        load = d.load(schema, identifiers.stage(name), declared, lenient=True)
        # A row that the table itself rejects is older than another row of its key, or prepare would have found it.
        rejected = rejected_rows(target.connection, load, rows, columns, one_by_one=not d.warns_per_row)
        if target.marks_deleted:
            cursor.execute(d.discard_deleted_rows(schema, name, table), target.rows.parameters())
    offsets = sorted({*rows["_offset"].to_pylist()} - rejected.keys())
    reasons: dict[int, str] = {}
    for rollup in target.pipeline.rollups_of(name):
        reasons = _uncountable(target, rollup, offsets) | reasons
    return reasons


def _uncountable(target: TableTarget, rollup: str, offsets: list[int]) -> dict[int, str]:
    """Offset -> reason of the rows that one rollup cannot count."""
    declared = target.pipeline.rollups[rollup]
    statements = target.dialect.probe_rollup(target.schema, rollup, declared, target.table)

    def probe(group: Sequence[int]) -> None:
        values = target.rows.parameters() | {"first": group[0], "last": group[-1]}
        with naming(f"rollup {rollup}"), translated(), target.connection.cursor() as cursor:
            for sql in statements:
                cursor.execute(sql, values)

    return {offset: f"rollup {rollup}: {reason_of(error)}" for offset, error in find_refused(offsets, probe)}


def _not_stale(table: Table, rows: pa.Table, bad: Collection[int]) -> list[int]:
    """Which of the bad rows no good row of their keys makes stale, in the order of ``latest_by_key``."""
    key = list(table.key)
    order = [("_offset", "descending")]
    if table.kind is TableKind.ENTITY:
        order.insert(0, (str(table.version), "ascending"))
    ranked = rows.take(pc.sort_indices(rows, sort_keys=order)).select([*key, "_offset"])
    ranks = pa.array(np.arange(ranked.num_rows))
    is_bad = pc.is_in(ranked["_offset"], value_set=pa.array(sorted(bad), ranked["_offset"].type))
    ranked = ranked.append_column("_rank", ranks).append_column("_good", pc.if_else(is_bad, -1, ranks))
    best = ranked.group_by(key).aggregate([("_good", "max")])
    wrong = ranked.filter(is_bad).join(best, key, join_type="left outer")
    return [
        int(offset) for offset in wrong.filter(pc.greater(wrong["_rank"], wrong["_good_max"]))["_offset"].to_pylist()
    ]
