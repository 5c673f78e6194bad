"""Checks a table's block in pipeline.yaml: key, indexes, column types, version and retention."""

from __future__ import annotations

from collections.abc import Collection

from tidemill.errors import SpecError
from tidemill.spec.column_types import INTEGERS, KINDS, ColumnType, parse_column_type
from tidemill.spec.known_names import require_known
from tidemill.spec.schema import Table, TableKind


def check_table(place: str, table: Table) -> None:
    """Check one table.

    Args:
        place: where pipeline.yaml declares it, ``tables.<name>``.
        table: its block.

    Raises:
        SpecError: the first rule that the table breaks.
    """
    _check_names(place, table)
    _check_types(place, table)
    _check_version(place, table)
    _check_retention(f"{place}.retention", table)


def _check_names(place: str, table: Table) -> None:
    for column in table.key:
        require_known(f"{place}.key", column, table.columns)
    for index in table.indexes:
        for column in index:
            require_known(f"{place}.indexes", column, table.columns)
    known: dict[str, str] = {}
    for column in table.columns:
        if (other := known.setdefault(column.lower(), column)) != column:
            raise SpecError("TM-SPEC-COLUMN-CASE", value=f"{other}, {column}", place=place)
    reserved = [column for column in table.columns if column.startswith("_")]
    if reserved:
        raise SpecError("TM-SPEC-COLUMN-RESERVED", value=reserved[0], place=place)


_IDENTIFYING = ("UNIQUE", "PRIMARY", "KEY", "REFERENCES")
_COMPUTING = ("AUTO_INCREMENT", "AUTO_RANDOM", "SERIAL", "GENERATED", "AS")
"""The database makes the value."""
_INSTEAD = {
    "BIT": "BOOLEAN, or BIGINT UNSIGNED or VARBINARY for several bits",
    "SERIAL": "BIGINT UNSIGNED NOT NULL, and let the record carry the number",
    "VECTOR": "JSON, or LONGBLOB",
}
"""Type whose values are not kept as they are sent -> what to declare."""
_KEY_KINDS = (*INTEGERS, "DECIMAL", "VARCHAR", "VARBINARY", "DATE", "DATETIME")
"""Types of which Spark, Arrow and the database agree whether two values are equal."""
_VERSION_KINDS = (*INTEGERS, "DECIMAL", "DATETIME")
"""Types of which they agree which of two values is the greater one, and that keep each value as it was sent."""
_DECIMAL_DIGITS = 38
"""The most digits that Spark compares."""
_MICROSECONDS = 6
"""Digits of the fraction of a second that an instant has in Spark."""


def _check_types(place: str, table: Table) -> None:
    for column, declared in table.columns.items():
        parsed, value = parse_column_type(declared), f"{column}: {declared}"
        if parsed.kind not in KINDS:
            instead = _INSTEAD.get(
                parsed.kind, "a number, a time, a text, bytes, JSON, UUID, INET4, INET6, ENUM or SET"
            )
            raise SpecError("TM-SPEC-COLUMN-TYPE", value=value, place=place, instead=instead)
        forbidden = [each for each in parsed.attributes if each in (*_IDENTIFYING, *_COMPUTING)]
        forbidden += ["ON UPDATE"] if parsed.has("ON", "UPDATE") else []
        if forbidden:
            raise SpecError("TM-SPEC-COLUMN-ATTRIBUTE", value=value, place=place, attribute=forbidden[0])
        if parsed.kind == "TIMESTAMP" and not parsed.nullable:
            raise SpecError("TM-SPEC-TIMESTAMP-NOT-NULL", value=value, place=place)


def _check_version(place: str, table: Table) -> None:
    if table.kind is TableKind.ENTITY:
        if table.version is None:
            raise SpecError("TM-SPEC-VERSION-MISSING", place=place)
        require_known(f"{place}.version", table.version, table.columns)
    elif table.version is not None:
        raise SpecError("TM-SPEC-VERSION-OF-EVENT", value=table.version, place=place)
    for column in (*table.key, *([table.version] if table.version else [])):
        parsed, value = parse_column_type(table.columns[column]), f"{column}: {table.columns[column]}"
        if parsed.nullable:
            raise SpecError("TM-SPEC-COLUMN-NULLABLE", value=value, place=place)
        if column == table.version:
            if parsed.kind == "DATETIME" and parsed.fraction_digits < _MICROSECONDS:
                raise SpecError("TM-SPEC-VERSION-PRECISION", value=value, place=place)
            if not _is_compared_alike(parsed, _VERSION_KINDS):
                raise SpecError("TM-SPEC-VERSION-TYPE", value=value, place=place)
        elif not _is_compared_alike(parsed, _KEY_KINDS):
            raise SpecError("TM-SPEC-KEY-TYPE", value=value, place=place)


def _is_compared_alike(parsed: ColumnType, kinds: Collection[str]) -> bool:
    """Whether a column is one of these kinds, and not of more digits or of another collation than Spark compares."""
    is_too_long = parsed.kind == "DECIMAL" and parsed.size[0] > _DECIMAL_DIGITS
    return parsed.kind in kinds and not is_too_long and not parsed.own_collation


def _check_retention(place: str, table: Table) -> None:
    if table.retention is None:
        return
    column = table.retention.column
    require_known(f"{place}.column", column, table.columns)
    if parse_column_type(table.columns[column]).kind not in ("DATE", "DATETIME", "TIMESTAMP"):
        raise SpecError("TM-SPEC-RETENTION-NO-TIME", value=f"{column}: {table.columns[column]}", place=place)
