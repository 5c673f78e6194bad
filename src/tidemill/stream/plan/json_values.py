"""JSON values -> Spark's values: the same value, or none.

Spark's own reader multiplies a number by a million and wraps it where a TIMESTAMP is expected, writes the number
``12.50`` as the text ``12.5``, and takes half a minute to write ``1e10000000`` as a DECIMAL. So those types are read in
another form (:func:`parsed_type`), of which the value is made here (:func:`value_of`).
"""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DecimalType,
    FractionalType,
    IntegralType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
    VariantType,
)

from tidemill.stream.plan import iso

_DOUBLE_DIGITS = 15
"""Of a number of at most so many digits, the nearest DOUBLE determines all of them."""
_TIMES: dict[type[DataType], Callable[[Column], Column]] = {
    DateType: iso.date_of,
    TimestampType: iso.instant_of,
    TimestampNTZType: iso.local_time_of,
}
_EXPECTED: tuple[tuple[type[DataType], str], ...] = (
    (StringType, "a JSON string"),
    (DateType, "an ISO 8601 date such as 2026-02-28"),
    (TimestampType, "an ISO 8601 time such as 2026-02-28T23:59:59.5Z, in a JSON string"),
    (TimestampNTZType, "an ISO 8601 time without a zone, in a JSON string"),
    (BooleanType, "true or false"),
    (BinaryType, "base64 in a JSON string"),
    (IntegralType, "an integer in its range"),
    (FractionalType, "a number"),
    (ArrayType, "a JSON array of such values"),
    (StructType, "a JSON object of such fields"),
    (MapType, "a JSON object of such values"),
)


def expected(declared: DataType) -> str:
    """What a reason names as the value that was expected."""
    is_nested = isinstance(declared, ArrayType | MapType | StructType)
    name = declared.simpleString() if is_nested else declared.simpleString().upper()
    if isinstance(declared, DecimalType):
        whole, scale = declared.precision - declared.scale, declared.scale
        return f"{name}: a number of at most {whole} digits before the point and {scale} after it"
    return f"{name}: " + next((form for kind, form in _EXPECTED if isinstance(declared, kind)), "such a value")


def parsed_type(declared: DataType, *, nested: bool = False) -> DataType:
    """The type as which a value is read so that nothing of it is lost.

    A text that is no part of another value is read as STRING; of the few that may have been no JSON string
    (:func:`may_be_rewritten`) it is determined afterwards.
    """
    if isinstance(declared, DecimalType) or (nested and isinstance(declared, StringType)):
        return VariantType()
    if type(declared) in _TIMES:
        return StringType()
    if isinstance(declared, ArrayType):
        return ArrayType(parsed_type(declared.elementType, nested=True), declared.containsNull)
    if isinstance(declared, MapType):
        return MapType(declared.keyType, parsed_type(declared.valueType, nested=True), declared.valueContainsNull)
    if isinstance(declared, StructType):
        return StructType([StructField(each.name, parsed_type(each.dataType, nested=True)) for each in declared.fields])
    return declared


def value_of(parsed: Column, declared: DataType, text: Column, *, nested: bool = False) -> Column:
    """The value of the declared type.

    Args:
        parsed: the value as it was read, of :func:`parsed_type`.
        declared: its type.
        text: of the whole record.
        nested: whether it is a part of another value.

    Returns:
        NULL if there is none, or it is not the value that the record has; :func:`is_wrong` determines which.
    """
    if isinstance(declared, DecimalType):
        return _decimal(parsed, declared, text)
    if nested and isinstance(declared, StringType):
        kind = F.schema_of_variant(parsed)
        return F.when(kind.isin("STRING", "BIGINT", "BOOLEAN"), _text(parsed))
    if type(declared) in _TIMES:
        return _TIMES[type(declared)](parsed)
    return parsed if parsed_type(declared) == declared else _container(parsed, declared, text)


def _container(parsed: Column, declared: DataType, text: Column) -> Column:
    """An array, a map or a struct of values."""
    if isinstance(declared, ArrayType):
        element = declared.elementType
        return F.transform(parsed, lambda each: value_of(each, element, text, nested=True))
    if isinstance(declared, MapType):
        kept = declared.valueType
        return F.transform_values(parsed, lambda _, each: value_of(each, kept, text, nested=True))
    assert isinstance(declared, StructType)  # nothing else is read in another form
    fields = [
        value_of(parsed.getField(each.name), each.dataType, text, nested=True).alias(each.name)
        for each in declared.fields
    ]
    return F.when(parsed.isNotNull(), F.struct(*fields))


def is_wrong(parsed: Column, value: Column, declared: DataType) -> Column:
    """Whether a value was read, and :func:`value_of` made another one, or none, of it."""
    if isinstance(declared, ArrayType):
        pairs = F.arrays_zip(parsed.alias("p"), value.alias("v"))
        element = declared.elementType
        return F.exists(pairs, lambda pair: is_wrong(pair.getField("p"), pair.getField("v"), element))
    if isinstance(declared, MapType):
        values = F.map_values(parsed), F.map_values(value)
        return is_wrong(*values, ArrayType(declared.valueType))
    if isinstance(declared, StructType):
        wrong = F.lit(False)
        for each in declared.fields:
            wrong = wrong | is_wrong(parsed.getField(each.name), value.getField(each.name), each.dataType)
        return parsed.isNotNull() & wrong
    is_absent = parsed.isNull() | value.isNotNull()
    if isinstance(parsed_type(declared, nested=True), VariantType):
        return ~is_absent & ~F.coalesce(F.is_variant_null(parsed), F.lit(False))
    return ~is_absent


def may_be_rewritten(text: Column, record: Column) -> Column:
    """Whether a STRING that was read may be another text than the record has.

    It is if it was no JSON string: of an object the reader drops the blanks, of a number the zeros. Integers and
    booleans keep their text, except for minus zero. Most texts are recognised by their first character.

    Args:
        text: as it was read.
        record: the text of the whole record.
    """
    is_fraction = _between(text, "-", ":") & text.rlike(r"\A-?[0-9]+\.[0-9]+(?:E-?[0-9]+)?\z")
    is_container = _between(text, "[", "\\") | _between(text, "{", "|") | text.isin('"Infinity"', '"-Infinity"')
    return is_fraction | is_container | ((text == "0") & record.contains("-0"))


def has_lone_surrogate(text: Column) -> Column:
    """Whether a JSON text has an escape of half a character, of which the reader makes a question mark.

    An escaped backslash begins no escape.
    """
    high, low = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    unescaped = F.regexp_replace(text, r"\\\\", " ")
    is_lone = F.regexp_replace(unescaped, high + low, "").rlike(r"\\u[dD][89a-fA-F]")
    return text.contains("\\u") & is_lone


def from_plain_text(text: Column, declared: DataType) -> Column:
    """A text that is no JSON, such as the key of a record, as a value of a type; NULL if it is none."""
    if isinstance(declared, DecimalType):
        return decimal_of(text, declared)
    if type(declared) in _TIMES:
        return _TIMES[type(declared)](text)
    if isinstance(declared, IntegralType):
        return integer_of(text, declared.simpleString())
    return text if isinstance(declared, StringType) else text.try_cast(declared)


def integer_of(text: Column, kind: str) -> Column:
    """A text of an integer as a type of Spark; NULL if it is none, or out of range."""
    return F.when(text.rlike(r"\A-?[0-9]{1,400}\z"), text.try_cast(kind))


def decimal_of(text: Column, declared: DecimalType) -> Column:
    """A text of a number all of whose digits a DECIMAL has; NULL for any other text.

    A plain cast would round it, and take long for a large exponent.
    """
    return F.coalesce(_plain_decimal(text, declared), _scientific(text, declared))


def _decimal(parsed: Column, declared: DecimalType, record: Column) -> Column:
    """A number, or a text of a number, all of whose digits a DECIMAL has."""
    kind, text = F.schema_of_variant(parsed), _text(parsed)
    # The reader makes a DOUBLE of a number with an exponent, or with more than 38 digits.
    digits = F.length(F.regexp_replace(F.regexp_replace(text, r"E.*|[.-]", ""), r"\A0+|0+\z", ""))
    # A zero may be what is left of a number that is too small for a DOUBLE.
    is_zero = (digits == 0) & ~record.rlike(r"[eE]-0*[1-9][0-9]{2}")
    is_determined = is_zero | digits.between(1, _DOUBLE_DIGITS) | ((digits > 0) & record.contains(text))
    return (
        F.when(kind.rlike("BIGINT|DECIMAL"), _plain_decimal(text, declared))
        .when(kind == "STRING", decimal_of(text, declared))
        .when((kind == "DOUBLE") & is_determined, _scientific(text, declared))
    )


def _plain_decimal(text: Column, declared: DecimalType) -> Column:
    form = rf"\A-?[0-9]{{1,400}}(?:\.[0-9]{{0,{declared.scale}}}0{{0,400}})?\z"
    return F.when(text.rlike(form), text.try_cast(declared))


def _scientific(text: Column, declared: DecimalType) -> Column:
    """A number whose exponent has few digits."""
    cast = text.try_cast(declared)
    longest = text.try_cast(DecimalType(38, 38 - declared.precision + declared.scale))
    is_exact = (cast == longest) & (cast.cast("double") == text.try_cast("double"))
    return F.when(text.rlike(r"\A-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,3})?\z") & is_exact, cast)


def _text(parsed: Column) -> Column:
    return F.try_variant_get(parsed, "$", "string")


def _between(text: Column, first: str, beyond: str) -> Column:
    return (text >= first) & (text < beyond)
