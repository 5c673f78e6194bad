"""The feature query as it would have answered at a cut through time: over tables without the rows known later.

The author's text stays as it is, but for the names of tables: where one stands, a query of the same table takes its
place, without the rows whose time is not before the cut. A rollup is computed anew from such a table. The rows that
the query is about keep their own table, or there would be nothing to compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import sqlglot
from sqlglot import exp

from tidemill.spec.schema import Model, Pipeline
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import quote
from tidemill.store.sql.rollups import Rollups


class AsOf(Rollups):
    """What a feature query must not change by."""

    __slots__ = ()

    def without_later(self, schema: str, sql: str, pipeline: Pipeline, model: Model, cut: datetime) -> str | None:
        """The feature query without what became known at ``cut`` or later.

        Returns:
            None where nothing can be hidden: no table or rollup but the one that the rows come from has a time, or
            the time is no expression over one row of one table.
        """
        tree = sqlglot.parse_one(sql, dialect="mysql")
        assert isinstance(tree, exp.Select)  # spec.features has checked it
        known = next(each for each in tree.expressions if each.alias_or_name == model.known_at).unalias()
        if known.find(exp.AggFunc, exp.Window, exp.Select):
            return None
        owners = {column.table for column in known.find_all(exp.Column)}
        named = {each.alias for each in tree.find_all(exp.CTE)}
        tables = [each for each in tree.find_all(exp.Table) if not each.db and each.name not in named]
        own = [each for each in tables if each.parent_select is tree and {each.alias_or_name} == owners]
        if len(own) != 1:
            return None
        edits = list(self._edits(schema, pipeline, (own[0], known, cut), tables))
        for start, end, text in sorted(edits, reverse=True):
            sql = sql[:start] + text + sql[end:]
        return sql if edits else None

    def _edits(
        self,
        schema: str,
        pipeline: Pipeline,
        rule: tuple[exp.Table, exp.Expression, datetime],
        tables: Iterable[exp.Table],
    ) -> Iterator[tuple[int, int, str]]:
        """Places in the text and what stands there instead."""
        own, known, cut = rule
        for each in tables:
            if each is own or each.args.get("hints") or each.args.get("partition"):
                continue  # a hint would stand behind a query, which takes none
            rollup = pipeline.rollups.get(each.name)
            if each.name == own.name:
                query = f"SELECT * FROM {quote(own.name)} AS t WHERE {_before(known, cut)}"
            elif rollup is not None and rollup.of == own.name:
                query = self.recompute_rollup(schema, rollup, pipeline.tables[own.name], where=_before(known, cut))
            else:
                continue
            place = each.this.meta
            alias = "" if each.alias else f" AS {quote(each.name)}"
            yield place["start"], place["end"] + 1, f"({query}){alias}"

    def compare_hindsight(
        self, sql: str, hidden: str, model: Model, features: Iterable[str], window: tuple[datetime, datetime, int]
    ) -> str:
        """One row: for each feature the number of rows in which it is another value without what came later.

        Args:
            sql: the feature query.
            hidden: the same, from :meth:`without_later`.
            model: key and time.
            features: columns to compare.
            window: rows known from the first to before the second time, the last of them and at most so many.
        """
        start, end, most = window
        time = f"f.{quote(model.known_at)}"
        rows = (
            f"SELECT f.* FROM (\n{sql.strip().removesuffix(';')}\n) AS f WHERE {time} >= '{start}' AND {time} < '{end}'"
            f" ORDER BY {time} DESC LIMIT {int(most)}"
        )
        differing = [f"COALESCE(SUM(NOT (a.{quote(f)} <=> b.{quote(f)})), 0)" for f in features]
        return self.by_key(
            f"SELECT {', '.join(differing)} FROM ({rows}) AS a"
            f" LEFT JOIN (\n{hidden.strip().removesuffix(';')}\n) AS b ON {equal(model.key, 'a', 'b')}"
        )


def _before(known: exp.Expression, cut: datetime) -> str:
    """Of the table ``t``: whether a row was known before the cut, or has no such time at all."""
    time = known.copy()
    for column in list(time.find_all(exp.Column)):
        column.set("table", exp.to_identifier("t"))
    return f"NOT COALESCE({time.sql(dialect='mysql')} >= '{cut}', FALSE)"
