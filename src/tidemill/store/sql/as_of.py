"""The feature query as of an earlier time: over tables without the rows that became known later.

The author's text stays as it is except for the names of tables: each is replaced by a query of the same table without
the rows whose time is not before the cut. A rollup is recomputed from such a table. The rows that the query is about
keep their own table, or there would be nothing to compare. For example, ``WHERE o.id IN (SELECT id FROM orders)``
becomes::

    WHERE o.id IN (SELECT id
        FROM (SELECT *
          FROM `orders` AS t
          WHERE NOT COALESCE(t.changed_at >= '2026-01-02 03:04:05', FALSE)) AS `orders`);
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tidemill.spec.schema import Model, Pipeline
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import quote
from tidemill.store.sql.rollups import RollupStatements


class AsOfStatements(RollupStatements):
    """The statements that detect a look-ahead: features whose values depend on rows that became known later."""

    __slots__ = ()

    def without_later(self, schema: str, pipeline: Pipeline, model: Model, cut: datetime) -> str | None:
        """The feature query without what became known at ``cut`` or later.

        Returns:
            None if nothing can be hidden: no table or rollup other than the source of the rows has a time, or the
            time is not an expression over one row of one table.
        """
        query = model.query
        row_source = next((each.name for each in query.tables if each.is_row_source), None)
        if row_source is None:
            return None
        sql, before = query.sql, f"NOT COALESCE({query.row_time} >= '{cut}', FALSE)"
        edits = 0
        for each in reversed(query.tables):
            if each.is_row_source or each.schema_name or each.has_hint or each.has_partition:
                continue  # a hint cannot follow the query that would replace the name
            rollup = pipeline.rollups.get(each.name)
            if each.name == row_source:
                earlier = f"SELECT * FROM {quote(row_source)} AS t WHERE {before}"
            elif rollup is not None and rollup.of == row_source:
                earlier = self.recompute_rollup(schema, rollup, pipeline.tables[row_source], where=before)
            else:
                continue
            alias = "" if each.has_alias else f" AS {quote(each.name)}"
            sql = f"{sql[: each.start]}({earlier}){alias}{sql[each.end :]}"
            edits += 1
        return sql if edits else None

    def compare_look_ahead(
        self, hidden: str, model: Model, features: Iterable[str], window: tuple[datetime, datetime, int]
    ) -> str:
        """One row: for each feature the number of rows in which its value differs without what became known later.

        Args:
            hidden: the feature query, from :meth:`without_later`.
            model: key and time.
            features: columns to compare.
            window: rows known from the first time until before the second; of these the newest, at most so many.
        """
        start, end, most = window
        time = f"f.{quote(model.known_at)}"
        rows = (
            f"SELECT f.* FROM (\n{model.query.sql}\n) AS f WHERE {time} >= '{start}' AND {time} < '{end}'"
            f" ORDER BY {time} DESC LIMIT {int(most)}"
        )
        differing = [f"COALESCE(SUM(NOT (a.{quote(f)} <=> b.{quote(f)})), 0)" for f in features]
        return self.by_key(
            f"SELECT {', '.join(differing)} FROM ({rows}) AS a"
            f" LEFT JOIN (\n{hidden}\n) AS b ON {equal(model.key, 'a', 'b')}"
        )
