"""What verification and maintenance ask of a database: the groups that differ, rows and scores that leave by their age.

``k0``, ``k1``, … are the key that a walk in key order has reached.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.spec.schema import Model, Rollup, Table
from tidemill.store.sql.deletes import Removal
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import NO_PARTITION, columns_of, deleted, in_schema, quote, tombstones

MARKED_UNTIL = "t.`_commit` <= %(commit)s"
"""Whether the deletion marker ``t`` is of an old commit."""


def older_than(column: str) -> str:
    """Whether a row ``t`` is from before ``cutoff``."""
    return f"t.{quote(column)} < %(cutoff)s"


def _beyond(key: Sequence[str]) -> str:
    """Whether the key of ``t`` comes after the parameters; the first condition alone is a range of the index."""
    ways = []
    for place, column in enumerate(key):
        same = [f"t.{quote(c)} = %(k{i})s" for i, c in enumerate(key[:place])]
        ways.append(" AND ".join([*same, f"t.{quote(column)} > %(k{place})s"]))
    return f"t.{quote(key[0])} >= %(k0)s AND ({' OR '.join(f'({way})' for way in ways)})"


class Upkeep(Removal):
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
        """For each partition the smallest and greatest offset among the rows of this incarnation of the topic, those
        of commits after ``since_commit``, and the newest commit of all its rows."""
        offset = f"CASE WHEN `_commit` > %(since_commit)s AND `_partition` <> {NO_PARTITION} THEN `_offset` END"
        return (
            f"SELECT `_partition`, MIN({offset}), MAX({offset}), MAX(`_commit`) FROM {in_schema(schema, name)}"
            " GROUP BY `_partition` ORDER BY `_partition`"
        )

    def count_old(self, schema: str, source: str, condition: str) -> str:
        """How many rows of a table meet a condition over ``t``."""
        return f"SELECT COUNT(*) FROM {in_schema(schema, source)} AS t WHERE {condition}"

    def empty_gone(self, schema: str, name: str) -> str:
        """Empty the table of keys that are to leave."""
        return self.empty(schema, tombstones(name))

    def put_gone(self, schema: str, name: str, table: Table) -> str:
        """Add one key and its ``_offset``, bound in this order, to those that are to leave."""
        columns = [*table.key, "_offset"]
        marks = ", ".join(["%s"] * len(columns))
        return f"INSERT INTO {in_schema(schema, tombstones(name))} ({columns_of(columns)}) VALUES ({marks})"

    def stage_old(self, schema: str, name: str, table: Table, condition: str, *, source: str, first: bool) -> str:
        """Put the next ``rows`` keys of ``source``, the table or its deletion markers, that meet a condition among
        those that are to leave.

        Rows are not locked for it: whether they still meet the condition is asked again when they are removed.
        """
        beyond = "" if first else f" AND {_beyond(table.key)}"
        keys = columns_of(table.key, "t.")
        return (
            f"INSERT INTO {in_schema(schema, tombstones(name))} ({columns_of(table.key)}, `_offset`)"
            f" SELECT {keys}, t.`_offset` FROM {in_schema(schema, source)} AS t"
            f" WHERE {condition}{beyond} ORDER BY {keys} LIMIT %(rows)s"
        )

    def last_gone(self, schema: str, name: str, table: Table) -> str:
        """The greatest key among those that are to leave."""
        backwards = ", ".join(f"{quote(column)} DESC" for column in table.key)
        return f"SELECT {columns_of(table.key)} FROM {in_schema(schema, tombstones(name))} ORDER BY {backwards} LIMIT 1"

    def remove_markers(self, schema: str, name: str, table: Table) -> str:
        """Delete the deletion markers that are to leave."""
        return (
            f"DELETE t FROM {in_schema(schema, tombstones(name))} AS g"
            f" {self.join} {in_schema(schema, deleted(name))} AS t"
            f" ON {equal(table.key, 't', 'g')} WHERE {MARKED_UNTIL}"
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
