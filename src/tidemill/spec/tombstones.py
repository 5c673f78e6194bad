"""Which rows a tombstone deletes: a record with a key and without a value."""

from __future__ import annotations

from functools import lru_cache

from sqlglot import exp

from tidemill.errors import SpecError
from tidemill.spec.checks.parsing import parse_expression
from tidemill.spec.schema import Pipeline, TableKind


@lru_cache(maxsize=256)  # every commit needs it
def key_columns(ddl: str) -> tuple[str, ...]:
    """The columns that ``source.key`` declares.

    Raises:
        SpecError: it is no list of columns.
    """
    parsed = parse_expression("source.key", f"CREATE TABLE k ({ddl})", "spark")
    columns = tuple(column.name for column in parsed.find_all(exp.ColumnDef))
    if not columns:
        raise SpecError("TM-SPEC-RECORD-KEY", value=ddl)
    return columns


def deletes_from(pipeline: Pipeline) -> tuple[str, ...]:
    """The tables from which a tombstone deletes: entities whose key is what ``source.key`` declares."""
    if pipeline.source.key is None:
        return ()
    key = set(key_columns(pipeline.source.key))
    return tuple(name for name, t in pipeline.tables.items() if t.kind is TableKind.ENTITY and set(t.key) == key)
