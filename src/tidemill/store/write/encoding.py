"""Encodes Arrow tables as the text of a bulk load or of an INSERT: every value as the database reads it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import StoreError

_SLICE = (50_000, 16 * 2**20)
"""Rows and bytes encoded at a time: bounds the memory, and Arrow's string offsets are 32 bits."""


@dataclass(frozen=True)
class TextFormat:
    """How rows are written as text."""

    escapes: tuple[tuple[str, str], ...]
    null: bytes
    text: tuple[bytes, bytes]
    """Before and after a value."""
    raw: tuple[bytes, bytes]
    """Before and after a value that is bytes and need not be text."""
    between: bytes
    row: tuple[bytes, bytes]


FILE = TextFormat(
    escapes=(("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"), ("\0", "\\0")),
    null=b"\\N",
    text=(b"", b""),
    raw=(b"", b""),
    between=b"\t",
    row=(b"", b"\n"),
)
"""LOAD DATA's default format."""
VALUES = TextFormat(
    escapes=(("\\", "\\\\"), ("'", "\\'"), ("\0", "\\0")),
    null=b"NULL",
    text=(b"'", b"'"),
    raw=(b"_binary'", b"'"),
    between=b",",
    row=(b"(", b")"),
)
"""The format that follows VALUES in an INSERT."""


def encode(table: pa.Table) -> Iterator[memoryview]:
    """The rows as LOAD DATA's default format: tab-separated, backslash escapes, ``\\N`` for NULL.

    Args:
        table: columns of text, bytes, numbers, booleans, dates, times (in UTC), durations (as TIME), and lists,
            structs and maps (as JSON).

    Yields:
        Buffers to be written one after the other, each made of 16 MiB of rows at most, or of one larger row.

    Raises:
        StoreError: a value cannot be written as text.
    """
    for part in slices(table, *_SLICE):
        for lines in lines_of(part, FILE):
            yield _content(lines)


def lines_of(part: pa.Table, text_format: TextFormat) -> Iterator[pa.Array]:
    """Each row in a format."""
    for batch in part.combine_chunks().to_batches():
        kind = pa.large_binary() if batch.nbytes > 2**28 else pa.binary()
        fields = [
            _written(name, column, text_format, kind)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        lines = _joined([*fields, text_format.between], kind)
        yield _joined([text_format.row[0], lines, text_format.row[1], b""], kind)


def slices(table: pa.Table, most_rows: int, most_bytes: int) -> Iterator[pa.Table]:
    """The table in slices within these limits; a slice of one row may be larger."""
    if table.num_rows <= 1 or (table.num_rows <= most_rows and table.nbytes <= most_bytes):
        if table.num_rows:
            yield table
        return
    half = table.num_rows // 2
    yield from slices(table.slice(0, half), most_rows, most_bytes)
    yield from slices(table.slice(half), most_rows, most_bytes)


def _joined(parts: list[Any], kind: pa.DataType) -> pa.Array:
    """Concatenate columns and constants row by row; the last part is the separator."""
    return pc.binary_join_element_wise(*(pa.scalar(part, kind) if isinstance(part, bytes) else part for part in parts))


def _written(name: str, column: pa.Array, text_format: TextFormat, kind: pa.DataType) -> pa.Array:
    try:
        return _field(column, text_format, kind)
    except (OverflowError, ValueError) as error:  # Arrow's own ArrowInvalid is a ValueError
        # For example, Python, which writes JSON, has no time beyond the year 9999.
        raise StoreError("TM-STORE-VALUE-NOT-TEXT", value=f"{name}: {error}") from error


def _field(column: pa.Array, text_format: TextFormat, kind: pa.DataType) -> pa.Array:
    """A column's values in a format."""
    text = _text(column)
    escapable = pa.types.is_string(text.type) or pa.types.is_large_string(text.type) or _is_bytes(text.type)
    text = text.cast(kind)
    if escapable:
        content = bytes(_content(text))
        for raw, escaped in text_format.escapes:
            # The search is a hundred times cheaper than a replacement that finds nothing.
            if raw.encode() in content:
                text = pc.replace_substring(text, raw, escaped)
    before, after = text_format.raw if _is_bytes(column.type) else text_format.text
    if before:
        text = _joined([before, text, after, b""], kind)
    return pc.fill_null(text, pa.scalar(text_format.null, kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _text(column: pa.Array) -> pa.Array:
    """A column of text or bytes, as the database reads its values."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_bytes(kind):
        return column
    if pa.types.is_nested(kind):
        values = column.to_pylist(maps_as_pydicts="lossy")
        return pa.array([None if value is None else _json(value) for value in values], pa.large_string())
    if pa.types.is_duration(kind):
        return pa.array(
            [None if us is None else _time(us) for us in column.cast(pa.duration("us")).cast(pa.int64()).to_pylist()],
            pa.string(),
        )
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit))  # the zone's suffix is no part of a DATETIME; the instant is UTC
    return column.cast(pa.string())


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_json_text)


def _json_text(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _time(microseconds: int) -> str:
    """A duration as TIME, which goes from -838:59:59.999999 to 838:59:59.999999."""
    seconds, fraction = divmod(abs(microseconds), 1_000_000)
    sign = "-" if microseconds < 0 else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:06}"


def _content(array: pa.Array) -> memoryview:
    """The bytes of an array of bytes, without copying them."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return memoryview(b"")
    bounds = memoryview(offsets).cast("B").cast("q" if pa.types.is_large_binary(array.type) else "i")
    return memoryview(data)[bounds[array.offset] : bounds[array.offset + len(array)]]
