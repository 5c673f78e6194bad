"""Statements of verification and maintenance: differing groups, and rows, markers and scores that have expired.

For example, retention stages the first keys of a table that have expired::

    INSERT INTO `data`.`_tombstones_clicks` (`code`, `_offset`)
    SELECT t.`code`, t.`_offset`
    FROM `data`.`clicks` AS t
    WHERE t.`at` < %(cutoff)s
    ORDER BY t.`code`
    LIMIT %(rows)s;

The parameters ``k0``, ``k1``, … are the key that a walk in key order has reached.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.spec.schema import Model, Rollup, Table
from tidemill.store.sql.deletes import DeleteStatements
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import NO_PARTITION, columns_of, deletion_markers, in_schema, quote, tombstones

MARKER_UNTIL = "t.`_commit` <= %(commit)s"
"""Whether the deletion marker ``t`` was written by a commit up to ``commit``."""


def older_than(column: str) -> str:
    """Whether a row ``t`` is from before ``cutoff``."""
    return f"t.{quote(column)} < %(cutoff)s"


def _beyond(key: Sequence[str]) -> str:
    """Whether the key of ``t`` comes after the parameters; the first condition alone is a range of the index."""
    ways = []
    for index, column in enumerate(key):
        same = [f"t.{quote(c)} = %(k{i})s" for i, c in enumerate(key[:index])]
        ways.append(" AND ".join([*same, f"t.{quote(column)} > %(k{index})s"]))
    return f"t.{quote(key[0])} >= %(k0)s AND ({' OR '.join(f'({way})' for way in ways)})"


class MaintenanceStatements(DeleteStatements):
    """The statements of verification and maintenance."""

    __slots__ = ()

    def differing_groups(self, schema: str, name: str, rollup: Rollup, table: Table, limit: int) -> str:
        """The groups in which a rollup (side 1) and its query (side -1) differ, in order of their keys."""
        columns, keys = columns_of([*rollup.by, *rollup.measures, "_rows"]), columns_of(rollup.by)
        kept = f"SELECT {columns}, 1 AS `_side` FROM {in_schema(schema, name)}"
        counted = f"SELECT {columns}, -1 AS `_side` FROM ({self.recompute_rollup(schema, rollup, table)}) AS q"
        return (
            f"SELECT SUM(`_side`) AS `_sides`, {columns} FROM ({kept} UNION ALL {counted}) AS sides"
            f" GROUP BY {columns} HAVING SUM(`_side`) <> 0 ORDER BY {keys} LIMIT {limit}"
        )

    def row_bounds(self, schema: str, name: str) -> str:
        """For each partition the smallest and the greatest offset among the rows of the present generation of the topic
        (commits after ``since_commit``), and the newest commit among all rows."""
        offset = f"CASE WHEN `_commit` > %(since_commit)s AND `_partition` <> {NO_PARTITION} THEN `_offset` END"
        return (
            f"SELECT `_partition`, MIN({offset}), MAX({offset}), MAX(`_commit`) FROM {in_schema(schema, name)}"
            " GROUP BY `_partition` ORDER BY `_partition`"
        )

    def count_expired(self, schema: str, source: str, condition: str) -> str:
        """How many rows ``t`` of a table meet a condition."""
        return f"SELECT COUNT(*) FROM {in_schema(schema, source)} AS t WHERE {condition}"

    def clear_tombstones(self, schema: str, name: str) -> str:
        """Empty the temporary table of keys to be deleted."""
        return self.empty(schema, tombstones(name))

    def insert_tombstone(self, schema: str, name: str, table: Table) -> str:
        """Add one key to those to be deleted; the parameters are the key's columns and ``_offset``, in this order."""
        columns = [*table.key, "_offset"]
        marks = ", ".join(["%s"] * len(columns))
        return f"INSERT INTO {in_schema(schema, tombstones(name))} ({columns_of(columns)}) VALUES ({marks})"

    def stage_expired(self, schema: str, name: str, table: Table, condition: str, *, source: str, first: bool) -> str:
        """Stage the next ``rows`` keys of ``source``, the table or its deletion markers, that meet a condition.

        This locks no rows: the statement that deletes them checks the condition again.
        """
        beyond = "" if first else f" AND {_beyond(table.key)}"
        keys = columns_of(table.key, "t.")
        return (
            f"INSERT INTO {in_schema(schema, tombstones(name))} ({columns_of(table.key)}, `_offset`)"
            f" SELECT {keys}, t.`_offset` FROM {in_schema(schema, source)} AS t"
            f" WHERE {condition}{beyond} ORDER BY {keys} LIMIT %(rows)s"
        )

    def last_tombstone(self, schema: str, name: str, table: Table) -> str:
        """The greatest of the staged keys."""
        backwards = ", ".join(f"{quote(column)} DESC" for column in table.key)
        return f"SELECT {columns_of(table.key)} FROM {in_schema(schema, tombstones(name))} ORDER BY {backwards} LIMIT 1"

    def delete_expired_markers(self, schema: str, name: str, table: Table) -> str:
        """Delete the deletion markers of the staged keys."""
        return (
            f"DELETE t FROM {in_schema(schema, tombstones(name))} AS k"
            f" {self.join} {in_schema(schema, deletion_markers(name))} AS t"
            f" ON {equal(table.key, 't', 'k')} WHERE {MARKER_UNTIL}"
        )

    def scored_versions(self, schema: str, scores: str) -> str:
        """The model versions that a table of scores holds."""
        return f"SELECT DISTINCT `model_version` FROM {in_schema(schema, scores)} ORDER BY `model_version`"

    def count_version(self, schema: str, scores: str) -> str:
        """How many scores of one version, ``%(version)s``, a table of scores holds."""
        return f"SELECT COUNT(*) FROM {in_schema(schema, scores)} WHERE `model_version` = %(version)s"

    def remove_scores(self, schema: str, scores: str, model: Model) -> str:
        """Delete the next ``rows`` scores of one version, in key order."""
        order = columns_of(["model_version", *model.key])
        where = f"WHERE `model_version` = %(version)s ORDER BY {order} LIMIT %(rows)s"
        return f"DELETE FROM {in_schema(schema, scores)} {where}"
