"""Checks a table's block in pipeline.yaml: key, indexes, column types, version and retention."""

from __future__ import annotations

import re

from tidemill.errors import SpecError
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
    reserved = [column for column in table.columns if column.startswith("_")]
    if reserved:
        raise SpecError("TM-SPEC-COLUMN-RESERVED", value=reserved[0], place=place)


_FORBIDDEN_ATTRIBUTE = re.compile(r"\b(UNIQUE|PRIMARY|AUTO_INCREMENT|GENERATED|REFERENCES|ON UPDATE)\b", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'")


def _check_types(place: str, table: Table) -> None:
    for column, declared in table.columns.items():
        if attribute := _FORBIDDEN_ATTRIBUTE.search(_QUOTED.sub("", declared)):
            raise SpecError(
                "TM-SPEC-COLUMN-ATTRIBUTE", value=f"{column}: {declared}", place=place, attribute=attribute.group(0)
            )
        if declared.upper().startswith("TIMESTAMP") and "NOT NULL" in declared.upper():
            raise SpecError("TM-SPEC-TIMESTAMP-NOT-NULL", value=f"{column}: {declared}", place=place)


def _check_version(place: str, table: Table) -> None:
    if table.kind is TableKind.ENTITY:
        if table.version is None:
            raise SpecError("TM-SPEC-VERSION-MISSING", place=place)
        require_known(f"{place}.version", table.version, table.columns)
        declared = table.columns[table.version].upper()
        if declared.startswith(("DATETIME", "TIMESTAMP")) and "(6)" not in declared:
            raise SpecError("TM-SPEC-VERSION-PRECISION", value=f"{table.version}: {declared}", place=place)
    elif table.version is not None:
        raise SpecError("TM-SPEC-VERSION-OF-EVENT", value=table.version, place=place)
    for column in (*table.key, *([table.version] if table.version else [])):
        if "NOT NULL" not in table.columns[column].upper():
            raise SpecError("TM-SPEC-COLUMN-NULLABLE", value=f"{column}: {table.columns[column]}", place=place)


def _check_retention(place: str, table: Table) -> None:
    if table.retention is None:
        return
    column = table.retention.column
    require_known(f"{place}.column", column, table.columns)
    if not table.columns[column].upper().startswith(("DATE", "TIMESTAMP")):
        raise SpecError("TM-SPEC-RETENTION-NO-TIME", value=f"{column}: {table.columns[column]}", place=place)
