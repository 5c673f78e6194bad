"""The transforms of a pipeline over decoded records and dimensions, and the reasons why a table would reject a row."""

from __future__ import annotations

from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from tidemill.spec.checks.transform import KEPT, RECORD, RECORDS, parse_transform
from tidemill.spec.column_types import parse_column_type
from tidemill.spec.schema import Otherwise, Pipeline
from tidemill.spec.tombstones import deletes_from
from tidemill.stream.plan.decode import COORDINATES, TOMBSTONE_KEY, platform_name, struct_of
from tidemill.stream.plan.fits import compared_value, fitted

_MISFIT = "_misfit"
WARNED, FAILED = "_warned", "_failed"
"""Prefixes of a column for each check that only warns, and for each that ends the stream: true where it is not met."""


def column_of(table: str, column: str) -> str:
    """Name of a table's column among those of all tables. It has no dot, which Spark would take for a field."""
    return f"{table}:{column}"


def transform(spark: SparkSession, records: DataFrame, pipeline: Pipeline) -> DataFrame:
    """Run the tables' transforms over decoded records, row by row: one record in, one record out.

    Returns:
        For each table its columns and ``_kept``, named by :func:`column_of`; the coordinates; the key that a tombstone
        deletes as ``_tombstone_key``; a column for each check that warns or fails. ``_error`` is set for every record
        that cannot become a row of all the tables that it is meant for; the bytes are there for those only.
    """
    frame = records
    for number, (name, table) in enumerate(pipeline.tables.items()):
        frame.createOrReplaceTempView(RECORDS)
        parsed = parse_transform(pipeline.sql(table.from_), table.from_, tuple(pipeline.dimensions))
        selected = spark.sql(parsed.sql)
        values, misfit = fitted(selected, table)
        rows = selected.withColumns({**values, _MISFIT: misfit})
        checks = {check: ~F.expr(check.expect) for check in pipeline.checks_of(name)}
        unmet = [
            F.when(failed, F.lit(f"check {check.name}: expected {check.expect}"))
            for check, failed in checks.items()
            if check.otherwise is Otherwise.QUARANTINE
        ]
        prepared = F.struct(
            *table.columns,
            KEPT,
            F.coalesce(F.col(_MISFIT), *unmet).alias("_rejected"),
            *(F.coalesce(failed, F.lit(False)).alias(f"check {check.name}") for check, failed in checks.items()),
        )
        frame = rows.select(f"{RECORD}.*", prepared.alias(platform_name(pipeline.source, f"_table_{number}")))
    own = [*COORDINATES, TOMBSTONE_KEY, *(f"_table_{number}" for number in range(len(pipeline.tables)))]
    return _flat(frame.select(*(F.col(platform_name(pipeline.source, name)).alias(name) for name in own)), pipeline)


def _flat(frame: DataFrame, pipeline: Pipeline) -> DataFrame:
    is_record = F.col("_error").isNull() & F.col("_value_bytes").isNotNull()
    rejections, tables, checks = [], [], []
    for number, (name, table) in enumerate(pipeline.tables.items()):
        here = F.col(f"_table_{number}")
        rejections.append(F.when(is_record & here.getField(KEPT), here.getField("_rejected")))
        tables += [here.getField(column).alias(column_of(name, column)) for column in table.columns]
        tables.append((is_record & here.getField(KEPT)).alias(column_of(name, KEPT)))
        for check in pipeline.checks_of(name):
            prefix = {Otherwise.WARN: WARNED, Otherwise.FAIL: FAILED}.get(check.otherwise)
            if prefix:
                unmet = is_record & here.getField(KEPT) & here.getField(f"check {check.name}")
                checks.append(unmet.alias(column_of(prefix, check.name)))
    error = F.coalesce(F.col("_error"), *rejections, _tombstone_error(pipeline))
    flat = frame.select(
        *tables,
        *checks,
        *_tombstone_columns(pipeline),
        *(c for c in COORDINATES if c != "_error"),
        error.alias("_error"),
    )
    rejected = F.col("_error").isNotNull()
    carried = {name: F.when(rejected, F.col(name)) for name in ("_key", "_value", "_value_bytes")}
    # As text, bytes in base64: an array of structs costs every record its place in Arrow, even where it is NULL.
    carried["_headers"] = F.when(rejected, F.to_json("_headers"))
    return flat.withColumns(carried)


def _tombstone_error(pipeline: Pipeline) -> Column:
    """Why a tombstone whose key could be parsed deletes nothing all the same; NULL if it does."""
    if pipeline.source.key is None:
        return F.lit(None).cast("string")
    if columns := _tombstone_columns(pipeline):
        is_misfit = reduce(or_, [column.isNull() for column in columns])
        reason = "the record has no value (a tombstone), and its key does not fit the key of the table"
        return F.when(F.col(TOMBSTONE_KEY).isNotNull() & is_misfit, reason)
    reason = f"the record has no value (a tombstone), and no entity has the key {pipeline.source.key}"
    return F.when(F.col(TOMBSTONE_KEY).isNotNull(), reason)


def _tombstone_columns(pipeline: Pipeline) -> list[Column]:
    """The key that a tombstone deletes, column by column, in the types of the tables that hold it."""
    tables = deletes_from(pipeline)
    if not tables:
        return []
    table = pipeline.tables[tables[0]]
    types = struct_of(str(pipeline.source.key))
    tombstone_key = F.col(TOMBSTONE_KEY)
    keys = {
        name: compared_value(tombstone_key.getField(name), types[name].dataType, parse_column_type(table.columns[name]))
        for name in table.key
    }
    return [column.alias(column_of(TOMBSTONE_KEY, name)) for name, column in keys.items()]
