"""Declarations of columns are understood as the database understands them."""

from __future__ import annotations

from tidemill.config import Account, Settings
from tidemill.spec.column_types import _SYNONYMS, KINDS, parse_column_type
from tidemill.store.connection import session

SIZED = ("VARCHAR", "NATIONAL VARCHAR", "VARBINARY")


def declarations() -> list[str]:
    """Every name that is known, with the size or the labels that its type requires, and what changes a type."""
    found = []
    for name in sorted(KINDS | _SYNONYMS.keys()):
        kind = _SYNONYMS.get(name, name)
        found.append(name + ("(7)" if kind in SIZED else "('5','1','x')" if kind in ("ENUM", "SET") else ""))
    found += ["FLOAT(24)", "FLOAT(25)", "DECIMAL(9)", "NUMERIC(12, 2)", "DATETIME(3)", "CHAR(4)", "BINARY(2)"]
    return [*found, "INTEGER UNSIGNED", "INT4 ZEROFILL", "INT(11) UNSIGNED NOT NULL", "ENUM('it''s', \"a,b\", 'end  ')"]


def test_every_name_of_a_type_is_the_type_that_the_database_makes_of_it(mariadb: Settings) -> None:
    """Synonyms, sizes, labels, signs and NULL, as its catalogue shows them; and there is no type of which we do not
    know whether its values are kept."""
    columns = {f"c{number}": declared for number, declared in enumerate(declarations())}
    with session(mariadb, Account.MIGRATE, schema=mariadb.db_data) as connection, connection.cursor() as cursor:
        body = ", ".join(f"{name} {declared}" for name, declared in columns.items())
        cursor.execute(f"CREATE OR REPLACE TABLE column_types ({body})")
        cursor.execute(
            "SELECT column_name, data_type, column_type, is_nullable, character_maximum_length, numeric_precision,"
            " numeric_scale, datetime_precision FROM information_schema.columns WHERE table_name = 'column_types'"
        )
        live = {str(row[0]): row[1:] for row in cursor.fetchall()}
        cursor.execute("DROP TABLE column_types")
    assert live.keys() == columns.keys()
    for name, (kind, shown, nullable, length, digits, scale, fraction) in live.items():
        parsed = parse_column_type(columns[name])
        expected = "LONGTEXT" if parsed.kind == "JSON" else parsed.kind.removeprefix("NATIONAL ")
        assert kind.upper() == expected, columns[name]
        assert (nullable == "YES", "unsigned" in shown) == (parsed.nullable, parsed.unsigned), columns[name]
        if parsed.kind == "DECIMAL":
            assert parsed.size == (digits, scale), columns[name]
        if parsed.length is not None:
            assert parsed.length == length, columns[name]
        if fraction is not None and kind != "date":
            assert parsed.fraction_digits == fraction, columns[name]
        if parsed.kind in ("ENUM", "SET"):
            labels = ",".join("'" + label.replace("'", "''") + "'" for label in parsed.arguments)
            assert shown == f"{kind}({labels})", columns[name]
