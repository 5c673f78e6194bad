"""Whether the values of a transform fit the columns of their table.

Keys and versions are cast to the types of their columns, so that Spark, Arrow and the database agree which values are
equal and which is the greater one. For every other column it is determined whether the database would keep the value:
it takes the text ``2`` for the second label of an ENUM, ``5`` for the year 2005 and ``1030`` for half past ten minutes.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    NullType,
    NumericType,
    StringType,
    TimestampNTZType,
    TimestampType,
)

from tidemill.spec.column_types import INTEGERS, ColumnType, parse_column_type
from tidemill.spec.schema import Table
from tidemill.stream.plan import iso, json_values

_SHOWN = 60
"""Characters of a value that a reason shows."""
_DECIMAL_DIGITS = 38
"""The most digits of a DECIMAL of Spark."""
_INTEGER_TYPES = {"TINYINT": "tinyint", "SMALLINT": "smallint", "MEDIUMINT": "int", "INT": "int", "BIGINT": "bigint"}
_UNSIGNED_TYPES = {"TINYINT": "smallint", "SMALLINT": "int", "INT": "bigint", "BIGINT": "decimal(20,0)"}
_TEXTS = ("CHAR", "VARCHAR", "NATIONAL CHAR", "NATIONAL VARCHAR")
_INSTANT_DIGITS = 6
"""Digits of the fraction of a second that an instant of Spark has."""
_TIMES = ("DATE", "TIME", "DATETIME", "TIMESTAMP", "YEAR")
_YEAR = r"\A(?:19|20|21)[0-9]{2}\z"
_TIME_OF_DAY = r"\A-?[0-9]{1,3}:[0-5][0-9](?::[0-5][0-9](?:\.[0-9]+)?)?\z"


def fitted(rows: DataFrame, table: Table) -> tuple[dict[str, Column], Column]:
    """The columns of a table as they are written, and why the table would reject the row.

    Args:
        rows: with the table's columns.
        table: that the rows are written to.

    Returns:
        Name -> value, NULL where it does not fit; and the reason, NULL if every value fits and no required one is NULL.
    """
    compared = {*table.key, table.version}
    values, reasons, missing = {}, [], []
    for name, declared in table.columns.items():
        parsed, column, actual = parse_column_type(declared), F.col(name), rows.schema[name].dataType
        values[name] = (
            compared_value(column, actual, parsed) if name in compared else _kept_value(column, actual, parsed)
        )
        if values[name] is not column:
            shown = F.coalesce(F.left(column.cast("string"), F.lit(_SHOWN)), F.lit("the value"))
            reason = F.concat(F.lit(f"column {name}: "), shown, F.lit(f" does not fit {declared}"))
            reasons.append(F.when(column.isNotNull() & values[name].isNull(), reason))
        if not parsed.nullable:
            missing.append(F.when(column.isNull(), F.lit(f"column {name} is NULL")))
    return values, F.coalesce(F.lit(None).cast("string"), *reasons, *missing)


def compared_value(column: Column, actual: DataType, declared: ColumnType) -> Column:
    """The value of a key or a version in the type of its column; NULL where it has none there.

    A cast without ANSI would wrap a number that is out of range to another one, which may be the key of another row.
    """
    if declared.kind in INTEGERS or declared.kind == "DECIMAL":
        return _number(column, actual, declared)
    if declared.kind in ("DATE", "DATETIME"):
        return _instant(column, actual, declared)
    if declared.kind == "VARBINARY":
        return column if isinstance(actual, StringType | BinaryType) else column.try_cast("string")
    return _text(column if isinstance(actual, StringType) else column.try_cast("string"), declared)


def _number(column: Column, actual: DataType, declared: ColumnType) -> Column:
    if not isinstance(actual, NumericType | StringType | BooleanType | NullType):
        return _none("string")
    if declared.kind == "DECIMAL":
        digits, scale = declared.size
        if isinstance(actual, StringType):
            return json_values.decimal_of(column, DecimalType(digits, scale))
        kind = f"decimal({digits},{scale})"
    else:
        kind = (_UNSIGNED_TYPES if declared.unsigned else _INTEGER_TYPES).get(declared.kind, "int")
        if isinstance(actual, StringType):
            return json_values.integer_of(column, kind)
    if actual.simpleString() == kind:
        return column
    cast = column.try_cast(kind)
    # try_cast is NULL for what is out of range, and cuts a fraction off.
    return F.when(cast == column, cast) if isinstance(actual, NumericType) else cast


def _instant(column: Column, actual: DataType, declared: ColumnType) -> Column:
    """A date or an instant. What a DATETIME has beyond its digits is none of it, as a time is no part of a DATE."""
    if isinstance(actual, NullType):
        return column
    if declared.kind == "DATE":
        if isinstance(actual, DateType):
            return column
        text = iso.date_of(column) if isinstance(actual, StringType) else _none("date")
        is_instant = isinstance(actual, TimestampType | TimestampNTZType)
        return F.when(column.cast("date") == column, column.cast("date")) if is_instant else text
    if isinstance(actual, TimestampType):
        instant = column
    elif isinstance(actual, DateType | TimestampNTZType):
        instant = column.cast("timestamp")
    else:
        instant = iso.instant_of(column) if isinstance(actual, StringType) else _none("timestamp")
    unit_us = 10 ** max(0, _INSTANT_DIGITS - declared.fraction_digits)
    return instant if unit_us == 1 else F.when(F.unix_micros(instant) % unit_us == 0, instant)


def _kept_value(column: Column, actual: DataType, declared: ColumnType) -> Column:
    """The value of any other column as the database gets it; the same column if the database judges every value."""
    kind, is_text = declared.kind, isinstance(actual, StringType)
    if is_text and (kind in INTEGERS or (kind == "DECIMAL" and declared.size[0] <= _DECIMAL_DIGITS)):
        return _number(column, actual, declared)
    if is_text and kind in _TEXTS:
        return _text(column, declared)
    if kind == "BINARY" and (is_text or isinstance(actual, BinaryType)):
        return F.when(F.octet_length(column) == F.lit(declared.length), column)  # the database would pad it with zeros
    if kind in ("ENUM", "SET"):
        return _labels(column if is_text else column.cast("string"), declared)
    if kind in _TIMES and (is_text or isinstance(actual, NumericType | BooleanType)):
        return _time(column.cast("string"), declared, is_text=is_text)
    return column


def _time(text: Column, declared: ColumnType, *, is_text: bool) -> Column:
    """A text that is one date, time or year; a number is none, apart from a year."""
    if declared.kind == "YEAR":
        return F.when(text.rlike(_YEAR), text)
    if not is_text:
        return _none("string")
    if declared.kind == "TIME":
        return F.when(text.rlike(_TIME_OF_DAY), text)
    return iso.date_of(text) if declared.kind == "DATE" else iso.instant_of(text)


def _text(column: Column, declared: ColumnType) -> Column:
    """A text that is not cut: of one that is too long the database drops blanks at the end, and CHAR drops them all."""
    length = declared.length
    fits = F.lit(True) if length is None else F.length(column) <= length
    if declared.kind.endswith("VARCHAR"):
        return F.when(fits, column)
    return F.when(fits & ~column.endswith(" "), column)


def _labels(column: Column, declared: ColumnType) -> Column:
    """A text that is a label, or of a SET some of them with commas in between: digits are no labels' numbers."""
    labels = declared.arguments
    if declared.kind == "ENUM":
        return F.when(column.isin(*labels), column)
    return F.when((column == "") | F.forall(F.split(column, ","), lambda part: part.isin(*labels)), column)


def _none(kind: str) -> Column:
    return F.lit(None).cast(kind)
