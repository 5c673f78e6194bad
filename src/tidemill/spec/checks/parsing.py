"""Parses SQL that an author wrote; a syntax error becomes a :class:`~tidemill.errors.SpecError`.

The parser only looks: what Spark and the database run is the author's own text, cut at the positions of its tokens.
A syntax tree that is written as SQL again may have another meaning: ``'O''Hare'`` became ``CONCAT('O', 'Hare')``.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from tidemill.errors import SpecError


def parse_expression(place: str, sql: str, dialect: str) -> exp.Expr:
    """Parse an expression or a single statement, such as CREATE TABLE.

    Args:
        place: where the text is, for the message.
        sql: the text.
        dialect: ``mysql`` or ``spark``.

    Raises:
        SpecError: the text is no SQL.
    """
    try:
        statements = sqlglot.parse(sql, dialect=dialect)
    except SqlglotError as error:
        raise _syntax_error(place, error, dialect) from None
    if len(statements) != 1 or statements[0] is None:
        raise SpecError("TM-SPEC-SQL-SYNTAX", value=sql, place=place, engine=_ENGINES[dialect])
    return statements[0]


def parse_select(file: str, sql: str, dialect: str) -> exp.Select:
    """Parse a file that holds one SELECT.

    Raises:
        SpecError: the text is no SQL, or not exactly one SELECT.
    """
    try:
        parsed = sqlglot.parse(sql, dialect=dialect)
    except SqlglotError as error:
        raise _syntax_error(file, error, dialect) from None
    # After the last semicolon there may be a comment.
    statements = [each for each in parsed if each is not None and not isinstance(each, exp.Semicolon)]
    if len(statements) != 1 or not isinstance(statements[0], exp.Select):
        kinds = ", ".join(each.key.upper() for each in statements) or "no statement"
        raise SpecError("TM-SPEC-SQL-NOT-ONE-SELECT", value=kinds, file=file)
    return statements[0]


def with_columns_of(place: str, sql: str, alias: str) -> str:
    """An author's MySQL expression with every column read from ``alias``; all other characters stay as they are."""
    spans = {}
    for column in parse_expression(place, sql, "mysql").find_all(exp.Column):
        first, last = column.parts[0].meta, column.parts[-1].meta
        spans[int(first["start"])] = int(last["end"]) + 1, column.name
    for start, (end, name) in sorted(spans.items(), reverse=True):
        quoted = "`" + name.replace("`", "``") + "`"
        sql = f"{sql[:start]}`{alias}`.{quoted}{sql[end:]}"
    # A comment may last until the end of its line.
    return f"{sql}\n" if "--" in sql or "#" in sql else sql


def tokens_of(place: str, sql: str, dialect: str) -> list[Token]:
    """The tokens of a text, without comments; ``start`` and ``end`` are character indexes, both inclusive.

    Raises:
        SpecError: the text has no tokens of SQL, or the engine could take one of its comments for SQL, or the reverse.
    """
    try:
        tokens = sqlglot.tokenize(sql, dialect=dialect)
    except SqlglotError as error:
        raise _syntax_error(place, error, dialect) from None
    end = 0
    for start, next_end in [*((token.start, token.end + 1) for token in tokens), (len(sql), len(sql))]:
        if ambiguous := _ambiguous_comment(sql[end:start], dialect):
            raise SpecError("TM-SPEC-SQL-COMMENT", value=ambiguous, place=place)
        end = max(end, next_end)
    return tokens


def outside_parentheses(tokens: list[Token]) -> Iterator[tuple[int, Token]]:
    """The tokens that are in no parentheses, each with its index."""
    depth = 0
    for index, token in enumerate(tokens):
        depth -= token.token_type is TokenType.R_PAREN
        if depth == 0:
            yield index, token
        depth += token.token_type is TokenType.L_PAREN


def _ambiguous_comment(gap: str, dialect: str) -> str | None:
    """What is between two tokens and that the engine and the parser read differently; None if they agree."""
    if dialect == "mysql":  # a comment that begins so is executed
        return next((opening for opening in ("/*!", "/*M!") if opening in gap), None)
    # Spark continues a comment after a backslash at the end of its line.
    return next((line.strip() for line in gap.splitlines() if "--" in line and line.endswith("\\")), None)


_ENGINES = {"spark": "Spark", "mysql": "the database"}


def _syntax_error(place: str, error: SqlglotError, dialect: str) -> SpecError:
    # The parser's own text has terminal codes and names of Python classes in it.
    value = str(error)
    if isinstance(error, ParseError) and error.errors:
        first = error.errors[0]
        value = f"line {first['line']}, column {first['col']}, at {first['highlight']!r}"
    return SpecError("TM-SPEC-SQL-SYNTAX", value=value, place=place, engine=_ENGINES[dialect])
