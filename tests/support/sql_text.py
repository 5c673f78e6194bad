"""Generated statements broken into lines, so that a person can review a golden file or a docstring's example."""

from __future__ import annotations

import re
from collections.abc import Iterator

WIDTH = 110
SHORT = 80
"""A line that is no longer is left as it is."""
_CLAUSES = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "HAVING", "ORDER BY", "LIMIT", "FOR UPDATE", "FOR SHARE",
    "LOCK IN SHARE MODE", "ON DUPLICATE KEY UPDATE", "SET", "VALUES (", "UNION ALL", "EXCEPT", "STRAIGHT_JOIN",
    "LEFT JOIN", "JOIN", "INTO TABLE",
)  # fmt: skip
_BREAK = re.compile(
    r"'(?:[^'\\]|\\.)*'|`[^`]*`|[()]|(?<= )(?:"
    + "|".join(re.escape(clause) for clause in _CLAUSES)
    + r")(?<!CHARACTER SET)(?![\w`])"
)
_SOFT = re.compile(r"(?<=,) |(?= AND )|(?= OR )")


def readable(statement: str) -> str:
    """A statement with a line for each clause, indented by its depth; lines that it has already stay.

    White space apart it is the same text, see :func:`flat`.
    """
    return "\n".join(part for line in statement.split("\n") for part in _lines(line))


def flat(text: str) -> str:
    """A text in one line, whatever its line breaks and indentation."""
    return re.sub(r"\s+", " ", text).replace("( ", "(").replace(" )", ")").strip()


def _lines(line: str) -> Iterator[str]:
    own = len(line) - len(line.lstrip())
    depth, begin, indent = 0, 0, own
    if len(line) <= SHORT:
        yield line
        return
    for match in _BREAK.finditer(line):
        token = match[0]
        if token == "(":
            depth += 1
        elif token == ")":
            depth -= 1
        elif token[0] not in "'`" and match.start() > begin:
            yield from _wrapped(line[begin : match.start()].rstrip(), indent)
            begin, indent = match.start(), own + 2 * max(depth, 0) + 2 * (depth > 0)
    yield from _wrapped(line[begin:], indent)


def _wrapped(text: str, indent: int) -> Iterator[str]:
    """A clause as lines of no more than the width where it has a place to break."""
    text, deeper = text.strip(), 0
    while len(text) + indent + deeper > WIDTH:
        places = [match.start() for match in _SOFT.finditer(text) if match.start() > 0]
        if not places:
            break
        place = max((each for each in places if each <= WIDTH - indent - deeper), default=places[0])
        yield " " * (indent + deeper) + text[:place].rstrip()
        text, deeper = text[place:].lstrip(), 4
    if text:
        yield " " * (indent + deeper) + text
