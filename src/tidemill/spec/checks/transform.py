"""The transform: one row-wise SELECT, taken apart so that no record leaves the stream uncounted.

``WHERE`` becomes a column: a record that the author filters out still reaches the writer, which counts it. That is
how the ledger can say for each commit how many records were filtered, and how a partition whose every record is
filtered still moves its offset.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tidemill.errors import SpecError

RECORDS = "records"
"""Name of the decoded records in a transform."""
RECORD = "_record"
"""The whole record as one column: how it travels past a transform, to the next table's."""
KEPT = "_kept"
"""Whether the author's WHERE holds."""

_REFUSED: tuple[tuple[type[exp.Expr], str], ...] = (
    (exp.AggFunc, "aggregates belong into rollups, which stay right under late and changed records"),
    (exp.Window, "a stream has no whole to look over; compute it in features.sql"),
    (exp.Subquery, "join a dimension instead"),
    (exp.Explode, "one record makes one row; split records before Kafka"),
)
_KEPT_CLAUSES = frozenset({"expressions", "from", "from_", "joins", "where"})
_GENERATORS = frozenset(
    {"explode", "explode_outer", "posexplode", "posexplode_outer", "inline", "inline_outer", "stack"}
)
_CLAUSES = {
    "group": "aggregates belong into rollups",
    "having": "aggregates belong into rollups",
    "distinct": "the table's key settles duplicates",
    "order": "a table has no order",
    "limit": "a stream has no end",
    "with": "write the expressions out",
    "laterals": "one record makes one row",
}


@dataclass(frozen=True)
class Transform:
    """A checked transform."""

    sql: str
    """Spark SQL over ``records`` and the dimensions: the author's columns, ``_kept`` and ``_record``."""
    columns: tuple[str, ...]
    """The author's columns, in his order."""


def parse_transform(sql: str, file: str, dimensions: tuple[str, ...]) -> Transform:
    """Check a transform and make it count.

    Raises:
        SpecError: it is not one row-wise SELECT; the sentence names the alternative.
    """
    select = _parse(sql, file)
    for clause, remedy in _CLAUSES.items():
        if select.args.get(clause):
            raise SpecError(f"{file} may not use {clause.upper()}", value=_show(select.args[clause]), remedy=remedy)
    other = [clause for clause, value in select.args.items() if value and clause not in _KEPT_CLAUSES]
    if other or select.find(exp.TableSample):
        raise SpecError(
            f"{file} may not use {(other or ['sample'])[0].upper()}",
            value=_show(select.args[other[0]]) if other else _show(select),
            remedy="a stream is not shuffled, sorted, sampled or cut: each record goes its own way",
        )
    generators = [found for found in select.find_all(exp.Func) if found.sql_name().lower() in _GENERATORS]
    if generators:
        raise SpecError(f"{file} is not row-wise", value=_show(generators[0]), remedy="one record makes one row")
    for kind, remedy in _REFUSED:
        found = select.find(kind)
        if found is not None:
            raise SpecError(f"{file} is not row-wise", value=_show(found), remedy=remedy)
    _check_tables(select, file, dimensions)
    columns = []
    for projection in select.expressions:
        if isinstance(projection, exp.Star) or projection.find(exp.Star):
            raise SpecError(
                f"{file} selects *",
                value=_show(projection),
                remedy="name the columns, so that a new field changes nothing",
            )
        if not projection.alias_or_name:
            raise SpecError(
                f"{file} selects an expression without a name",
                value=_show(projection),
                remedy="add AS <column>",
            )
        columns.append(projection.alias_or_name)
    return Transform(_countable(select), tuple(columns))


def _parse(sql: str, file: str) -> exp.Select:
    try:
        statements = [found for found in sqlglot.parse(sql, dialect="spark") if found is not None]
    except SqlglotError as error:
        raise SpecError(
            f"{file} cannot be parsed", value=" ".join(str(error).split())[:300], remedy="mend it"
        ) from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Select):
        raise SpecError(
            f"{file} is not one SELECT",
            value=f"{len(statements)} statements",
            remedy="write one SELECT … FROM records",
        )
    return statements[0]


def _check_tables(select: exp.Select, file: str, dimensions: tuple[str, ...]) -> None:
    source = select.find(exp.From)
    if source is None or not isinstance(source.this, exp.Table) or source.this.name != RECORDS:
        raise SpecError(
            f"{file} does not read FROM {RECORDS}",
            value=_show(source) if source else "no FROM",
            remedy=f"write FROM {RECORDS}",
        )
    for join in select.args.get("joins") or ():
        if join.side != "LEFT" or join.kind in ("SEMI", "ANTI"):
            raise SpecError(
                f"{file} may lose or multiply records",
                value=_show(join),
                remedy="use LEFT JOIN; to drop records say so in WHERE",
            )
        if join.this.name not in dimensions:
            known = ", ".join(dimensions) or "none is declared"
            raise SpecError(f"{file} joins what is no dimension", value=join.this.name, remedy=f"dimensions: {known}")


def _countable(select: exp.Select) -> str:
    countable = select.copy()
    where = countable.args.get("where")
    source = countable.find(exp.From)
    assert source is not None  # _check_tables saw it
    kept: exp.Expr = exp.true() if where is None else exp.func("COALESCE", where.this.copy(), exp.false())
    countable.set("where", None)
    records = source.this.alias_or_name
    whole = exp.func("STRUCT", exp.Column(this=exp.Star(), table=exp.to_identifier(records)))
    return countable.select(exp.alias_(kept, KEPT), exp.alias_(whole, RECORD)).sql(dialect="spark")


def _show(node: object) -> str:
    first = node[0] if isinstance(node, list) else node
    return first.sql(dialect="spark")[:120] if isinstance(first, exp.Expression) else str(first)
