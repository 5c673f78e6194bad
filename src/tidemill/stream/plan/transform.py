"""The author's SELECTs over decoded records and dimensions, and what the tables will not take."""

from __future__ import annotations

import re
from functools import reduce
from importlib.util import find_spec
from operator import or_
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, NumericType

from tidemill.errors import SpecError
from tidemill.spec.checks.transform import KEPT, RECORD, RECORDS, parse_transform
from tidemill.spec.schema import Dimension, Otherwise, Pipeline, Table
from tidemill.spec.tombstones import deletes_from
from tidemill.stream.plan.decode import COORDINATES, GONE, struct_of

_PACKAGE = "package://"
_DECIMAL = re.compile(r"(DECIMAL|NUMERIC)\(\d+, ?\d+\)")
_UNFIT = "_unfit"
WARNED, FAILED = "_warned", "_failed"
"""Prefixes of a column for each check that only warns, and for each that ends the stream: true where it is not met."""


def dimension_path(pipeline: Pipeline, path: str) -> Path:
    """Where a dimension's file is.

    Raises:
        SpecError: there is no such file.
    """
    if path.startswith(_PACKAGE):
        package, _, inside = path.removeprefix(_PACKAGE).partition("/")
        found = find_spec(package)  # found, not imported: the package may hold data and code that no longer runs
        base = Path(found.origin).parent if found and found.origin else Path(package)
    else:
        base, inside = pipeline.folder, path
    resolved = base / inside
    if not resolved.exists():
        raise SpecError("a dimension's file is not there", value=path, remedy=f"looked for {resolved}")
    return resolved


def register_dimensions(spark: SparkSession, pipeline: Pipeline) -> None:
    """Read every dimension once, check its key, and register it as a view to be broadcast.

    Raises:
        SpecError: a key is not unique, so that a join would multiply records.
    """
    for name, dimension in pipeline.dimensions.items():
        frame = _read(spark, pipeline, dimension).cache()
        twice = frame.groupBy(*dimension.key).count().where("count > 1").head()
        if twice is not None:
            key = ", ".join(str(twice[column]) for column in dimension.key)
            raise SpecError(
                f"dimension {name} has a key twice",
                value=f"{', '.join(dimension.key)} = {key}",
                remedy="make the key unique",
            )
        F.broadcast(frame).createOrReplaceTempView(name)


def _read(spark: SparkSession, pipeline: Pipeline, dimension: Dimension) -> DataFrame:
    reader = spark.read.option("header", True).option("inferSchema", True).option("nullValue", dimension.nulls)
    path = dimension_path(pipeline, dimension.path)
    if str(spark.sparkContext.master).startswith("local"):
        return reader.csv(str(path)).coalesce(1)
    # Executors have other disks, and a bare path may mean another file system: the driver reads it for all.
    with path.open(encoding="utf-8-sig") as lines:
        text = [(line.rstrip("\n"),) for line in lines]
    return reader.csv(spark.createDataFrame(text, "value STRING")).coalesce(1)


def column_of(table: str, column: str) -> str:
    """Name of one table's column among those of all tables. No dot: Spark would look for a field of a struct."""
    return f"{table}:{column}"


def transform(spark: SparkSession, records: DataFrame, pipeline: Pipeline) -> DataFrame:
    """Run the tables' transforms over decoded records, row by row: one record in, one record out.

    Returns:
        For each table its columns and ``_kept``, named by :func:`column_of`; the coordinates; the key that a tombstone
        deletes as ``_gone``; a column for each check that warns or fails. ``_error`` is set for every record
        that cannot become a row of all the tables that it is meant for; the bytes are there for those only.
    """
    frame = records
    for number, (name, table) in enumerate(pipeline.tables.items()):
        frame.createOrReplaceTempView(RECORDS)
        parsed = parse_transform(pipeline.sql(table.from_), table.from_, tuple(pipeline.dimensions))
        rows = _typed(spark.sql(parsed.sql), table)
        checks = {check: ~F.expr(check.expect) for check in pipeline.checks_of(name)}
        unmet = [
            F.when(failed, F.lit(f"check {check.name}: expected {check.expect}"))
            for check, failed in checks.items()
            if check.otherwise is Otherwise.QUARANTINE
        ]
        settled = F.struct(
            *table.columns,
            KEPT,
            F.coalesce(_refusal(table), *unmet).alias("_refused"),
            *(F.coalesce(failed, F.lit(False)).alias(f"check {check.name}") for check, failed in checks.items()),
        )
        frame = rows.select(f"{RECORD}.*", settled.alias(f"_table_{number}"))
    return _flat(frame, pipeline)


def _flat(frame: DataFrame, pipeline: Pipeline) -> DataFrame:
    is_record = F.col("_error").isNull() & F.col("_value_bytes").isNotNull()
    refusals, tables, checks = [], [], []
    for number, (name, table) in enumerate(pipeline.tables.items()):
        here = F.col(f"_table_{number}")
        refusals.append(F.when(is_record & here.getField(KEPT), here.getField("_refused")))
        tables += [here.getField(column).alias(column_of(name, column)) for column in table.columns]
        tables.append((is_record & here.getField(KEPT)).alias(column_of(name, KEPT)))
        for check in pipeline.checks_of(name):
            prefix = {Otherwise.WARN: WARNED, Otherwise.FAIL: FAILED}.get(check.otherwise)
            if prefix:
                unmet = is_record & here.getField(KEPT) & here.getField(f"check {check.name}")
                checks.append(unmet.alias(column_of(prefix, check.name)))
    error = F.coalesce(F.col("_error"), *refusals, _undeletable(pipeline))
    flat = frame.select(
        *tables, *checks, *_gone(pipeline), *(c for c in COORDINATES if c != "_error"), error.alias("_error")
    )
    rejected = F.col("_error").isNotNull()
    carried = {name: F.when(rejected, F.col(name)) for name in ("_key", "_value", "_value_bytes")}
    # As text, bytes in base64: an array of structs costs every record its place in Arrow, even where it is NULL.
    carried["_headers"] = F.when(rejected, F.to_json("_headers"))
    return flat.withColumns(carried)


def _undeletable(pipeline: Pipeline) -> Column:
    """Why a tombstone whose key could be read deletes nothing all the same; NULL if it does."""
    if pipeline.source.key is None:
        return F.lit(None).cast("string")
    if columns := _gone(pipeline):
        unfit = reduce(or_, [column.isNull() for column in columns])
        reason = "the record has no value (a tombstone), and its key does not fit the key of the table"
        return F.when(F.col(GONE).isNotNull() & unfit, reason)
    reason = f"the record has no value (a tombstone), and no entity has the key {pipeline.source.key}"
    return F.when(F.col(GONE).isNotNull(), reason)


def _gone(pipeline: Pipeline) -> list[Column]:
    """The key that a tombstone deletes, column by column, in the types of the tables that hold it."""
    tables = deletes_from(pipeline)
    if not tables:
        return []
    table = pipeline.tables[tables[0]]
    types = struct_of(str(pipeline.source.key))
    return [
        _cast(F.col(GONE).getField(c), types[c].dataType, table.columns[c]).alias(column_of(GONE, c)) for c in table.key
    ]


_SPARK_TYPES = (
    ("BIGINT UNSIGNED", "decimal(20,0)"),
    ("INT UNSIGNED", "bigint"),
    ("MEDIUMINT", "int"),
    ("SMALLINT UNSIGNED", "int"),
    ("TINYINT UNSIGNED", "smallint"),
    ("BIGINT", "bigint"),
    ("INT", "int"),
    ("INTEGER", "int"),
    ("SMALLINT", "smallint"),
    ("TINYINT", "tinyint"),
    ("DATETIME", "timestamp"),
    ("TIMESTAMP", "timestamp"),
    ("DATE", "date"),
    ("DOUBLE", "double"),
    ("FLOAT", "float"),
    ("VARCHAR", "string"),
    ("CHAR", "string"),
)


def _compared(table: Table) -> list[str]:
    """Key and version: which of two rows is newer must not depend on who compares."""
    return sorted({*table.key, *([table.version] if table.version else [])})


def _typed(rows: DataFrame, table: Table) -> DataFrame:
    """Key and version in the types of their columns; NULL where the value is none of the type, with the reason.

    A cast without ANSI would wrap a number that is out of range to another one, which may be somebody else's key.
    """
    typed = {name: _cast(F.col(name), rows.schema[name].dataType, table.columns[name]) for name in _compared(table)}
    unfit = [
        F.when(F.col(name).isNotNull() & column.isNull(), F.lit(f"column {name} does not fit {table.columns[name]}"))
        for name, column in typed.items()
    ]
    return rows.withColumns({**typed, _UNFIT: F.coalesce(*unfit)})


def _cast(column: Column, given: DataType, declared: str) -> Column:
    kind = _spark_type(declared)
    if kind is None or given.simpleString() == kind:
        return column
    cast = column.try_cast(kind)
    if isinstance(given, NumericType) and kind not in ("double", "float", "string"):
        # try_cast refuses what is out of range, and still cuts a fraction off.
        return F.when(cast == column, cast)
    return cast


def _spark_type(declared: str) -> str | None:
    declared = declared.upper()
    if found := _DECIMAL.match(declared):
        return found.group(0).replace("NUMERIC", "DECIMAL").lower()
    words = declared.replace("(", " ").split()
    named = f"{words[0]} UNSIGNED" if "UNSIGNED" in words else words[0]
    return next((kind for prefix, kind in _SPARK_TYPES if prefix in (named, words[0])), None)


def _refusal(table: Table) -> Column:
    """Why the table would refuse the row, as far as NULL goes; NULL if it would not."""
    required = [name for name, kind in table.columns.items() if "NOT NULL" in kind.upper()]
    reasons = [F.when(F.col(name).isNull(), F.lit(f"column {name} is NULL")) for name in required]
    return F.coalesce(F.col(_UNFIT), *reasons)
