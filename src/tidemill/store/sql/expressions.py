"""Expressions that all four databases evaluate alike: comparisons of keys, what a row adds to a rollup.

For example::

    >>> equal(["shop", "id"], "t", "s")
    't.`shop` = s.`shop` AND t.`id` = s.`id`'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from tidemill.spec.checks.rollups import LONG, cast_type, parse_measure, qualified
from tidemill.spec.schema import Rollup, Table
from tidemill.store.sql.identifiers import quote


def equal(key: Iterable[str], left: str, right: str) -> str:
    """Whether two rows have the same key."""
    return " AND ".join(f"{left}.{quote(column)} = {right}.{quote(column)}" for column in key)


def after(key: Sequence[str], left: str, right: str, *, or_equal: bool = False) -> str:
    """Whether the key of ``left`` comes after that of ``right``, column by column as an index is searched."""
    ways = []
    for index, column in enumerate(key):
        same = [f"{left}.{quote(c)} = {right}.{quote(c)}" for c in key[:index]]
        ways.append(" AND ".join([*same, f"{left}.{quote(column)} > {right}.{quote(column)}"]))
    if or_equal:
        ways.append(equal(key, left, right))
    return "(" + " OR ".join(f"({way})" for way in ways) + ")"


def up_to(key: Sequence[str]) -> str:
    """Whether the key of ``t`` does not come after the parameters ``k0``, ``k1``, …

    The last condition alone is a range of the primary key; the others are exact.
    """
    ways = []
    for index, column in enumerate(key):
        same = [f"t.{quote(c)} = %(k{i})s" for i, c in enumerate(key[:index])]
        ways.append(" AND ".join([*same, f"t.{quote(column)} < %(k{index})s"]))
    ways.append(" AND ".join(f"t.{quote(c)} = %(k{i})s" for i, c in enumerate(key)))
    return "(" + " OR ".join(f"({way})" for way in ways) + f") AND t.{quote(key[0])} <= %(k0)s"


def summands(rollup: Rollup, table: Table, alias: str, sign: str = "") -> str:
    """The group keys of one row and what it adds to each measure. A NULL summand adds nothing: SUM ignores it."""
    by = tuple((name, key.expr, key.type) for name, key in rollup.by.items())
    return _summands(by, tuple(rollup.measures.items()), tuple(table.columns.items()), alias, sign)


@lru_cache(maxsize=1024)  # called in every commit, and parsing SQL in Python is slow
def _summands(
    by: tuple[tuple[str, str, str], ...],
    measures: tuple[tuple[str, str], ...],
    columns: tuple[tuple[str, str], ...],
    alias: str,
    sign: str,
) -> str:
    keys = [f"CAST({qualified(expr, alias)} AS {cast_type(kind)}) AS {quote(name)}" for name, expr, kind in by]
    parts = []
    for name, expression in measures:
        measure = parse_measure(name, expression, dict(columns))
        value = "1" if measure.summand is None else f"COALESCE({qualified(measure.summand, alias)}, 0)"
        if measure.type == LONG:
            # The opposite of a BIGINT need not be one.
            value = f"CAST({value} AS {LONG})"
        parts.append(f"{sign}{value} AS {quote(name)}")
    return ", ".join([*keys, *parts, f"{sign}1 AS `_rows`"])


def bound(text: str) -> str:
    """Text for a statement that binds parameters: a literal % (as in DATE_FORMAT) is doubled."""
    return text.replace("%", "%%")
