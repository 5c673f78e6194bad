"""The file of a dimension: CSV as RFC 4180 describes it, read as text and converted to the types that are declared.

Runs in commands, which check the file, and in drivers, which read it. Nothing is guessed: ``01234`` is a text unless
the pipeline declares the column as a number. https://www.rfc-editor.org/rfc/rfc4180
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

from tidemill.errors import SpecError
from tidemill.spec.folder import file_of
from tidemill.spec.schema import Dimension, Pipeline

Value = str | int | float | bool | Decimal | date | datetime | None
_PACKAGE = "package://"
_INTEGERS = {"TINYINT": 8, "SMALLINT": 16, "INT": 32, "BIGINT": 64}
"""Type -> bits."""
_DECIMAL = re.compile(r"DECIMAL\( ?([1-9]|[12]\d|3[0-8]) ?, ?(\d|[12]\d|3[0-8]) ?\)")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[-+][0-9]{2}:[0-9]{2})?"
)
TYPES = ("STRING", "BOOLEAN", *_INTEGERS, "DOUBLE", "DECIMAL(p,s)", "DATE", "TIMESTAMP")


@dataclass(frozen=True)
class DimensionRows:
    """The content of a dimension."""

    types: dict[str, str]
    """Column -> its type in Spark's DDL, in the order of the header."""
    rows: list[tuple[Value, ...]]


def normal_type(declared: str) -> str | None:
    """A declared type as Spark's DDL writes it, or None if a dimension cannot have it."""
    name = " ".join(declared.upper().split())
    if match := _DECIMAL.fullmatch(name):
        digits, scale = int(match.group(1)), int(match.group(2))
        return f"DECIMAL({digits},{scale})" if scale <= digits else None
    return name if name in TYPES else None


def text_encoding(name: str) -> str | None:
    """The codec of an encoding, which for UTF-8 accepts a byte order mark; None if there is none of this name."""
    try:
        codec = codecs.lookup(name).name
        "".encode(codec)
    except (LookupError, ValueError):  # LookupError: also a codec that is no encoding of text, such as base64
        return None
    return "utf-8-sig" if codec == "utf-8" else codec


def dimension_path(folder: Path, path: str) -> Path:
    """The file of a dimension.

    Raises:
        SpecError: it does not exist.
    """
    base, inside = folder, path
    if path.startswith(_PACKAGE):
        package, _, inside = path.removeprefix(_PACKAGE).partition("/")
        module = find_spec(package)  # not imported: the package may hold data, and code that no longer runs
        base = Path(module.origin).parent if module and module.origin else Path(package)
    resolved = file_of(base, inside)
    if not resolved.exists():
        raise SpecError("TM-SPEC-DIMENSION-MISSING", value=path, path=resolved)
    return resolved


def check_dimension_files(pipeline: Pipeline) -> None:
    """Read every dimension of a pipeline.

    Raises:
        SpecError: as for :func:`read_dimension`.
    """
    for name in pipeline.dimensions:
        read_dimension(pipeline, name)


def read_dimension(pipeline: Pipeline, name: str) -> DimensionRows:
    """Read the file of one dimension.

    Raises:
        SpecError: the file does not exist, is no CSV in the declared encoding, holds a value that does not have its
            declared type, or a key twice; names file, line and column.
    """
    dimension = pipeline.dimensions[name]
    path = dimension_path(pipeline.folder, dimension.path)
    lines = _lines(path, dimension)
    try:
        line, header = next(lines)
    except StopIteration:
        raise _error(path, 1, "the file is empty") from None
    types = _types(path, line, header, dimension)
    converters = [_converter(kind) for kind in types.values()]
    rows, keys = [], dict[tuple[Value, ...], int]()
    places = [header.index(column) for column in dimension.key]
    for line, fields in lines:
        if len(fields) != len(header):
            raise _error(path, line, f"the line has {len(fields)} fields, the header has {len(header)}")
        row = tuple(
            _value(path, line, column, text, convert, dimension)
            for column, text, convert in zip(header, fields, converters, strict=True)
        )
        key = tuple(row[place] for place in places)
        if None not in key and keys.setdefault(key, line) != line:
            shown = ", ".join(f"{header[place]} = {fields[place]}" for place in places)
            raise _error(path, line, f"the key {shown} is also in line {keys[key]}")
        rows.append(row)
    return DimensionRows(types, rows)


def _lines(path: Path, dimension: Dimension) -> Iterator[tuple[int, list[str]]]:
    """The records of the file, each with the number of the line on which it begins."""
    content = path.read_bytes()
    encoding = str(text_encoding(dimension.encoding))
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, errors="ignore")
        reason = f"byte 0x{content[error.start]:02X} is not {dimension.encoding}"
        raise _error(path, before.count("\n") + 1, reason) from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=dimension.delimiter, strict=True)
    line = 1
    try:
        for fields in reader:
            yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise _error(path, line, str(error)) from None


def _types(path: Path, line: int, header: list[str], dimension: Dimension) -> dict[str, str]:
    for number, column in enumerate(header):
        if not column.strip():
            raise _error(path, line, f"column {number + 1} has no name")
        if column.lower() in [other.lower() for other in header[:number]]:  # Spark's names are of one case
            raise _error(path, line, f"the column {column} is there twice")
    for column in (*dimension.types, *dimension.key):
        if column not in header:
            raise _error(path, line, f"there is no column {column}, which the pipeline declares")
    return {column: str(normal_type(dimension.types.get(column, "STRING"))) for column in header}


def _value(
    path: Path, line: int, column: str, text: str, convert: Callable[[str], Value], dimension: Dimension
) -> Value:  # fmt: skip
    if text in ("", dimension.nulls):
        return None
    try:
        return convert(text)
    except (ValueError, ArithmeticError):
        kind = dimension.types.get(column)
        raise _error(path, line, f"{column} is {text[:100]!r}, which is no {kind}") from None


def _converter(kind: str) -> Callable[[str], Value]:
    """Converts a text to a type, and raises ValueError for every text that does not mean exactly one value of it."""
    if kind in _INTEGERS:
        return lambda text: _integer(text, _INTEGERS[kind])
    if match := _DECIMAL.fullmatch(kind):
        digits, scale = int(match.group(1)), int(match.group(2))
        return lambda text: _decimal(text, digits, scale)
    converters: dict[str, Callable[[str], Value]] = {
        "STRING": str,
        "BOOLEAN": lambda text: {"true": True, "false": False}[_matching(re.compile("true|false"), text.lower())],
        "DOUBLE": _double,
        "DATE": lambda text: date.fromisoformat(_matching(_DATE, text)),
        "TIMESTAMP": _timestamp,
    }
    return converters[kind]


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(text)
    return text


def _integer(text: str, bits: int) -> int:
    value = int(_matching(_INTEGER, text))
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise ValueError(text)
    return value


def _double(text: str) -> float:
    value = float(_matching(_NUMBER, text))
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def _decimal(text: str, digits: int, scale: int) -> Decimal:
    value = Decimal(_matching(_NUMBER, text))
    if abs(value) >= Decimal(10) ** (digits - scale) or value != round(value, scale):
        raise ValueError(text)
    return round(value, scale)


def _timestamp(text: str) -> datetime:
    """An instant; without a zone it is UTC."""
    value = datetime.fromisoformat(_matching(_TIMESTAMP, text))
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _error(path: Path, line: int, reason: str) -> SpecError:
    return SpecError("TM-SPEC-DIMENSION-FILE", value=reason, path=path, line=line)
