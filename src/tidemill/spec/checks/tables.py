"""Checks a pipeline beyond the form of pipeline.yaml: the names that it uses exist, and its SQL can be run safely."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePath

from sqlglot import exp

from tidemill.errors import SpecError
from tidemill.spec.checks.models import check_model
from tidemill.spec.checks.parsing import parse_expression
from tidemill.spec.checks.rollups import check_group_key, check_group_type, parse_measure
from tidemill.spec.checks.spark_conf import check_conf
from tidemill.spec.checks.transform import parse_transform
from tidemill.spec.folder import is_versioned
from tidemill.spec.known_names import require_known
from tidemill.spec.schema import Pipeline, Table, TableKind


def check_pipeline(pipeline: Pipeline) -> Pipeline:
    """Check everything that needs no server, and parse the feature queries of the models.

    Returns:
        The same pipeline; its models have their :attr:`~tidemill.spec.schema.Model.query`.

    Raises:
        SpecError: the first rule that the pipeline breaks.
    """
    if not pipeline.tables:
        raise SpecError("TM-SPEC-NO-TABLE", value=pipeline.name)
    if pipeline.source.key is not None:
        record_key(pipeline.source.key)
    for name, table in pipeline.tables.items():
        _check_names(f"tables.{name}", table)
        _check_types(f"tables.{name}", table)
        _check_version(f"tables.{name}", name, table)
        _check_transform(f"tables.{name}", pipeline, table)
        _check_retention(f"tables.{name}.retention", table)
    _check_checks(pipeline)
    check_conf("resources.conf", pipeline.resources.conf)
    _check_dimensions(pipeline)
    for name, rollup in pipeline.rollups.items():
        require_known(f"rollups.{name}.of", rollup.of, pipeline.tables)
        if name in pipeline.tables:
            raise SpecError("TM-SPEC-ROLLUP-NAMED-AS-TABLE", value=name)
        for key, grouped in rollup.by.items():
            check_group_key(f"rollups.{name}.by.{key}", grouped.expr, pipeline.tables[rollup.of].columns)
            check_group_type(f"rollups.{name}.by.{key}", grouped.type)
        for measure, expression in rollup.measures.items():
            parse_measure(f"rollups.{name}.measures.{measure}", expression, pipeline.tables[rollup.of].columns)
    return pipeline.with_queries(
        {
            name: check_model(pipeline, name, read_sql(pipeline, f"models.{name}.features", model.features))
            for name, model in pipeline.models.items()
        }
    )


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


def _check_version(place: str, name: str, table: Table) -> None:
    if table.kind is TableKind.ENTITY:
        if table.version is None:
            raise SpecError("TM-SPEC-VERSION-MISSING", value=name, place=place)
        require_known(f"{place}.version", table.version, table.columns)
        declared = table.columns[table.version].upper()
        if declared.startswith(("DATETIME", "TIMESTAMP")) and "(6)" not in declared:
            raise SpecError("TM-SPEC-VERSION-PRECISION", value=f"{table.version}: {declared}", place=place)
    elif table.version is not None:
        raise SpecError("TM-SPEC-VERSION-OF-EVENT", value=table.version, place=place)
    for column in (*table.key, *([table.version] if table.version else [])):
        if "NOT NULL" not in table.columns[column].upper():
            raise SpecError("TM-SPEC-COLUMN-NULLABLE", value=f"{column}: {table.columns[column]}", place=place)


@lru_cache(maxsize=256)  # every commit needs it
def record_key(ddl: str) -> tuple[str, ...]:
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
    key = set(record_key(pipeline.source.key))
    return tuple(name for name, t in pipeline.tables.items() if t.kind is TableKind.ENTITY and set(t.key) == key)


def _check_retention(place: str, table: Table) -> None:
    if table.retention is None:
        return
    column = table.retention.column
    require_known(f"{place}.column", column, table.columns)
    if not table.columns[column].upper().startswith(("DATE", "TIMESTAMP")):
        raise SpecError("TM-SPEC-RETENTION-NO-TIME", value=f"{column}: {table.columns[column]}", place=place)


def _check_checks(pipeline: Pipeline) -> None:
    names = [check.name for check in pipeline.checks]
    for check in pipeline.checks:
        place = f"checks.{check.name}"
        if names.count(check.name) > 1:
            raise SpecError("TM-SPEC-CHECK-DUPLICATE", value=check.name)
        if check.table is None and len(pipeline.tables) > 1:
            raise SpecError("TM-SPEC-CHECK-NO-TABLE", value=check.expect, place=place, known=", ".join(pipeline.tables))
        if check.table is not None:
            require_known(f"{place}.table", check.table, pipeline.tables)
        table = pipeline.tables[check.table or next(iter(pipeline.tables))]
        parsed = parse_expression(f"{place}.expect", check.expect, "spark")
        for column in parsed.find_all(exp.Column):
            require_known(f"{place}.expect", column.name, table.columns)
        if parsed.find(exp.AggFunc, exp.Window, exp.Subquery, exp.Select):
            raise SpecError("TM-SPEC-CHECK-NOT-ROW-WISE", value=check.expect, place=place)


def _check_dimensions(pipeline: Pipeline) -> None:
    for name, dimension in pipeline.dimensions.items():
        # An absolute path may name any file of the machine; a change of it makes no new version.
        if "://" not in dimension.path and not PurePath(dimension.path).is_absolute():
            _check_inside(f"dimensions.{name}.path", dimension.path)


def _check_inside(place: str, file: str) -> None:
    if not is_versioned(PurePath(file)):
        raise SpecError("TM-SPEC-FILE-NOT-VERSIONED", value=file, place=place)


def _check_transform(place: str, pipeline: Pipeline, table: Table) -> None:
    sql = read_sql(pipeline, f"{place}.from", table.from_)
    transform = parse_transform(sql, table.from_, tuple(pipeline.dimensions))
    missing = [column for column in table.columns if column not in transform.columns]
    extra = [column for column in transform.columns if column not in table.columns]
    if missing:
        raise SpecError("TM-SPEC-TRANSFORM-COLUMN-MISSING", value=", ".join(missing), file=table.from_, place=place)
    if extra:
        raise SpecError("TM-SPEC-TRANSFORM-COLUMN-UNKNOWN", value=", ".join(extra), file=table.from_, place=place)


def read_sql(pipeline: Pipeline, place: str, file: str) -> str:
    """The text of an SQL file that pipeline.yaml names.

    Raises:
        SpecError: there is no such file, or it is no part of the pipeline's version.
    """
    _check_inside(place, file)
    try:
        return pipeline.sql(file)
    except OSError:
        raise SpecError("TM-SPEC-FILE-MISSING", value=pipeline.folder / file, place=place) from None
