"""The control plane's own DDL (``sql/control``), which is written for MariaDB, as the other databases take it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ALTER = re.compile(r"\s*(?:--[^\n]*\n\s*)*(ALTER TABLE \S+)\s+(.*)\Z", re.DOTALL)
_CHECK = re.compile(r"(?:CONSTRAINT \w+ CHECK|ADD CONSTRAINT \w+ CHECK|DROP CONSTRAINT)\b")
_COMMENT = re.compile(r" COMMENT '(?:[^']|'')*'")
_CREATE = re.compile(r"(CREATE [A-Z ]*TABLE IF NOT EXISTS \S+)\s*\((.*)\)\s*\Z", re.DOTALL)


def with_current_timestamp(statement: str) -> str:
    """Times that a column takes by default said as all databases know it; in a session at UTC it is the same."""
    return statement.replace("DEFAULT UTC_TIMESTAMP(6)", "DEFAULT CURRENT_TIMESTAMP(6)")


def one_change_each(statement: str) -> tuple[str, ...]:
    """An ALTER TABLE of several changes as several statements; anything else as it is."""
    found = _ALTER.match(statement)
    if not found:
        return (statement,)
    return tuple(f"{found[1]} {change}" for change in items(found[2]))


def without_checks(statement: str) -> str:
    """A statement without its CHECK constraints; empty where nothing else is left of it."""
    if found := _CREATE.search(statement):
        kept = ",\n    ".join(item for item in items(found[2]) if not _CHECK.match(item))
        return f"{statement[: found.start()]}{found[1]} (\n    {kept}\n)"
    found = _ALTER.match(statement)
    return "" if found and _CHECK.match(found[2]) else statement


def without_column_comments(statement: str) -> str:
    """A statement whose columns say nothing about themselves."""
    return _COMMENT.sub("", statement)


def items(text: str) -> Iterator[str]:
    """What stands between the commas that are outside of parentheses and quotes."""
    depth, quoted, begin = 0, False, 0
    for place, letter in enumerate(text):
        if letter == "'":
            quoted = not quoted
        elif not quoted and letter in "()":
            depth += 1 if letter == "(" else -1
        elif not quoted and depth == 0 and letter == ",":
            yield text[begin:place].strip()
            begin = place + 1
    yield text[begin:].strip()
