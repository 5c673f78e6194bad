"""Translates the DDL of the control plane (``sql/control``), which is written for MariaDB, for the other databases.

What MySQL gets for a default that MariaDB takes::

    >>> with_current_timestamp("at DATETIME(6) NOT NULL DEFAULT UTC_TIMESTAMP(6)")
    'at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)'
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ALTER = re.compile(r"\s*(?:--[^\n]*\n\s*)*(ALTER TABLE \S+)\s+(.*)\Z", re.DOTALL)
_CHECK = re.compile(r"(?:CONSTRAINT \w+ CHECK|ADD CONSTRAINT \w+ CHECK|DROP CONSTRAINT)\b")
_COMMENT = re.compile(r" COMMENT '(?:[^']|'')*'")
_CREATE = re.compile(r"(CREATE [A-Z ]*TABLE IF NOT EXISTS \S+)\s*\((.*)\)\s*\Z", re.DOTALL)


def with_current_timestamp(statement: str) -> str:
    """Write defaults of time columns as all databases know them; in a session in UTC the value is the same."""
    return statement.replace("DEFAULT UTC_TIMESTAMP(6)", "DEFAULT CURRENT_TIMESTAMP(6)")


def one_change_each(statement: str) -> tuple[str, ...]:
    """Split an ALTER TABLE with several changes into one statement for each; return any other statement unchanged."""
    match = _ALTER.match(statement)
    if not match:
        return (statement,)
    return tuple(f"{match[1]} {change}" for change in items(match[2]))


def without_checks(statement: str) -> str:
    """Remove the CHECK constraints; the result is empty if nothing else is left of the statement."""
    if match := _CREATE.search(statement):
        kept = ",\n    ".join(item for item in items(match[2]) if not _CHECK.match(item))
        return f"{statement[: match.start()]}{match[1]} (\n    {kept}\n)"
    match = _ALTER.match(statement)
    return "" if match and _CHECK.match(match[2]) else statement


def without_column_comments(statement: str) -> str:
    """Remove the comments of the columns."""
    return _COMMENT.sub("", statement)


def items(text: str) -> Iterator[str]:
    """Split at the commas that are outside of parentheses and quotes."""
    depth, quoted, begin = 0, False, 0
    for index, letter in enumerate(text):
        if letter == "'":
            quoted = not quoted
        elif not quoted and letter in "()":
            depth += 1 if letter == "(" else -1
        elif not quoted and depth == 0 and letter == ",":
            yield text[begin:index].strip()
            begin = index + 1
    yield text[begin:].strip()
