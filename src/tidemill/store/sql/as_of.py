"""The feature query as it would have answered at a cut through time: over tables without the rows known later.

The author's text stays as it is, but for the names of tables: where one stands, a query of the same table takes its
place, without the rows whose time is not before the cut. A rollup is computed anew from such a table. The rows that
the query is about keep their own table, or there would be nothing to compare.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tidemill.spec.schema import Model, Pipeline
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import quote
from tidemill.store.sql.rollups import Rollups


class AsOf(Rollups):
    """What a feature query must not change by."""

    __slots__ = ()

    def without_later(self, schema: str, pipeline: Pipeline, model: Model, cut: datetime) -> str | None:
        """The feature query without what became known at ``cut`` or later.

        Returns:
            None where nothing can be hidden: no table or rollup but the one that the rows come from has a time, or
            the time is no expression over one row of one table.
        """
        query = model.query
        row_source = next((each.name for each in query.tables if each.is_row_source), None)
        if row_source is None:
            return None
        sql, before = query.sql, f"NOT COALESCE({query.row_time} >= '{cut}', FALSE)"
        edits = 0
        for each in reversed(query.tables):
            if each.is_row_source or each.schema_name or each.has_hint or each.has_partition:
                continue  # no hint may follow the query that would replace the name
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
        """One row: for each feature the number of rows in which it is another value without what came later.

        Args:
            hidden: the feature query, from :meth:`without_later`.
            model: key and time.
            features: columns to compare.
            window: rows known from the first to before the second time, the last of them and at most so many.
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
