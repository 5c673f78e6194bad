"""Rollups: updated by differences, backfilled step by step, and compared with the query that they always equal.

A commit gathers its differences in a temporary table, one row for each group, adds them to the rollup in order of
group, and deletes the groups that are left without rows. For example, a batch of new rows::

    INSERT INTO `data`.`_delta_clicks_by_page` (`_group`, `page`, `clicks`, `_rows`)
    SELECT UNHEX(SHA2(CONCAT_WS(',', QUOTE(`page`)), 256)), `page`, SUM(`clicks`), SUM(`_rows`)
    FROM (SELECT CAST(LEFT(`s`.`page`, 20) AS CHAR(20)) AS `page`, 1 AS `clicks`, 1 AS `_rows`
        FROM `data`.`_stage_clicks` AS s) AS d
    GROUP BY `page`;
"""

from __future__ import annotations

from tidemill.spec.schema import Rollup, Table
from tidemill.store.sql.expressions import after, bound, equal, summands, up_to
from tidemill.store.sql.identifiers import columns_of, delta, in_schema, locked_keys, quote, rollup_cursor, stage
from tidemill.store.sql.merge import MergeStatements, newer
from tidemill.store.sql.tables import TableStatements


class RollupStatements(MergeStatements, TableStatements):
    """The statements of one rollup."""

    __slots__ = ()

    def create_delta(self, schema: str, name: str, rollup: Rollup, table: Table) -> tuple[str, ...]:
        """A temporary table for the differences of one rollup."""
        body = ", ".join([*self.rollup_columns(rollup, table), "PRIMARY KEY (`_group`)"])
        return self.create_temporary(in_schema(schema, delta(name)), f"({body}){self.table_options()}")

    def move_rollup(
        self, schema: str, name: str, rollup: Rollup, table: Table, *, all_new: bool, complete: bool = True
    ) -> tuple[str, ...]:
        """The statements that update one rollup: gather the differences, add them, delete the groups left empty.

        If every staged row is a new one, there is nothing old to subtract and no row of the table to read. A rollup
        that is not ``complete`` yet counts only the rows up to its cursor.
        """
        new, old = bound(summands(rollup, table, "s")), bound(summands(rollup, table, "t", "-"))
        counted = "" if complete else _up_to_cursor(schema, name, table, "s")
        if all_new:
            rows = f"SELECT {new} FROM {in_schema(schema, stage(rollup.of))} AS s{counted}"
            return (*self.gather_differences(schema, name, rollup, (rows,)), self.add_differences(schema, name, rollup))
        joined = self.staged_join(schema, rollup.of, table) + counted
        changes = (
            f"SELECT {new} FROM {joined} WHERE t.`_commit` = %(commit)s OR {newer(table)}",
            f"SELECT {old} FROM {joined} WHERE t.`_commit` <> %(commit)s AND {newer(table)}",
        )
        return self._moved(schema, name, rollup, changes)

    def probe_rollup(self, schema: str, name: str, rollup: Rollup, table: Table) -> tuple[str, ...]:
        """The statements that compute what the staged rows from offset ``first`` to ``last`` would add to one rollup if
        they were written: they fail, as :meth:`move_rollup` does, if the rollup cannot count one of these rows."""
        target = f"{in_schema(schema, rollup.of)} AS t ON {equal(table.key, 't', 's')}"
        rows = (
            f"SELECT {bound(summands(rollup, table, 's'))} FROM {in_schema(schema, stage(rollup.of))} AS s"
            f" LEFT JOIN {target} WHERE s.`_offset` BETWEEN %(first)s AND %(last)s"
            f" AND (t.`_commit` IS NULL OR {newer(table)})"
        )
        return (self.empty(schema, delta(name)), *self.gather_differences(schema, name, rollup, (rows,)))

    def remove_from_rollup(
        self, schema: str, name: str, rollup: Rollup, table: Table, *, complete: bool = True
    ) -> tuple[str, ...]:
        """The statements that subtract the locked rows from one rollup, and empty its differences again.

        They bind no parameters.
        """
        joined = self.rows_by_key(schema, rollup.of, table, locked_keys(rollup.of))
        joined += "" if complete else _up_to_cursor(schema, name, table, "t")
        changes = f"SELECT {summands(rollup, table, 't', '-')} FROM {joined}"
        return (*self._moved(schema, name, rollup, (changes,)), self.empty(schema, delta(name)))

    def next_cursor(self, schema: str, name: str, rollup: Rollup, table: Table, *, first: bool) -> str:
        """The key up to which the next step of the backfill counts: a row of key values, or none at the end."""
        begin = "" if first else f" WHERE {_beyond(schema, name, table)}"
        keys = f"SELECT {columns_of(table.key, 't.')} FROM {in_schema(schema, rollup.of)} AS t{begin}"
        inner = f"{keys} ORDER BY {columns_of(table.key, 't.')} LIMIT %(rows)s"
        backwards = ", ".join(f"{quote(column)} DESC" for column in table.key)
        return f"SELECT {columns_of(table.key)} FROM ({inner}) AS c ORDER BY {backwards} LIMIT 1"

    def backfill_rollup(self, schema: str, name: str, rollup: Rollup, table: Table, *, first: bool) -> tuple[str, ...]:
        """The statements of one step: count the rows beyond the cursor up to the key ``k0``, ``k1``, …"""
        where = up_to(table.key) if first else f"{_beyond(schema, name, table)} AND {up_to(table.key)}"
        rows = f"SELECT {bound(summands(rollup, table, 't'))} FROM {in_schema(schema, rollup.of)} AS t WHERE {where}"
        cursor = in_schema(schema, rollup_cursor(name))
        marks = ", ".join(f"%(k{i})s" for i in range(len(table.key)))
        return (
            *self.gather_differences(schema, name, rollup, (rows,)),
            self.add_differences(schema, name, rollup),
            self.empty(schema, rollup_cursor(name)),
            f"INSERT INTO {cursor} ({columns_of(table.key)}) VALUES ({marks})",
        )

    def recompute_rollup(self, schema: str, rollup: Rollup, table: Table, *, where: str = "") -> str:
        """The query that a rollup always equals: keys, measures, ``_rows``; optionally only of the rows ``t`` for which
        ``where`` is true."""
        keys = columns_of(rollup.by)
        sums = ", ".join(f"SUM({quote(measure)}) AS {quote(measure)}" for measure in [*rollup.measures, "_rows"])
        source = f"{in_schema(schema, rollup.of)} AS t" + (f" WHERE {where}" if where else "")
        return f"SELECT {keys}, {sums} FROM (SELECT {summands(rollup, table, 't')} FROM {source}) AS d GROUP BY {keys}"

    def compare_rollup(self, schema: str, name: str, rollup: Rollup, table: Table) -> str:
        """How many groups differ between a rollup and its query; a group with other numbers counts on both sides."""
        columns = columns_of([*rollup.by, *rollup.measures, "_rows"])
        kept = f"SELECT {columns}, 1 AS side FROM {in_schema(schema, name)}"
        query = f"SELECT {columns}, -1 AS side FROM ({self.recompute_rollup(schema, rollup, table)}) AS q"
        differing = f"SELECT 1 FROM ({kept} UNION ALL {query}) AS sides GROUP BY {columns} HAVING SUM(side) <> 0"
        return f"SELECT COUNT(*) FROM ({differing}) AS difference"

    def gather_differences(self, schema: str, name: str, rollup: Rollup, changes: tuple[str, ...]) -> tuple[str, ...]:
        """The statements that gather the differences of one or two queries, one row for each group."""
        into = f"INSERT INTO {in_schema(schema, delta(name))} ({columns_of(self.delta_columns(rollup))})"
        return (f"{into} {self.sum_by_group(rollup, ' UNION ALL '.join(changes))}",)

    def delta_columns(self, rollup: Rollup) -> list[str]:
        """The columns of a rollup's differences, in the order of :meth:`sum_by_group`."""
        return ["_group", *rollup.by, *rollup.measures, "_rows"]

    def sum_by_group(self, rollup: Rollup, changes: str) -> str:
        """A query's rows added up by group."""
        keys = columns_of(rollup.by)
        group = "UNHEX(SHA2(CONCAT_WS(',', " + ", ".join(f"QUOTE({quote(key)})" for key in rollup.by) + "), 256))"
        sums = ", ".join(f"SUM({quote(measure)})" for measure in [*rollup.measures, "_rows"])
        return f"SELECT {group}, {keys}, {sums} FROM ({changes}) AS d GROUP BY {keys}"

    def add_differences(self, schema: str, name: str, rollup: Rollup) -> str:
        """Add the differences to the rollup, in order of group: all commits lock its rows in the same order."""
        measures = [*rollup.measures, "_rows"]
        changes = ", ".join(
            f"{self.target_column(schema, name, m)} = {self.target_column(schema, name, m)} + {self.inserted_value(m)}"
            for m in measures
        )
        query = f"SELECT * FROM {in_schema(schema, delta(name))}"
        return self.upsert(in_schema(schema, name), (), query, changes, order="`_group`")

    def rows_by_key(self, schema: str, name: str, table: Table, keys: str) -> str:
        """The rows ``t`` of a table whose keys ``k`` are in a temporary table."""
        target = f"{in_schema(schema, name)} AS t ON {equal(table.key, 't', 'k')}"
        return f"{in_schema(schema, keys)} AS k {self.join} {target}"

    def _moved(self, schema: str, name: str, rollup: Rollup, changes: tuple[str, ...]) -> tuple[str, ...]:
        drop = (
            f"DELETE r FROM {in_schema(schema, delta(name))} AS d {self.join} {in_schema(schema, name)} AS r"
            " ON r.`_group` = d.`_group` WHERE r.`_rows` = 0"
        )
        return (
            *self.gather_differences(schema, name, rollup, changes),
            self.add_differences(schema, name, rollup),
            drop,
        )


def _up_to_cursor(schema: str, name: str, table: Table, alias: str) -> str:
    """A join that selects the rows that an incomplete rollup counts: those up to its cursor."""
    return f" JOIN {in_schema(schema, rollup_cursor(name))} AS b ON {after(table.key, 'b', alias, or_equal=True)}"


def _beyond(schema: str, name: str, table: Table) -> str:
    cursor = in_schema(schema, rollup_cursor(name))
    first = quote(table.key[0])
    # The first condition alone is a range of the primary key; the second is exact.
    exact = f"EXISTS (SELECT 1 FROM {cursor} AS b WHERE {after(table.key, 't', 'b')})"
    return f"t.{first} >= (SELECT {first} FROM {cursor}) AND {exact}"
