"""Parses SQL that an author wrote; a syntax error becomes a :class:`~tidemill.errors.SpecError`."""

from __future__ import annotations

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError

from tidemill.errors import SpecError


def parse_expression(place: str, sql: str, dialect: str) -> exp.Expr:
    """Parse an expression or a single statement.

    Args:
        place: where the text is, for the message.
        sql: the text.
        dialect: ``mysql`` or ``spark``.

    Raises:
        SpecError: the text is no SQL.
    """
    try:
        return sqlglot.parse_one(sql, dialect=dialect)
    except SqlglotError as error:
        raise _syntax_error(place, error) from None


def parse_select(file: str, sql: str, dialect: str) -> exp.Select:
    """Parse a file that holds one SELECT.

    Raises:
        SpecError: the text is no SQL, or not exactly one SELECT.
    """
    try:
        statements = [each for each in sqlglot.parse(sql, dialect=dialect) if each is not None]
    except SqlglotError as error:
        raise _syntax_error(file, error) from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Select):
        kinds = ", ".join(each.key.upper() for each in statements) or "no statement"
        raise SpecError("TM-SPEC-SQL-NOT-ONE-SELECT", value=kinds, file=file)
    return statements[0]


def _syntax_error(place: str, error: SqlglotError) -> SpecError:
    # The parser's own text has terminal codes and names of Python classes in it.
    value = str(error)
    if isinstance(error, ParseError) and error.errors:
        first = error.errors[0]
        value = f"line {first['line']}, column {first['col']}, at {first['highlight']!r}"
    return SpecError("TM-SPEC-SQL-SYNTAX", value=value, place=place)
