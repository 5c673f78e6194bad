"""Parses the declaration of a column into the type that the database makes of it, synonyms and attributes included.

For example::

    >>> parse_column_type("int4 unsigned NOT NULL").kind, parse_column_type("NUMERIC(9)").size
    ('INT', (9, 0))

What the types are good for is in :mod:`tidemill.spec.checks.tables`; how the stream compares them, in
:mod:`tidemill.stream.plan.fits`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_TOKEN = re.compile(r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`(?:[^`]|``)*`|\w+|\S", re.DOTALL)
_SYNONYMS = {
    "INT1": "TINYINT", "BOOL": "TINYINT", "BOOLEAN": "TINYINT", "INT2": "SMALLINT", "INT3": "MEDIUMINT",
    "MIDDLEINT": "MEDIUMINT", "INT4": "INT", "INTEGER": "INT", "INT8": "BIGINT",
    "DEC": "DECIMAL", "NUMERIC": "DECIMAL", "FIXED": "DECIMAL",
    "FLOAT4": "FLOAT", "FLOAT8": "DOUBLE", "REAL": "DOUBLE", "DOUBLE PRECISION": "DOUBLE",
    "CHARACTER": "CHAR", "NCHAR": "NATIONAL CHAR", "NATIONAL CHARACTER": "NATIONAL CHAR",
    "CHAR VARYING": "VARCHAR", "CHARACTER VARYING": "VARCHAR", "VARCHARACTER": "VARCHAR",
    "NVARCHAR": "NATIONAL VARCHAR", "NCHAR VARCHAR": "NATIONAL VARCHAR", "NCHAR VARYING": "NATIONAL VARCHAR",
    "NCHAR VARCHARACTER": "NATIONAL VARCHAR", "NATIONAL VARCHARACTER": "NATIONAL VARCHAR",
    "NATIONAL CHAR VARYING": "NATIONAL VARCHAR", "NATIONAL CHARACTER VARYING": "NATIONAL VARCHAR",
    "LONG": "MEDIUMTEXT", "LONG VARCHAR": "MEDIUMTEXT", "LONG CHAR VARYING": "MEDIUMTEXT",
    "LONG CHARACTER VARYING": "MEDIUMTEXT", "LONG VARCHARACTER": "MEDIUMTEXT",
    "LONG VARBINARY": "MEDIUMBLOB",
}  # fmt: skip
"""Name that the database takes -> the type that it makes of it."""
INTEGERS = ("TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT")
_TEXTS = ("TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT")
_BLOBS = ("TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB")
_NUMBERS = (*INTEGERS, "DECIMAL", "FLOAT", "DOUBLE")
_TIMES = ("DATE", "TIME", "DATETIME", "TIMESTAMP", "YEAR")
_STRINGS = ("CHAR", "VARCHAR", "NATIONAL CHAR", "NATIONAL VARCHAR", "BINARY", "VARBINARY", *_TEXTS, *_BLOBS)
KINDS = frozenset((*_NUMBERS, *_TIMES, *_STRINGS, "JSON", "UUID", "INET4", "INET6", "ENUM", "SET"))
"""Types whose values are kept: what is read is what was written."""
_LONGEST_NAME = 3
"""Words."""
_COLLATIONS = frozenset({"CHARACTER", "CHARSET", "COLLATE", "ASCII", "UNICODE", "BINARY", "BYTE"})
_DOUBLE_BITS = 24
"""A FLOAT of more bits is a DOUBLE."""


@dataclass(frozen=True)
class ColumnType:
    """A column's declaration, parsed."""

    declared: str
    """The declaration, as the author wrote it."""
    kind: str
    """One of :data:`KINDS`, or the name of a type that is none of them; in capitals."""
    arguments: tuple[str, ...] = ()
    """What is in parentheses after the name: numbers, or the labels of an ENUM or SET."""
    attributes: tuple[str, ...] = ()
    """The words and signs behind the type, in capitals, without what is quoted or in parentheses."""

    @property
    def nullable(self) -> bool:
        """Whether the column may be NULL."""
        return not self.has("NOT", "NULL")

    @property
    def unsigned(self) -> bool:
        """Whether negative numbers are refused."""
        return self.has("UNSIGNED") or self.has("ZEROFILL")

    @property
    def own_collation(self) -> bool:
        """Whether its text is not compared as that of the other columns of the table: by its bytes."""
        return bool(_COLLATIONS & {*self.attributes}) or self.kind.startswith("NATIONAL ")

    @property
    def size(self) -> tuple[int, int]:
        """Digits, and how many of them are behind the point, of a DECIMAL."""
        digits, scale, *_ = (*self._numbers(), 0) if self.arguments else (10, 0)
        return digits, scale

    @property
    def length(self) -> int | None:
        """Characters or bytes of a CHAR, VARCHAR, BINARY or VARBINARY; None if it is not declared."""
        if self.kind not in _STRINGS:
            return None
        if self.arguments:
            return self._numbers()[0]
        return 1 if self.kind in ("CHAR", "NATIONAL CHAR", "BINARY") else None

    @property
    def fraction_digits(self) -> int:
        """Digits of the fraction of a second, of a type that is a time."""
        return self._numbers()[0] if self.arguments else 0

    def has(self, *words: str) -> bool:
        """Whether the attributes contain these words, one after the other."""
        return any(self.attributes[at : at + len(words)] == words for at in range(len(self.attributes)))

    def _numbers(self) -> tuple[int, ...]:
        return tuple(int(each) for each in self.arguments if each.isdecimal())


@lru_cache(maxsize=4096)  # every commit asks for the types of its columns
def parse_column_type(declared: str) -> ColumnType:
    """Parse the declaration of a column. A name that the database does not know becomes a kind of this name."""
    tokens = _TOKEN.findall(declared)
    words = [token.upper() for token in tokens]
    taken = 1
    for size in range(_LONGEST_NAME, 0, -1):
        name = " ".join(words[:size])
        if name in _SYNONYMS or name in KINDS:
            taken = size
            break
    name = " ".join(words[:taken])
    kind, rest = _SYNONYMS.get(name, name), tokens[taken:]
    arguments: list[str] = []
    if rest[:1] == ["("] and ")" in rest:
        end = rest.index(")")
        arguments = [_unquoted(each) for each in rest[1:end] if each != ","]
        rest = rest[end + 1 :]
    if kind == "FLOAT" and len(arguments) == 1 and arguments[0].isdecimal() and int(arguments[0]) > _DOUBLE_BITS:
        kind = "DOUBLE"
    return ColumnType(declared, kind, tuple(arguments), tuple(_attributes(rest)))


def _attributes(tokens: list[str]) -> Iterator[str]:
    """What is neither quoted nor in parentheses, in capitals."""
    depth = 0
    for each in tokens:
        depth += (each == "(") - (each == ")")
        if depth == 0 and each[0] not in "'\"`)":
            yield each.upper()


def _unquoted(token: str) -> str:
    if token[0] not in "'\"":
        return token
    inner = token[1:-1].replace(token[0] * 2, token[0])
    # The database drops the blanks at the end of a label.
    return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL).rstrip(" ")
