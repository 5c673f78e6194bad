"""What pipeline.yaml cannot say by its form alone: that the names it uses exist and the SQL has the right shape."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePath

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tidemill.errors import SpecError
from tidemill.spec.checks.models import check_model
from tidemill.spec.checks.rollups import check_group_key, check_group_type, parse_measure
from tidemill.spec.checks.spark_conf import check_conf
from tidemill.spec.checks.transform import parse_transform
from tidemill.spec.folder import is_versioned
from tidemill.spec.known_names import known
from tidemill.spec.schema import Pipeline, Table, TableKind


def check_pipeline(pipeline: Pipeline) -> Pipeline:
    """Check everything that needs no server, and parse the feature queries of the models.

    Returns:
        The same pipeline; its models have their :attr:`~tidemill.spec.schema.Model.query`.

    Raises:
        SpecError: the first thing that is wrong.
    """
    if not pipeline.tables:
        raise SpecError("a pipeline fills at least one table", value=pipeline.name, remedy="declare it under tables:")
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
        known(f"rollups.{name}.of", rollup.of, pipeline.tables)
        if name in pipeline.tables:
            raise SpecError("a rollup has the name of a table", value=name, remedy="rename one of them")
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
        known(f"{place}.key", column, table.columns)
    for index in table.indexes:
        for column in index:
            known(f"{place}.indexes", column, table.columns)
    reserved = [column for column in table.columns if column.startswith("_")]
    if reserved:
        raise SpecError(
            f"{place}: column names that begin with _ are the platform's", value=reserved[0], remedy="rename it"
        )


_NOT_OF_A_COLUMN = re.compile(r"\b(UNIQUE|PRIMARY|AUTO_INCREMENT|GENERATED|REFERENCES|ON UPDATE)\b", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*'")


def _check_types(place: str, table: Table) -> None:
    for column, declared in table.columns.items():
        if found := _NOT_OF_A_COLUMN.search(_QUOTED.sub("", declared)):
            raise SpecError(
                f"{place}: a column is a name and a type; rows are told apart by key: alone",
                value=f"{column}: {declared}",
                remedy=f"remove {found.group(0)}",
            )
        if declared.upper().startswith("TIMESTAMP") and "NOT NULL" in declared.upper():
            raise SpecError(
                f"{place}: a TIMESTAMP column that is NOT NULL takes the time of the load for NULL",
                value=f"{column}: {declared}",
                remedy="declare it DATETIME(6)",
            )


def _check_version(place: str, name: str, table: Table) -> None:
    if table.kind is TableKind.ENTITY:
        if table.version is None:
            raise SpecError(
                f"{place} is an entity without a version",
                value=name,
                remedy="name the column that rises with each change",
            )
        known(f"{place}.version", table.version, table.columns)
        declared = table.columns[table.version].upper()
        if declared.startswith(("DATETIME", "TIMESTAMP")) and "(6)" not in declared:
            raise SpecError(
                f"{place}.version would lose its fraction of a second",
                value=f"{table.version}: {table.columns[table.version]}",
                remedy="declare it DATETIME(6) NOT NULL",
            )
    elif table.version is not None:
        raise SpecError(
            f"{place} is an event table with a version",
            value=table.version,
            remedy="remove it, or make the table an entity",
        )
    for column in (*table.key, *([table.version] if table.version else [])):
        if "NOT NULL" not in table.columns[column].upper():
            raise SpecError(
                f"{place}: key and version columns hold no NULL",
                value=column,
                remedy=f"write {column}: {table.columns[column]} NOT NULL",
            )


@lru_cache(maxsize=256)  # asked for in every commit
def record_key(ddl: str) -> tuple[str, ...]:
    """The columns that ``source.key`` declares.

    Raises:
        SpecError: it is no list of columns.
    """
    try:
        parsed = sqlglot.parse_one(f"CREATE TABLE k ({ddl})", dialect="spark")
    except SqlglotError:
        parsed = None
    columns = tuple(found.name for found in parsed.find_all(exp.ColumnDef)) if parsed else ()
    if not columns:
        raise SpecError("source.key is no list of columns", value=ddl, remedy="write, say: id BIGINT")
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
    known(f"{place}.column", column, table.columns)
    if not table.columns[column].upper().startswith(("DATE", "TIMESTAMP")):
        raise SpecError(
            f"{place}.column holds no time", value=f"{column}: {table.columns[column]}", remedy="name a DATETIME column"
        )


def _check_checks(pipeline: Pipeline) -> None:
    names = [check.name for check in pipeline.checks]
    for check in pipeline.checks:
        place = f"checks.{check.name}"
        if names.count(check.name) > 1:
            raise SpecError("two checks have one name", value=check.name, remedy="rename one of them")
        if check.table is None and len(pipeline.tables) > 1:
            raise SpecError(
                f"{place} names no table", value=check.expect, remedy=f"one of: {', '.join(pipeline.tables)}"
            )
        if check.table is not None:
            known(f"{place}.table", check.table, pipeline.tables)
        table = pipeline.tables[check.table or next(iter(pipeline.tables))]
        try:
            parsed = sqlglot.parse_one(check.expect, dialect="spark")
        except SqlglotError as error:
            raise SpecError(
                f"{place}.expect cannot be parsed", value=" ".join(str(error).split())[:200], remedy="mend it"
            ) from None
        for column in parsed.find_all(exp.Column):
            known(f"{place}.expect", column.name, table.columns)
        if parsed.find(exp.AggFunc, exp.Window, exp.Subquery, exp.Select):
            raise SpecError(
                f"{place}.expect is not about one row", value=check.expect, remedy="compare its columns only"
            )


def _check_dimensions(pipeline: Pipeline) -> None:
    for name, dimension in pipeline.dimensions.items():
        # Elsewhere on the machine a file may be, by its whole name; changing it makes no version.
        if "://" not in dimension.path and not PurePath(dimension.path).is_absolute():
            _check_inside(f"dimensions.{name}.path", dimension.path)


def _check_inside(place: str, file: str) -> None:
    if not is_versioned(PurePath(file)):
        raise SpecError(
            f"{place} names a file that is no part of the pipeline's folder",
            value=file,
            remedy="put it inside, not hidden and not below cases/: what runs is a copy of the folder",
        )


def _check_transform(place: str, pipeline: Pipeline, table: Table) -> None:
    sql = read_sql(pipeline, f"{place}.from", table.from_)
    transform = parse_transform(sql, table.from_, tuple(pipeline.dimensions))
    missing = [column for column in table.columns if column not in transform.columns]
    extra = [column for column in transform.columns if column not in table.columns]
    if missing or extra:
        what, names = ("does not select", missing) if missing else ("selects what the table has not", extra)
        raise SpecError(
            f"{table.from_} {what}", value=", ".join(names), remedy=f"select exactly the columns of {place}"
        )


def read_sql(pipeline: Pipeline, place: str, file: str) -> str:
    """The text of an SQL file named in pipeline.yaml."""
    _check_inside(place, file)
    try:
        return pipeline.sql(file)
    except OSError:
        raise SpecError(
            f"{place} names a file that is not there",
            value=pipeline.folder / file,
            remedy="write it, or correct the name",
        ) from None
