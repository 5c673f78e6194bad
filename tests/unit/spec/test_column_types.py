"""How a column's declaration is understood, and which columns may identify rows or order them."""

from __future__ import annotations

import pytest

from tidemill.errors import SpecError
from tidemill.spec.checks.tables import check_table
from tidemill.spec.column_types import parse_column_type
from tidemill.spec.schema import Table

EXACT = ["TINYINT", "bool", "INT2", "MEDIUMINT", "integer unsigned", "INT(11)", "BIGINT UNSIGNED", "INT8"]
EXACT += ["DECIMAL", "DECIMAL(38,9)", "numeric(20)", "DEC(9, 2)", "FIXED"]
DECLARED = {
    "key": [*EXACT, "VARCHAR(9)", "character varying(9)", "VARBINARY(9)", "DATE", "DATETIME", "DATETIME(6)"],
    "version": [*EXACT, "DATETIME(6)"],
    "neither": [
        "DECIMAL(39,9)", "FLOAT", "DOUBLE PRECISION", "REAL", "CHAR(10)", "character", "BINARY(3)", "TEXT", "LONGTEXT",
        "BLOB", "TIME(6)", "YEAR", "JSON", "UUID", "INET6", "ENUM('a','b')", "SET('a','b')",
        "VARCHAR(9) COLLATE utf8mb4_general_ci", "VARCHAR(9) CHARACTER SET latin1", "VARCHAR(9) CHARSET ascii",
        "VARCHAR(9) BINARY", "NATIONAL VARCHAR(9)", "NCHAR VARYING(9)",
    ],
}  # fmt: skip
"""What a column may be, as key and as version; a version takes no text and no time that cuts a fraction off."""


def code_of(columns: dict[str, str], key: str = "id", version: str | None = None) -> str | None:
    """The code with which a table is refused; None if it is not."""
    kind = "event" if version is None else "entity"
    table = Table.model_validate({"from": "t.sql", "kind": kind, "key": [key], "version": version, "columns": columns})
    try:
        check_table("tables.t", table)
    except SpecError as error:
        return error.code.removeprefix("TM-SPEC-")
    return None


@pytest.mark.parametrize("declared", sorted({each for group in DECLARED.values() for each in group}))
def test_key_and_version_are_of_types_that_all_compare_alike(declared: str) -> None:
    """What the database cuts, pads, rounds or folds is no key; what is coarser than its values is no version."""
    as_key = code_of({"id": f"{declared} NOT NULL"})
    as_version = code_of({"id": "INT NOT NULL", "at": f"{declared} NOT NULL"}, version="at")
    assert as_key == (None if declared in DECLARED["key"] else "KEY-TYPE")
    coarse = "VERSION-PRECISION" if declared == "DATETIME" else "VERSION-TYPE"
    assert as_version == (None if declared in DECLARED["version"] else coarse)
    assert code_of({"id": "INT NOT NULL", "v": declared}) is None


@pytest.mark.parametrize(
    ("declared", "code"),
    [
        ("BIT(8)", "COLUMN-TYPE"),
        ("SERIAL", "COLUMN-TYPE"),
        ("POINT", "COLUMN-TYPE"),
        ("GEOMETRY", "COLUMN-TYPE"),
        ("VECTOR(3)", "COLUMN-TYPE"),
        ("ITN", "COLUMN-TYPE"),
        ("", "COLUMN-TYPE"),
        ("INT GENERATED ALWAYS AS (id + 1)", "COLUMN-ATTRIBUTE"),
        ("INT AS (id + 1) STORED", "COLUMN-ATTRIBUTE"),
        ("BIGINT UNSIGNED NOT NULL SERIAL DEFAULT VALUE", "COLUMN-ATTRIBUTE"),
        ("INT auto_increment", "COLUMN-ATTRIBUTE"),
        ("INT NOT NULL KEY", "COLUMN-ATTRIBUTE"),
        ("DATETIME ON UPDATE CURRENT_TIMESTAMP", "COLUMN-ATTRIBUTE"),
        ("INT COMMENT 'UNIQUE, it''s AS (x)'", None),
        ("INT CHECK (v + CAST(id AS INT) > 0)", None),
        ("ENUM('5','1','x''y')", None),
    ],
)
def test_a_column_whose_value_is_not_what_was_sent_is_refused(declared: str, code: str | None) -> None:
    """Types and attributes of which the database makes its own value; what is quoted is no attribute."""
    assert code_of({"id": "INT NOT NULL", "v": declared}) == code


def test_a_comment_makes_no_column_not_null() -> None:
    """Only the attribute does."""
    assert code_of({"id": "INT COMMENT 'NOT NULL'"}) == "COLUMN-NULLABLE"
    assert code_of({"id": "INT not\n null"}) is None


@pytest.mark.parametrize(
    ("declared", "kind", "arguments"),
    [
        ("enum('a,b', \"c\", 'it''s', 'back\\\\slash', 'end  ')", "ENUM", ("a,b", "c", "it's", "back\\slash", "end")),
        ("FLOAT(24)", "FLOAT", ("24",)),
        ("FLOAT(25)", "DOUBLE", ("25",)),
        ("double  precision", "DOUBLE", ()),
        ("LONG VARBINARY", "MEDIUMBLOB", ()),
        ("national character varying (3)", "NATIONAL VARCHAR", ("3",)),
    ],
)
def test_a_declaration_is_understood_as_the_database_does(declared: str, kind: str, arguments: tuple[str, ...]) -> None:
    """Names of several words, labels with quotes, and sizes that make another type."""
    parsed = parse_column_type(declared)
    assert (parsed.kind, parsed.arguments) == (kind, arguments)
