"""Measures and keys of a rollup: what can be moved by differences, and exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tidemill.errors import SpecError

_APPROXIMATE = ("DOUBLE", "FLOAT", "REAL")
_INTEGERS = {"TINYINT": 3, "BOOL": 3, "BOOLEAN": 3, "YEAR": 4, "SMALLINT": 5, "MEDIUMINT": 8, "INT": 10, "INTEGER": 10}
_INTEGERS |= {"BIGINT": 20}
"""Digits of the largest value."""
_DECIMALS = ("DECIMAL", "NUMERIC", "DEC", "FIXED")
LONG = "DECIMAL(38,0)"
"""Holds any sum of BIGINTs."""
_DIGITS, _SCALE = 65, 30
"""What a DECIMAL has at most in every database."""
_ROWS_DIGITS = 10
"""A sum has this many digits more than a summand: of ten thousand million rows."""


@dataclass(frozen=True)
class Measure:
    """One measure of a rollup."""

    summand: str | None
    """MySQL expression over the table's columns whose sum it is; None for ``count(*)``."""
    type: str
    """Column type in the rollup table."""


def parse_measure(place: str, expression: str, columns: dict[str, str]) -> Measure:
    """Check one measure against its table's columns.

    Raises:
        SpecError: it cannot be moved by differences exactly.
    """
    try:
        parsed = sqlglot.parse_one(expression, dialect="mysql")
    except SqlglotError as error:
        raise SpecError(
            f"{place} cannot be parsed",
            value=" ".join(str(error).split())[:200],
            remedy="write count(*) or sum(…)",
        ) from None
    if isinstance(parsed, exp.Count) and isinstance(parsed.this, exp.Star):
        return Measure(None, "BIGINT")
    if not isinstance(parsed, exp.Sum) or parsed.find(exp.Distinct):
        raise SpecError(
            f"{place} cannot be moved by differences",
            value=expression,
            remedy=f"use count(*) or sum(…); for this one query the table: SELECT {expression} FROM …",
        )
    used = [column.name for column in parsed.find_all(exp.Column)]
    unknown = [name for name in used if name not in columns]
    if unknown:
        raise SpecError(
            f"{place} reads a column the table has not",
            value=unknown[0],
            remedy=f"columns: {', '.join(columns)}",
        )
    _check_whole(place, expression, parsed.this)
    return Measure(parsed.this.sql(dialect="mysql"), _Summand(place, expression, columns).type_of_sum(parsed.this))


@dataclass(frozen=True)
class _Number:
    """How large the values of an expression can be."""

    digits: int
    """Before the point."""
    scale: int = 0
    """Digits behind it."""
    whole: bool = True
    """Whether the database computes it with integers of 64 bits, and refuses what is larger."""


class _Summand:
    """What stands in the parentheses of ``sum(…)``."""

    def __init__(self, place: str, expression: str, columns: dict[str, str]) -> None:
        self.place, self.expression, self.columns = place, expression, columns

    def type_of_sum(self, summand: exp.Expr) -> str:
        """The column type that holds the sum over any number of rows, to its last digit."""
        found = self._number(summand)
        if found.whole:
            return "BIGINT" if found.digits <= 11 and not summand.find(exp.Mul) else LONG
        if found.scale > _SCALE or found.digits + _ROWS_DIGITS + found.scale > _DIGITS:
            raise SpecError(
                f"{self.place} sums numbers of so many digits that no column holds their sum",
                value=f"{self.expression} ({found.digits} digits before the point, {found.scale} behind it)",
                remedy=f"at most {_SCALE} behind it and {_DIGITS - _ROWS_DIGITS} in all: narrow the columns",
            )
        return f"DECIMAL({_DIGITS},{found.scale})"

    def _number(self, node: exp.Expr) -> _Number:
        if isinstance(node, exp.Predicate | exp.Connector | exp.Not | exp.Boolean | exp.Null):
            return _Number(1)  # what it compares is no part of the sum
        if isinstance(node, exp.Column):
            return self._column(node.name)
        if isinstance(node, exp.Literal) and node.is_int:
            digits = len(str(node.this))
            return _Number(digits, whole=digits < 19)
        if outcomes := _outcomes(node):
            return _widest([self._number(each) for each in outcomes])
        if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Mod | exp.IntDiv):
            return _computed(node, self._number(node.this), self._number(node.expression))
        raise self._no_number(node.sql(dialect="mysql"))

    def _column(self, name: str) -> _Number:
        declared = self.columns[name].strip().upper()
        if declared.startswith(_APPROXIMATE):
            raise SpecError(
                f"{self.place} sums floating point, which differences cannot keep exact",
                value=self.expression,
                remedy="make the column DECIMAL",
            )
        found = re.match(r"(\w+)(?:\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?", declared)
        kind = found[1] if found else ""
        if kind in _INTEGERS:
            return _Number(_INTEGERS[kind])
        if found and kind in _DECIMALS:
            scale = int(found[3] or 0)
            return _Number(int(found[2] or 10) - scale, scale, whole=False)
        raise self._no_number(f"{name}: {self.columns[name]}")

    def _no_number(self, value: str) -> SpecError:
        return SpecError(
            f"{self.place} sums what is no number",
            value=value,
            remedy="make it an integer or DECIMAL column in transform.sql, or compare it",
        )


def _outcomes(node: exp.Expr) -> list[exp.Expr]:
    """The expressions one of whose values, but for the sign, is that of the node; none if it computes another one."""
    found: list[exp.Expr | None] = []
    if isinstance(node, exp.Paren | exp.Neg | exp.Abs):
        found = [node.this]
    elif isinstance(node, exp.Coalesce):
        found = [node.this, *node.expressions]
    elif isinstance(node, exp.If):
        found = [node.args.get("true"), node.args.get("false")]
    elif isinstance(node, exp.Case):
        found = [*(branch.args.get("true") for branch in node.args["ifs"]), node.args.get("default")]
    return [each for each in found if each is not None]


def _widest(found: list[_Number]) -> _Number:
    return _Number(
        max(each.digits for each in found), max(each.scale for each in found), all(each.whole for each in found)
    )


def _computed(node: exp.Expr, left: _Number, right: _Number) -> _Number:
    whole = left.whole and right.whole
    if isinstance(node, exp.Mul):
        digits, scale = left.digits + right.digits, left.scale + right.scale
    elif isinstance(node, exp.IntDiv):
        return _Number(min(20, left.digits + right.scale))  # refused by the database if it has more
    elif isinstance(node, exp.Mod):
        digits, scale = left.digits, max(left.scale, right.scale)
    else:
        digits, scale = max(left.digits, right.digits) + 1, max(left.scale, right.scale)
    return _Number(min(20, digits) if whole else digits, scale, whole)


_WHOLE = (exp.Predicate, exp.If, exp.Case, exp.Coalesce, exp.Abs, exp.Connector, exp.Not)


def _check_whole(place: str, expression: str, summand: exp.Expr) -> None:
    """Refuse what may have a fraction that no column declares: each batch's part would be rounded by itself."""
    fractions: list[exp.Expr] = [*summand.find_all(exp.Div)]
    fractions += [found for found in summand.find_all(exp.Literal) if not found.is_string and not found.is_int]
    fractions += [found for found in summand.find_all(exp.Func) if not isinstance(found, _WHOLE)]
    if fractions:
        raise SpecError(
            f"{place} sums what differences cannot keep exact",
            value=expression,
            remedy="compute it in transform.sql into a DECIMAL column, and sum that",
        )


def check_group_key(place: str, expression: str, columns: dict[str, str]) -> None:
    """Check an expression that a rollup groups by.

    Raises:
        SpecError: it cannot be parsed, or reads a column the table has not.
    """
    try:
        parsed = sqlglot.parse_one(expression, dialect="mysql")
    except SqlglotError as error:
        raise SpecError(
            f"{place} cannot be parsed", value=" ".join(str(error).split())[:200], remedy="mend it"
        ) from None
    for column in parsed.find_all(exp.Column):
        if column.name not in columns:
            raise SpecError(
                f"{place} reads a column the table has not", value=column.name, remedy=f"columns: {', '.join(columns)}"
            )


_GROUP_TYPE = re.compile(
    r"(?:(?:TINY|SMALL|MEDIUM|BIG)?INT(?:\(\d+\))?(?: UNSIGNED| SIGNED)?|INTEGER(?: UNSIGNED| SIGNED)?"
    r"|DECIMAL(?:\(\d+(?:, ?\d+)?\))?|CHAR(?:\(\d+\))?|VARCHAR\(\d+\)|DATE|(?:DATETIME|TIME)(?:\([0-6]\))?)"
    r"(?: NOT NULL)?"
)


def check_group_type(place: str, declared: str) -> None:
    """Check the column type of a key that a rollup groups by.

    Raises:
        SpecError: no expression can be cast to it in every database.
    """
    if not _GROUP_TYPE.fullmatch(_upper(declared)):
        raise SpecError(
            f"{place}.type is none that a rollup can group by",
            value=declared,
            remedy="one of: TINYINT, SMALLINT, MEDIUMINT, INT, BIGINT (UNSIGNED or not), DECIMAL(p,s), CHAR(n),"
            " VARCHAR(n), DATE, DATETIME, TIME",
        )


def cast_type(declared: str) -> str:
    """The column type of a group's key as CAST knows it."""
    kind = _upper(declared).removesuffix(" NOT NULL")
    if "INT" in kind:
        # CAST(-1 AS UNSIGNED) is a large number; as DECIMAL it stays negative, which the column refuses.
        return "DECIMAL(20,0)" if kind.endswith("UNSIGNED") else "SIGNED"
    if kind in ("DECIMAL", "CHAR"):
        return {"DECIMAL": "DECIMAL(10,0)", "CHAR": "CHAR(1)"}[kind]
    return kind.replace("VARCHAR", "CHAR")


def _upper(declared: str) -> str:
    return " ".join(declared.upper().split())


def qualified(expression: str, alias: str) -> str:
    """A MySQL expression with every bare column read from ``alias``."""
    parsed = sqlglot.parse_one(expression, dialect="mysql")
    for column in parsed.find_all(exp.Column):
        column.set("table", exp.to_identifier(alias))
    return parsed.sql(dialect="mysql", identify=True)
