"""Checks the measures and group keys of a rollup: only what differences can update exactly is accepted."""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp
from sqlglot.tokenizer_core import TokenType

from tidemill.errors import SpecError
from tidemill.spec.checks.functions import check_functions
from tidemill.spec.checks.parsing import parse_expression, tokens_of, with_columns_of
from tidemill.spec.column_types import INTEGERS, parse_column_type
from tidemill.spec.known_names import require_known

_APPROXIMATE = ("DOUBLE", "FLOAT")
_INTEGERS = {"TINYINT": 3, "YEAR": 4, "SMALLINT": 5, "MEDIUMINT": 8, "INT": 10, "BIGINT": 20}
"""Digits of the largest value."""
LONG = "DECIMAL(38,0)"
"""Holds any sum of BIGINTs."""
_DIGITS, _SCALE = 65, 30
"""The most digits, and digits after the point, that a DECIMAL has in every supported database."""
_ROWS_DIGITS = 10
"""A sum has at most this many digits more than a summand: enough for 10,000,000,000 rows."""


@dataclass(frozen=True)
class Measure:
    """One measure of a rollup."""

    summand: str | None
    """What is summed: a MySQL expression over the table's columns. None for ``count(*)``."""
    type: str
    """Column type of the measure in the rollup table."""


def parse_measure(place: str, expression: str, columns: dict[str, str]) -> Measure:
    """Parse a measure and check it against the columns of its table.

    Raises:
        SpecError: differences cannot update it exactly.
    """
    parsed = parse_expression(place, expression, "mysql")
    if isinstance(parsed, exp.Count) and isinstance(parsed.this, exp.Star):
        return Measure(None, "BIGINT")
    if not isinstance(parsed, exp.Sum) or parsed.find(exp.Distinct):
        raise SpecError("TM-SPEC-MEASURE-UNSUPPORTED", value=expression, place=place)
    summand = _inside_parentheses(place, expression)
    _check_row_wise(place, summand, parsed.this)
    for column in parsed.find_all(exp.Column):
        require_known(place, column.name, columns)
    _check_without_fraction(place, expression, parsed.this)
    return Measure(summand, _Summand(place, expression, columns).type_of_sum(parsed.this))


def _inside_parentheses(place: str, expression: str) -> str:
    """What the author sums: the text between the parentheses of ``sum(…)``."""
    tokens = [token for token in tokens_of(place, expression, "mysql") if token.token_type is not TokenType.SEMICOLON]
    first, opening, *_, closing = tokens
    is_sum = expression[first.start : first.end + 1].lower() == "sum"
    quantified = tokens[2].token_type in (TokenType.ALL, TokenType.DISTINCT)
    if not is_sum or opening.token_type is not TokenType.L_PAREN or quantified:
        raise SpecError("TM-SPEC-MEASURE-UNSUPPORTED", value=expression, place=place)
    return expression[opening.end + 1 : closing.start].strip()


@dataclass(frozen=True)
class _Number:
    """How large the values of an expression can be."""

    digits: int
    """Digits before the decimal point."""
    scale: int = 0
    """Digits after the decimal point."""
    whole: bool = True
    """Whether the database computes it with 64-bit integers and rejects a larger result."""


class _Summand:
    """The expression in the parentheses of ``sum(…)``: how large its values can be."""

    def __init__(self, place: str, expression: str, columns: dict[str, str]) -> None:
        self.place, self.expression, self.columns = place, expression, columns

    def type_of_sum(self, summand: exp.Expr) -> str:
        """The column type that holds the sum over any number of rows, to its last digit."""
        size = self._number(summand)
        if size.whole:
            return "BIGINT" if size.digits <= 11 and not summand.find(exp.Mul) else LONG
        if size.scale > _SCALE or size.digits + _ROWS_DIGITS + size.scale > _DIGITS:
            raise SpecError(
                "TM-SPEC-SUM-OVERFLOW",
                value=f"{self.expression} ({size.digits} digits before the decimal point, {size.scale} after it)",
                place=self.place,
                scale=_SCALE,
                digits=_DIGITS - _ROWS_DIGITS,
            )
        return f"DECIMAL({_DIGITS},{size.scale})"

    def _number(self, node: exp.Expr) -> _Number:
        if isinstance(node, exp.Predicate | exp.Connector | exp.Not | exp.Boolean | exp.Null):
            return _Number(1)  # 0 or 1, whatever it compares
        if isinstance(node, exp.Column):
            return self._column(node.name)
        if isinstance(node, exp.Literal) and node.is_int:
            digits = len(str(node.this))
            return _Number(digits, whole=digits < 19)
        if outcomes := _outcomes(node):
            return _widest([self._number(each) for each in outcomes])
        if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Mod | exp.IntDiv):
            return _computed(node, self._number(node.this), self._number(node.expression))
        raise self._not_numeric(node.sql(dialect="mysql"))

    def _column(self, name: str) -> _Number:
        declared = parse_column_type(self.columns[name])
        if declared.kind in _APPROXIMATE:
            raise SpecError("TM-SPEC-SUM-APPROXIMATE", value=f"{name}: {self.columns[name]}", place=self.place)
        if declared.kind in _INTEGERS:
            return _Number(_INTEGERS[declared.kind])
        if declared.kind == "DECIMAL":
            digits, scale = declared.size
            return _Number(digits - scale, scale, whole=False)
        raise self._not_numeric(f"{name}: {self.columns[name]}")

    def _not_numeric(self, value: str) -> SpecError:
        return SpecError("TM-SPEC-SUM-NOT-NUMERIC", value=value, place=self.place)


def _outcomes(node: exp.Expr) -> list[exp.Expr]:
    """The operands of which a node returns one unchanged or negated; none if the node computes another value."""
    operands: list[exp.Expr | None] = []
    if isinstance(node, exp.Paren | exp.Neg | exp.Abs):
        operands = [node.this]
    elif isinstance(node, exp.Coalesce):
        operands = [node.this, *node.expressions]
    elif isinstance(node, exp.If):
        operands = [node.args.get("true"), node.args.get("false")]
    elif isinstance(node, exp.Case):
        operands = [*(branch.args.get("true") for branch in node.args["ifs"]), node.args.get("default")]
    return [each for each in operands if each is not None]


def _widest(numbers: list[_Number]) -> _Number:
    return _Number(
        max(each.digits for each in numbers), max(each.scale for each in numbers), all(each.whole for each in numbers)
    )


def _computed(node: exp.Expr, left: _Number, right: _Number) -> _Number:
    whole = left.whole and right.whole
    if isinstance(node, exp.Mul):
        digits, scale = left.digits + right.digits, left.scale + right.scale
    elif isinstance(node, exp.IntDiv):
        return _Number(min(20, left.digits + right.scale))  # the database rejects a quotient of more digits
    elif isinstance(node, exp.Mod):
        digits, scale = left.digits, max(left.scale, right.scale)
    else:
        digits, scale = max(left.digits, right.digits) + 1, max(left.scale, right.scale)
    return _Number(min(20, digits) if whole else digits, scale, whole)


_WITHOUT_FRACTION = (exp.Predicate, exp.If, exp.Case, exp.Coalesce, exp.Abs, exp.Connector, exp.Not)


def _check_without_fraction(place: str, expression: str, summand: exp.Expr) -> None:
    """Reject an expression that may have undeclared decimal places: each batch would round its part by itself."""
    fractions: list[exp.Expr] = [*summand.find_all(exp.Div)]
    fractions += [each for each in summand.find_all(exp.Literal) if not each.is_string and not each.is_int]
    fractions += [each for each in summand.find_all(exp.Func) if not isinstance(each, _WITHOUT_FRACTION)]
    if fractions:
        raise SpecError("TM-SPEC-SUM-FRACTION", value=expression, place=place)


def check_group_key(place: str, expression: str, columns: dict[str, str]) -> None:
    """Check an expression that a rollup groups by.

    Raises:
        SpecError: it cannot be parsed, reads an unknown column, or depends on more than the columns of one row.
    """
    parsed = parse_expression(place, expression, "mysql")
    _check_row_wise(place, expression, parsed)
    for column in parsed.find_all(exp.Column):
        require_known(place, column.name, columns)


def _check_row_wise(place: str, expression: str, parsed: exp.Expr) -> None:
    kinds = (exp.Query, exp.AggFunc, exp.Window, exp.Alias)
    if not isinstance(parsed, exp.Condition) or parsed.find(*kinds) or parsed.find(exp.Star):
        raise SpecError("TM-SPEC-ROLLUP-NOT-ROW-WISE", value=expression, place=place)
    check_functions(place, expression, "mysql")


_GROUP_KINDS = (*INTEGERS, "DECIMAL", "VARCHAR", "DATE", "DATETIME", "TIME")
_GROUP_ATTRIBUTES = frozenset({"NOT", "NULL", "UNSIGNED", "SIGNED"})


def check_group_type(place: str, declared: str) -> None:
    """Check the column type of a key that a rollup groups by.

    Raises:
        SpecError: no expression can be cast to it in every database, or it shows two groups alike: CHAR drops the
            blanks at the end.
    """
    parsed = parse_column_type(declared)
    has_size = parsed.kind != "VARCHAR" or parsed.length is not None
    if parsed.kind not in _GROUP_KINDS or not has_size or not _GROUP_ATTRIBUTES.issuperset(parsed.attributes):
        raise SpecError("TM-SPEC-GROUP-TYPE", value=declared, place=place)


def cast_type(declared: str) -> str:
    """The column type of a group's key as CAST knows it."""
    parsed = parse_column_type(declared)
    if parsed.kind in INTEGERS:
        # CAST(-1 AS UNSIGNED) is a large number; as DECIMAL it stays negative, which the column refuses.
        return "DECIMAL(20,0)" if parsed.unsigned else "SIGNED"
    if parsed.kind == "DECIMAL":
        return "DECIMAL({},{})".format(*parsed.size)
    kind = "CHAR" if parsed.kind == "VARCHAR" else parsed.kind
    return f"{kind}({', '.join(parsed.arguments)})" if parsed.arguments else kind


def qualified(expression: str, alias: str) -> str:
    """A MySQL expression with every column read from ``alias``, otherwise as the author has written it."""
    return with_columns_of("the rollup", expression, alias)
