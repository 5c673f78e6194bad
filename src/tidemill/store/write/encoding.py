"""Arrow -> the text of a bulk load: every value as the database reads it, whichever way the rows go."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import StoreError

_PIECE = (50_000, 16 * 2**20)
"""Rows and bytes encoded at a time: bounds the memory, and Arrow's string offsets are 32 bits."""


@dataclass(frozen=True)
class Form:
    """How rows are written down."""

    escapes: tuple[tuple[str, str], ...]
    null: bytes
    text: tuple[bytes, bytes]
    """What stands around a value."""
    raw: tuple[bytes, bytes]
    """What stands around bytes that need not be text."""
    between: bytes
    row: tuple[bytes, bytes]


FILE = Form(
    escapes=(("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"), ("\0", "\\0")),
    null=b"\\N",
    text=(b"", b""),
    raw=(b"", b""),
    between=b"\t",
    row=(b"", b"\n"),
)
"""LOAD DATA's default format."""
VALUES = Form(
    escapes=(("\\", "\\\\"), ("'", "\\'"), ("\0", "\\0")),
    null=b"NULL",
    text=(b"'", b"'"),
    raw=(b"_binary'", b"'"),
    between=b",",
    row=(b"(", b")"),
)
"""What follows VALUES."""


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
    for piece in pieces(table, *_PIECE):
        for lines in lines_of(piece, FILE):
            yield _content(lines)


def lines_of(piece: pa.Table, form: Form) -> Iterator[pa.Array]:
    """Each row as the form writes it."""
    for batch in piece.combine_chunks().to_batches():
        kind = pa.large_binary() if batch.nbytes > 2**28 else pa.binary()
        fields = [
            _written(name, column, form, kind) for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        lines = _joined([*fields, form.between], kind)
        yield _joined([form.row[0], lines, form.row[1], b""], kind)


def pieces(table: pa.Table, most_rows: int, most_bytes: int) -> Iterator[pa.Table]:
    """The table in slices that are small enough, or have one row."""
    if table.num_rows <= 1 or (table.num_rows <= most_rows and table.nbytes <= most_bytes):
        if table.num_rows:
            yield table
        return
    half = table.num_rows // 2
    yield from pieces(table.slice(0, half), most_rows, most_bytes)
    yield from pieces(table.slice(half), most_rows, most_bytes)


def _joined(parts: list[Any], kind: pa.DataType) -> pa.Array:
    """Columns and constants row by row, one after the other; the last part is the separator."""
    return pc.binary_join_element_wise(*(pa.scalar(part, kind) if isinstance(part, bytes) else part for part in parts))


def _written(name: str, column: pa.Array, form: Form, kind: pa.DataType) -> pa.Array:
    try:
        return _field(column, form, kind)
    except (OverflowError, ValueError) as error:  # Arrow's own ArrowInvalid is a ValueError
        # Python, which writes JSON, has no time beyond the year 9999, say.
        raise StoreError("a value cannot be written as text", value=f"{name}: {error}") from error


def _field(column: pa.Array, form: Form, kind: pa.DataType) -> pa.Array:
    """A column's values as the form writes them."""
    text = _text(column)
    escapable = pa.types.is_string(text.type) or pa.types.is_large_string(text.type) or _is_bytes(text.type)
    text = text.cast(kind)
    if escapable:
        content = bytes(_content(text))
        for raw, escaped in form.escapes:
            # To look first is a hundred times cheaper than to replace nothing.
            if raw.encode() in content:
                text = pc.replace_substring(text, raw, escaped)
    before, after = form.raw if _is_bytes(column.type) else form.text
    if before:
        text = _joined([before, text, after, b""], kind)
    return pc.fill_null(text, pa.scalar(form.null, kind))


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
