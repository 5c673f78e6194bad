"""Kafka records -> the columns of the pipeline's schema, the record's coordinates and ``_error``."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from tidemill.spec.schema import Source

COORDINATES = ("_partition", "_offset", "_timestamp", "_error", "_key", "_value", "_headers", "_value_bytes")
"""Columns that every record has beside its own: its coordinates in Kafka, and its original bytes."""
TOMBSTONE_KEY = "_tombstone_key"
"""The key that a tombstone deletes, as a struct; NULL for every other record."""
KEPT_BYTES = 65_536
"""How many bytes of a value over the limit the quarantine keeps."""
_CORRUPT = "_corrupt"


def decode(raw: DataFrame, source: Source) -> DataFrame:
    """Decode the rows of a Kafka source.

    A record that is not a JSON object of the schema stays a row: its columns are NULL, and ``_error`` is the reason.

    Args:
        raw: columns of Spark's Kafka source, headers included.
        source: with the schema.

    Returns:
        The schema's columns, the coordinates, and ``_tombstone_key``.
    """
    schema = StructType([*struct_of(source.schema_ddl).fields, StructField(_CORRUPT, StringType())])
    size = F.length("value")
    text = F.when(size <= source.max_record_bytes, F.col("value").cast("string"))
    record = F.from_json(text, schema, {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _CORRUPT})
    parsed = raw.select(
        record.alias("record"),
        F.is_valid_utf8(text).alias("valid"),
        _tombstone_key(source).alias(TOMBSTONE_KEY),
        *("key", "value", "partition", "offset", "timestamp", "headers"),
    )
    corrupt = F.col(f"record.{_CORRUPT}").isNotNull() | F.col("record").isNull()
    error = (
        F.when(F.col("value").isNull(), _tombstone_error(source))
        .when(F.length("value") == 0, "the value is empty")
        .when(
            F.length("value") > source.max_record_bytes,
            F.concat(F.lit("the value has "), F.length("value"), F.lit(f" bytes, over {source.max_record_bytes}")),
        )
        .when(~F.col("valid"), "the value is not UTF-8")
        .when(corrupt, "the value is not a JSON object of the schema")
    )
    return parsed.select(
        *(F.col(f"record.{field.name}").alias(field.name) for field in schema.fields[:-1]),
        F.col("partition").alias("_partition"),
        F.col("offset").alias("_offset"),
        F.col("timestamp").alias("_timestamp"),
        error.alias("_error"),
        F.col("key").alias("_key"),
        F.when(F.length("value") <= source.max_record_bytes, F.col("value"))
        .otherwise(F.substring("value", 1, KEPT_BYTES))
        .alias("_value"),
        F.col("headers").alias("_headers"),
        F.length("value").cast("bigint").alias("_value_bytes"),
        TOMBSTONE_KEY,
    )


def struct_of(ddl: str) -> StructType:
    """The columns that a piece of Spark's DDL declares."""
    declared = StructType.fromDDL(ddl)
    assert isinstance(declared, StructType)  # fromDDL of a column list
    return declared


def _tombstone_key(source: Source) -> Column:
    """The key of a tombstone; NULL where the record is none, or where its key does not have every column."""
    if source.key is None:
        return F.lit(None).cast("string")
    declared = struct_of(source.key)
    text = F.when(F.col("value").isNull(), F.col("key").cast("string"))
    parsed = F.from_json(text, declared, {"mode": "PERMISSIVE"})
    columns = {field.name: parsed.getField(field.name) for field in declared.fields}
    if len(columns) == 1:
        (field,) = declared.fields
        columns[field.name] = F.coalesce(columns[field.name], text.try_cast(field.dataType))
    is_complete = F.lit(True)
    for column in columns.values():
        is_complete = is_complete & column.isNotNull()
    return F.when(is_complete, F.struct(*(column.alias(name) for name, column in columns.items())))


def _tombstone_error(source: Source) -> Column:
    """Why a tombstone deletes nothing; NULL if it does."""
    if source.key is None:
        return F.lit("the record has no value (a tombstone), and source.key does not declare what it deletes")
    return F.when(
        F.col(TOMBSTONE_KEY).isNull(), f"the record has no value (a tombstone), and its key is not {source.key}"
    )
