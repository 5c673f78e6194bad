"""Checks a pipeline beyond the form of pipeline.yaml: the names that it uses exist, and its SQL is safe to run."""

from __future__ import annotations

from pathlib import PurePath

from sqlglot import exp

from tidemill.errors import SpecError
from tidemill.spec.checks.dimensions import check_dimension, check_joins
from tidemill.spec.checks.functions import check_functions
from tidemill.spec.checks.models import check_model
from tidemill.spec.checks.parsing import parse_expression
from tidemill.spec.checks.rollups import check_group_key, check_group_type, parse_measure
from tidemill.spec.checks.spark_conf import check_conf
from tidemill.spec.checks.tables import check_table
from tidemill.spec.checks.transform import parse_transform
from tidemill.spec.folder import is_versioned
from tidemill.spec.known_names import require_known
from tidemill.spec.schema import Pipeline, Table
from tidemill.spec.tombstones import key_columns


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
        key_columns(pipeline.source.key)
    for name, table in pipeline.tables.items():
        check_table(f"tables.{name}", table)
        _check_transform(f"tables.{name}", pipeline, table)
    _check_checks(pipeline)
    check_conf("resources.conf", pipeline.resources.conf)
    for name, dimension in pipeline.dimensions.items():
        check_dimension(f"dimensions.{name}", dimension)
    for table in pipeline.tables.values():
        check_joins(pipeline.sql(table.from_), table.from_, pipeline)
    for name in pipeline.rollups:
        _check_rollup(pipeline, name)
    return pipeline.with_queries(
        {
            name: check_model(pipeline, name, _read_sql(pipeline, f"models.{name}.features", model.features))
            for name, model in pipeline.models.items()
        }
    )


def _check_transform(place: str, pipeline: Pipeline, table: Table) -> None:
    sql = _read_sql(pipeline, f"{place}.from", table.from_)
    transform = parse_transform(sql, table.from_, tuple(pipeline.dimensions))
    missing = [column for column in table.columns if column not in transform.columns]
    extra = [column for column in transform.columns if column not in table.columns]
    if missing:
        raise SpecError("TM-SPEC-TRANSFORM-COLUMN-MISSING", value=", ".join(missing), file=table.from_, place=place)
    if extra:
        raise SpecError("TM-SPEC-TRANSFORM-COLUMN-UNKNOWN", value=", ".join(extra), file=table.from_, place=place)


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
        check_functions(f"{place}.expect", check.expect, "spark")


def _check_rollup(pipeline: Pipeline, name: str) -> None:
    rollup = pipeline.rollups[name]
    require_known(f"rollups.{name}.of", rollup.of, pipeline.tables)
    if name in pipeline.tables:
        raise SpecError("TM-SPEC-ROLLUP-NAMED-AS-TABLE", value=name)
    columns = pipeline.tables[rollup.of].columns
    for key, grouped in rollup.by.items():
        check_group_key(f"rollups.{name}.by.{key}", grouped.expr, columns)
        check_group_type(f"rollups.{name}.by.{key}", grouped.type)
    for measure, expression in rollup.measures.items():
        parse_measure(f"rollups.{name}.measures.{measure}", expression, columns)


def _check_inside(place: str, file: str) -> None:
    if not is_versioned(PurePath(file)):
        raise SpecError("TM-SPEC-FILE-NOT-VERSIONED", value=file, place=place)


def _read_sql(pipeline: Pipeline, place: str, file: str) -> str:
    """The text of an SQL file that pipeline.yaml names.

    Raises:
        SpecError: there is no such file, or it is no part of the pipeline's version.
    """
    _check_inside(place, file)
    try:
        return pipeline.sql(file)
    except (OSError, ValueError):  # ValueError: the name is none, because it contains a zero byte
        raise SpecError("TM-SPEC-FILE-MISSING", value=pipeline.folder / file, place=place) from None
