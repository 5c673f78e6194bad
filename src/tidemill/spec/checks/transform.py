"""Checks a transform, one row-wise SELECT, and adds columns to its text so that the stream counts every record.

Spark runs the author's own text; it is cut at ``FROM`` and ``WHERE`` and put together again, with what is added. So
``WHERE`` becomes a column: a record that the author filters out still reaches the writer. So the ledger knows for each
commit how many records were filtered, and a partition whose every record is filtered still moves its offset.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

from tidemill.errors import SpecError
from tidemill.spec.checks.functions import check_functions
from tidemill.spec.checks.parsing import outside_parentheses, parse_select, tokens_of

RECORDS = "records"
"""Name of the decoded records in a transform."""
RECORD = "_record"
"""The whole record as one column, for the transforms of the other tables that read the same record."""
KEPT = "_kept"
"""Whether the author's WHERE holds."""

_ALLOWED_CLAUSES = frozenset({"expressions", "from_", "joins", "where"})
_NO_SHUFFLE = "remove it: the stream processes each record alone, without shuffle, sort, sample or limit"
_CLAUSES = {
    "group": ("GROUP BY", "declare aggregates as rollups in pipeline.yaml"),
    "having": ("HAVING", "declare aggregates as rollups in pipeline.yaml"),
    "distinct": ("DISTINCT", "remove it: the table's key removes duplicates"),
    "order": ("ORDER BY", "remove it: a table has no order"),
    "limit": ("LIMIT", "remove it: a stream has no end"),
    "with_": ("WITH", "write its expressions into the SELECT"),
    "laterals": ("LATERAL VIEW", "let each record make one row: split records before they are sent to Kafka"),
}
"""Clause of the syntax tree -> its SQL, and what to do instead."""
_NOT_ROW_WISE: tuple[tuple[type[exp.Expr], str], ...] = (
    (exp.AggFunc, "declare aggregates as rollups, which stay exact when records are late or change"),
    (exp.Window, "compute it in features.sql: a stream has no complete window"),
    (exp.Subquery, "join a dimension instead"),
    (exp.Explode, "let each record make one row: split records before they are sent to Kafka"),
)
_GENERATORS = frozenset(
    {"explode", "explode_outer", "posexplode", "posexplode_outer", "inline", "inline_outer", "stack"}
)


@dataclass(frozen=True)
class Transform:
    """A checked transform."""

    sql: str
    """Spark SQL over ``records`` and the dimensions: the author's columns, ``_kept`` and ``_record``."""
    columns: tuple[str, ...]
    """The author's columns, in the order of the SELECT."""


def parse_transform(sql: str, file: str, dimensions: tuple[str, ...]) -> Transform:
    """Check a transform and add the columns ``_kept`` and ``_record``.

    Args:
        sql: the author's text.
        file: the name of its file, for messages.
        dimensions: names that it may join.

    Raises:
        SpecError: it is not one row-wise SELECT; the remedy names the alternative.
    """
    select = parse_select(file, sql, "spark")
    _check_clauses(select, file)
    _check_row_wise(select, file)
    _check_tables(select, file, dimensions)
    columns = _columns(select, file)
    check_functions(file, sql, "spark")
    return Transform(_with_counted_records(sql, file, select), columns)


def _check_clauses(select: exp.Select, file: str) -> None:
    for key, (clause, alternative) in _CLAUSES.items():
        if select.args.get(key):
            raise _clause_error(file, clause, select.args[key], alternative)
    for key, value in select.args.items():
        if value and key not in _ALLOWED_CLAUSES:
            raise _clause_error(file, key.removesuffix("_").upper(), value, _NO_SHUFFLE)
    for kind, clause in ((exp.TableSample, "TABLESAMPLE"), (exp.Pivot, "PIVOT"), (exp.QueryTransform, "TRANSFORM")):
        found = select.find(kind)
        if found is not None:
            raise _clause_error(file, clause, found, _NO_SHUFFLE)


def _clause_error(file: str, clause: str, value: object, alternative: str) -> SpecError:
    return SpecError(
        "TM-SPEC-TRANSFORM-CLAUSE", value=_excerpt(value), file=file, clause=clause, alternative=alternative
    )


def _check_row_wise(select: exp.Select, file: str) -> None:
    kinds = [(select.find(kind), alternative) for kind, alternative in _NOT_ROW_WISE]
    generators = [each for each in select.find_all(exp.Func) if each.sql_name().lower() in _GENERATORS]
    kinds += [(each, _NOT_ROW_WISE[-1][1]) for each in generators]
    for node, alternative in kinds:
        if node is not None:
            raise SpecError("TM-SPEC-TRANSFORM-NOT-ROW-WISE", value=_excerpt(node), file=file, alternative=alternative)


def _columns(select: exp.Select, file: str) -> tuple[str, ...]:
    for projection in select.expressions:
        if projection.find(exp.Star):
            raise SpecError("TM-SPEC-TRANSFORM-STAR", value=_excerpt(projection), file=file)
        if not projection.alias_or_name:
            raise SpecError("TM-SPEC-TRANSFORM-COLUMN-UNNAMED", value=_excerpt(projection), file=file)
    return tuple(projection.alias_or_name for projection in select.expressions)


def _check_tables(select: exp.Select, file: str, dimensions: tuple[str, ...]) -> None:
    source = select.args.get("from_")
    if source is None or source.this.name != RECORDS or not _is_plain(source.this):
        raise SpecError(
            "TM-SPEC-TRANSFORM-SOURCE", value=_excerpt(select if source is None else source), file=file, records=RECORDS
        )
    for join in select.args.get("joins") or ():
        if join.side != "LEFT" or join.kind in ("SEMI", "ANTI"):
            raise SpecError("TM-SPEC-TRANSFORM-JOIN", value=_excerpt(join), file=file)
        if join.this.name not in dimensions:
            known = ", ".join(dimensions) or "none is declared"
            raise SpecError("TM-SPEC-TRANSFORM-NO-DIMENSION", value=join.this.name, file=file, known=known)


def _is_plain(table: exp.Expr) -> bool:
    """Whether it is a name with or without an alias; an alias that names columns would rename the record's fields."""
    alias = table.args.get("alias")
    given = {key for key, value in table.args.items() if value}
    return isinstance(table, exp.Table) and given <= {"this", "alias"} and not (alias and alias.args.get("columns"))


def _with_counted_records(sql: str, file: str, select: exp.Select) -> str:
    tokens = tokens_of(file, sql, "spark")
    start, source, where, end = _clauses(sql, file, select, tokens)
    columns, kept = sql[start.end + 1 : source.start], "true"
    if where is not None:
        kept = f"COALESCE((\n{sql[where.end + 1 : end]}\n), false)"
    read = sql[source.end + 1 : where.start if where else end]
    records = select.args["from_"].this
    name = records.args["alias"].this if records.args.get("alias") else records.this
    alias = "`" + str(name.this).replace("`", "``") + "`"
    # The author's text may end in a comment that lasts until the end of its line.
    return f"SELECT{columns}\n, {kept} AS {KEPT}, struct({alias}.*) AS {RECORD}\nFROM{read}\n"


def _clauses(sql: str, file: str, select: exp.Select, tokens: list[Token]) -> tuple[Token, Token, Token | None, int]:
    """The keywords SELECT, FROM and WHERE of the text, and the end of its last clause.

    Raises:
        SpecError: the tokens do not show the clauses of the syntax tree.
    """
    top = list(outside_parentheses(tokens))
    # FROM is the last word before the name of the records; IS DISTINCT FROM has the same word.
    name_start = int(select.args["from_"].this.this.meta["start"])
    before = [token for _, token in top if token.start < name_start]
    wheres = [token for _, token in top if token.token_type is TokenType.WHERE]
    ends = [token.start for token in tokens if token.token_type is TokenType.SEMICOLON]
    condition = select.args.get("where")
    in_order = [token for token in wheres if token.start > name_start]
    if (
        not before
        or any(token.token_type is TokenType.PIPE_GT for token in tokens)
        or (before[0].token_type, before[-1].token_type) != (TokenType.SELECT, TokenType.FROM)
        or len(wheres) != bool(condition)
        or in_order != wheres
    ):
        raise SpecError("TM-SPEC-TRANSFORM-CLAUSES-UNCLEAR", value=sql.strip()[:120], file=file, records=RECORDS)
    return before[0], before[-1], wheres[0] if wheres else None, ends[0] if ends else len(sql)


def _excerpt(node: object) -> str:
    first = node[0] if isinstance(node, list) else node
    return first.sql(dialect="spark")[:120] if isinstance(first, exp.Expression) else str(first)
