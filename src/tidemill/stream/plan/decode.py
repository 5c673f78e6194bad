"""Kafka records -> the columns of the pipeline's schema, the record's coordinates and ``_error``."""

from __future__ import annotations

import json
import re
from functools import lru_cache, reduce
from operator import or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType, VariantType

from tidemill.spec.schema import Source
from tidemill.stream.plan import json_values

COORDINATES = ("_partition", "_offset", "_timestamp", "_error", "_key", "_value", "_headers", "_value_bytes")
"""Columns that every record has beside its own: its coordinates in Kafka, and its original bytes."""
TOMBSTONE_KEY = "_tombstone_key"
"""The key that a tombstone deletes, as a struct; NULL for every other record."""
KEPT_BYTES = 65_536
"""How many bytes of a value over the limit the quarantine keeps."""
LEVELS, DIGITS = 500, 400
"""The most levels of nesting, and digits of a number, of a JSON text that is read."""
_SHOWN = 60
"""Characters of a value that a reason shows."""


def decode(raw: DataFrame, source: Source) -> DataFrame:
    """Decode the rows of a Kafka source.

    A record that is not a JSON object of the schema stays a row, and ``_error`` is the reason: it names the field.

    Args:
        raw: columns of Spark's Kafka source, headers included.
        source: with the schema.

    Returns:
        The schema's columns, the coordinates, and ``_tombstone_key``; the names of the latter two are those of
        :func:`platform_name`.
    """
    schema = struct_of(source.schema_ddl)
    _distinguish_names(raw, schema)
    size = F.length("value")
    # Not a column: it would be copied from step to step.
    text = F.when(size <= source.max_record_bytes, F.col("value").cast("string"))
    records = _parsed(raw, schema, text, _tombstone_key(source))
    error = F.coalesce(_error(source, text), _content_error(schema, text))
    is_short = size <= source.max_record_bytes
    coordinates = {
        "_partition": F.col("partition"),
        "_offset": F.col("offset"),
        "_timestamp": F.col("timestamp"),
        "_error": error,
        "_key": F.col("key"),
        "_value": F.when(is_short, F.col("value")).otherwise(F.substring("value", 1, KEPT_BYTES)),
        "_headers": F.col("headers"),
        "_value_bytes": size.cast("bigint"),
        TOMBSTONE_KEY: F.col(TOMBSTONE_KEY),
    }
    return records.select(
        *(F.col(f"value{number}").alias(name) for number, name in enumerate(schema.names)),
        *(column.alias(platform_name(source, name)) for name, column in coordinates.items()),
    )


def platform_name(source: Source, name: str) -> str:
    """The name of a column of Tidemill's among the fields of a record; longer if a field has its name."""
    return _prefix(source.schema_ddl) + name


@lru_cache(maxsize=256)
def _prefix(schema_ddl: str) -> str:
    own = re.compile("(_*)(?:" + "|".join([*COORDINATES, TOMBSTONE_KEY, r"_table_\d+"]) + ")", re.IGNORECASE)
    taken = [match[1] for field in struct_of(schema_ddl).names if (match := own.fullmatch(field))]
    return "_" * (1 + max(map(len, taken))) if taken else ""


def struct_of(ddl: str) -> StructType:
    """The columns that a piece of Spark's DDL declares."""
    declared = StructType.fromDDL(ddl)
    assert isinstance(declared, StructType)  # fromDDL of a column list
    return declared


def _distinguish_names(raw: DataFrame, schema: StructType) -> None:
    """Let Spark distinguish names that differ only in capital letters, if there are such fields."""
    differ = len({name.lower() for name in schema.names}) < len(schema.names)
    raw.sparkSession.conf.set("spark.sql.caseSensitive", str(differ).lower())


def _read_json(text: Column, fields: list[StructField]) -> tuple[Column, str]:
    """A JSON object as a struct, and the name of its field that is the text if it is not of these types."""
    corrupt = "_corrupt"
    while corrupt in {field.name.lower() for field in fields}:
        corrupt = f"_{corrupt}"
    options = {
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": corrupt,
        "allowNonNumericNumbers": "false",
        "maxNestingDepth": str(LEVELS),
        "maxNumLen": str(DIGITS),
    }
    return F.from_json(text, StructType([*fields, StructField(corrupt, StringType())]), options), corrupt


def _parsed(raw: DataFrame, schema: StructType, text: Column, tombstone_key: Column) -> DataFrame:
    """The records with a column ``value<n>`` for each field, and what :func:`_content_error` asks for.

    ``wrong<n>``: whether the field may have another value than the record. ``is_corrupt``: whether a value has another
    type. ``tokens``: the fields as VARIANT, only where one of them is in doubt.
    """
    carried = ["key", "value", "partition", "offset", "timestamp", "headers", TOMBSTONE_KEY]
    fields = [StructField(field.name, json_values.parsed_type(field.dataType)) for field in schema.fields]
    record, corrupt = _read_json(text, fields)
    parsed = raw.select(record.alias("record"), *carried[:-1], tombstone_key.alias(TOMBSTONE_KEY))
    parts, values, wrong = [], [], {}
    for number, field in enumerate(schema.fields):
        part, name = F.col("record").getField(field.name), f"value{number}"
        values.append(json_values.value_of(part, field.dataType, text).alias(name))
        if isinstance(field.dataType, StringType):
            wrong[f"wrong{number}"] = json_values.may_be_rewritten(F.col(name), text)
        elif fields[number].dataType != field.dataType:
            parts.append(part.alias(f"part{number}"))
            wrong[f"wrong{number}"] = json_values.is_wrong(F.col(f"part{number}"), F.col(name), field.dataType)
    is_corrupt = F.col("record").getField(corrupt).isNotNull() | F.col("record").isNull()
    carried += ["is_corrupt", *(f"value{number}" for number in range(len(fields)))]
    judged = parsed.select(*carried[: -len(fields) - 1], is_corrupt.alias("is_corrupt"), *values, *parts)
    judged = judged.select(*carried, *(F.coalesce(each, F.lit(False)).alias(name) for name, each in wrong.items()))
    in_doubt = reduce(or_, [F.col("is_corrupt"), *(F.col(name) for name in wrong)])
    variants, _ = _read_json(text, [StructField(field.name, VariantType()) for field in schema.fields])
    return judged.select("*", F.when(in_doubt, variants).alias("tokens"))


def _error(source: Source, text: Column) -> Column:
    """Why a value is not even read; NULL if it is."""
    too_long = F.concat(F.lit("the value has "), F.length("value"), F.lit(f" bytes, over {source.max_record_bytes}"))
    return (
        F.when(F.col("value").isNull(), _tombstone_error(source))
        .when(F.length("value") == 0, "the value is empty")
        .when(F.length("value") > source.max_record_bytes, too_long)
        .when(~F.is_valid_utf8(text), "the value is not UTF-8")
        .when(
            json_values.has_lone_surrogate(text),
            "the value has an escape of half a character (a surrogate without its other half)",
        )
    )


def _content_error(schema: StructType, text: Column) -> Column:
    """The first field of which the record has another value, with that value and what was expected; NULL if none."""
    reasons = []
    for number, field in enumerate(schema.fields):
        token, value = F.col("tokens").getField(field.name), F.col(f"value{number}")
        kind = F.coalesce(F.schema_of_variant(token), F.lit("nothing"))
        if isinstance(field.dataType, StringType):
            is_wrong = F.col(f"wrong{number}") & (kind != "STRING")
        else:
            is_wrong = token.isNotNull() & (kind != "VOID") & value.isNull()
            if json_values.parsed_type(field.dataType) != field.dataType:
                is_wrong = is_wrong | F.col(f"wrong{number}")
        shown = F.left(
            F.coalesce(_source_of(text, field.name, kind), F.to_json(token), F.lit("a value")), F.lit(_SHOWN)
        )
        expected = F.lit(f", expected {json_values.expected(field.dataType)}")
        reasons.append(F.when(is_wrong, F.concat(F.lit(f"field {field.name}: "), shown, expected)))
    kind = F.regexp_extract(F.schema_of_variant(F.try_parse_json(text)), r"\A\w+", 0)
    beyond = f"is not JSON, or has over {LEVELS} levels of nesting, or a number of over {DIGITS} digits"
    reasons.append(
        F.when(~F.col("is_corrupt"), None)
        .when(kind != "OBJECT", F.concat(F.lit("the value is a JSON "), kind, F.lit(", expected an object")))
        .otherwise(f"the value {beyond}")
    )
    # Only of the few records that are in doubt it is determined what they hold.
    is_in_doubt = text.isNotNull() & (F.col("tokens").isNotNull() | F.col("is_corrupt"))
    # A lambda is interpreted: compiled, the reasons would make a method that is too large to be compiled further, and
    # records without a fault would take twice as long.
    first = F.filter(F.array(*reasons), lambda reason: reason.isNotNull())
    return F.when(is_in_doubt, F.get(first, F.lit(0)))


def _source_of(text: Column, field: str, kind: Column) -> Column:
    """A number as it is written in the record, as far as it can be found by the name of its field; else NULL."""
    name = json.dumps(field, ensure_ascii=False).replace("\\E", "\\E\\\\E\\Q")
    found = F.regexp_extract(text, rf"\Q{name}\E\s*:\s*(-?[0-9][-+.0-9eE]*)", 1)
    return F.when(F.regexp_like(kind, F.lit("BIGINT|DECIMAL|DOUBLE")) & (found != ""), found)


def _tombstone_key(source: Source) -> Column:
    """The key of a tombstone; NULL where the record is none, or where its key does not have every column."""
    if source.key is None:
        return F.lit(None).cast("string")
    declared = struct_of(source.key)
    text = F.when(F.col("value").isNull() & F.is_valid_utf8("key"), F.col("key").cast("string"))
    text = F.when(~json_values.has_lone_surrogate(text), text)
    kinds = [StructField(field.name, json_values.parsed_type(field.dataType, nested=True)) for field in declared.fields]
    record, corrupt = _read_json(text, kinds)
    columns = {
        field.name: F.when(
            record.getField(corrupt).isNull(),
            json_values.value_of(record.getField(field.name), field.dataType, text, nested=True),
        )
        for field in declared.fields
    }
    if len(columns) == 1:
        (field,) = declared.fields
        plain = json_values.from_plain_text(_unquoted(text), field.dataType)
        columns[field.name] = F.when(text.startswith("{"), columns[field.name]).otherwise(plain)
    is_complete = reduce(lambda found, column: found & column.isNotNull(), columns.values(), F.lit(True))
    return F.when(is_complete, F.struct(*(column.alias(name) for name, column in columns.items())))


def _unquoted(text: Column) -> Column:
    """The text that a JSON string means; any other text as it is. NULL if a quotation mark begins no JSON string."""
    is_string = text.rlike(r'\A\s*+"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+\z')
    meant = F.try_variant_get(F.try_parse_json(text), "$", "string")
    return F.when(text.rlike(r'\A\s*+"'), F.when(is_string, meant)).otherwise(text)


def _tombstone_error(source: Source) -> Column:
    """Why a tombstone deletes nothing; NULL if it does."""
    if source.key is None:
        return F.lit("the record has no value (a tombstone), and source.key does not declare what it deletes")
    return F.when(
        F.col(TOMBSTONE_KEY).isNull(), f"the record has no value (a tombstone), and its key is not {source.key}"
    )
