"""Rows that their table takes and a rollup of it cannot count.

A group key that divides by zero or does not fit its type, a product of more than 64 bits: the statement that moves the
rollup fails for all rows together and names none. Only then they are looked for, by taking ever fewer rows.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import StoreError, Transient
from tidemill.spec.schema import Table, TableKind
from tidemill.store.connection import translated
from tidemill.store.sql import identifiers
from tidemill.store.write.bulk_load import reason_of, refusals
from tidemill.store.write.merge import TableTarget, without_deleted

_ROWS = 1_000
"""Rows that are loaded and searched at a time: every attempt reads all that are loaded."""


def rejected_by_rollups(
    target: TableTarget, rows: pa.Table, deleted: pa.Table | None, values: dict[str, int]
) -> dict[int, str]:
    """The rows that would be written and that a rollup of the table cannot count. Outside a transaction.

    A row behind a newer one that all rollups count is stale whether they would count it or not. The stage holds
    anything afterwards.

    Args:
        target: after :func:`tidemill.store.write.merge.prepare`.
        rows: the table's columns and ``_offset``.
        deleted: keys that tombstones delete and ``_offset``; None without any.
        values: ``partition``, ``pipeline_version`` and ``since_commit`` of the rows.

    Returns:
        Offset -> the rollup and what the database says.
    """
    if not target.pipeline.rollups_of(target.name) or not rows.num_rows:
        return {}
    fresh = without_deleted(target.table, rows, deleted) if deleted is not None and deleted.num_rows else rows
    found: dict[int, str] = {}
    for start in range(0, fresh.num_rows, _ROWS):
        found |= _among(target, fresh.slice(start, _ROWS), values)
    return {offset: found[offset] for offset in _ahead(target.table, fresh, found)} if found else {}


def _among(target: TableTarget, rows: pa.Table, values: dict[str, int]) -> dict[int, str]:
    """Offset -> reason of the rows that a rollup cannot count, whatever else the batch holds."""
    d, schema, name, table = target.dialect, target.schema, target.name, target.table
    columns = [*table.columns, "_offset"]
    declared = {**table.columns, "_offset": "BIGINT UNSIGNED NOT NULL"}
    with translated(), target.connection.cursor() as cursor:
        for sql in d.create_stage(schema, name, table, keyed=False):
            cursor.execute(sql)
        load = d.load(schema, identifiers.stage(name), declared, lenient=True)
        # What the table itself refuses stands behind another row of its key, or it would have been found before.
        strange = refusals(target.connection, load, rows, columns, one_by_one=not d.warns_per_row)
        if target.marks_deleted:
            cursor.execute(d.discard_deleted_rows(schema, name, table), values)
    offsets = sorted({*rows["_offset"].to_pylist()} - strange.keys())
    found: dict[int, str] = {}
    for rollup in target.pipeline.rollups_of(name):
        found = _searched(target, rollup, offsets, values) | found
    return found


def _searched(target: TableTarget, rollup: str, offsets: list[int], values: dict[str, int]) -> dict[int, str]:
    """The rows that one rollup cannot count, found by halving what fails."""
    declared = target.pipeline.rollups[rollup]
    statements = target.dialect.probe_rollup(target.schema, rollup, declared, target.table)
    found: dict[int, str] = {}
    waiting = [offsets] if offsets else []
    while waiting:
        group = waiting.pop()
        try:
            with translated(), target.connection.cursor() as cursor:
                for sql in statements:
                    cursor.execute(sql, values | {"first": group[0], "last": group[-1]})
        except StoreError as error:
            if isinstance(error, Transient):
                raise
            half = len(group) // 2
            if half:
                waiting += [group[:half], group[half:]]
            else:
                found[group[0]] = f"rollup {rollup}: {reason_of(error)}"
    return found


def _ahead(table: Table, rows: pa.Table, bad: Collection[int]) -> list[int]:
    """Which of the bad rows no good row of their keys makes stale: the order is that of ``newest``."""
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
