"""The file of a dimension is read as it is written: no value is guessed, and none is lost."""

from __future__ import annotations

import csv
import datetime as dt
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT
from tidemill.errors import SpecError
from tidemill.spec import load_pipeline
from tidemill.spec.dimension_files import DimensionRows, read_dimension
from tidemill.spec.schema import Dimension, Pipeline

SHIPPED = load_pipeline(ROOT / "pipelines" / "flights")


def pipeline_of(folder: Path, content: bytes, key: tuple[str, ...] = ("k",), **declared: Any) -> Pipeline:
    """A pipeline whose dimension ``d`` has this file."""
    (folder / "d.csv").write_bytes(content)
    dimension = Dimension(path="d.csv", key=key, **declared)
    return SHIPPED.model_copy(update={"folder": folder, "dimensions": {"d": dimension}})


def read(folder: Path, content: str | bytes, **declared: Any) -> DimensionRows:
    """The content of such a file."""
    encoded = content.encode() if isinstance(content, str) else content
    return read_dimension(pipeline_of(folder, encoded, **declared), "d")


def test_nothing_is_guessed(tmp_path: Path) -> None:
    """What looks like a number, a date or a boolean is a text unless it is declared."""
    texts = ["01234", "1234", "1e3", "true", "2026-01-01", " x ", "NaN", "٣", "+1", "0x1F"]
    found = read(tmp_path, "k,v\n" + "".join(f"{n},{text}\n" for n, text in enumerate(texts)))
    assert found.types == {"k": "STRING", "v": "STRING"}
    assert [row[1] for row in found.rows] == texts


VALUES: dict[str, dict[str, Any]] = {
    "TINYINT": {"-128": -128, "+127": 127, "007": 7},
    "SMALLINT": {"-32768": -32768},
    "INT": {"2147483647": 2**31 - 1},
    "bigint": {"-9223372036854775808": -(2**63)},
    "DOUBLE": {"1.5": 1.5, "-1e-3": -0.001, ".5": 0.5, "3.": 3.0},
    "DECIMAL(5, 2)": {"999.99": Decimal("999.99"), "1.500": Decimal("1.50"), "1e2": Decimal("100.00")},
    "BOOLEAN": {"true": True, "FALSE": False},
    "DATE": {"2024-02-29": dt.date(2024, 2, 29)},
    "TIMESTAMP": {
        "2026-01-01T06:00:00Z": dt.datetime(2026, 1, 1, 6, tzinfo=dt.UTC),
        "2026-01-01 06:00": dt.datetime(2026, 1, 1, 6, tzinfo=dt.UTC),
        "2026-01-01T06:00:00.000001+02:00": dt.datetime(2026, 1, 1, 4, 0, 0, 1, tzinfo=dt.UTC),
    },
}
MISFITS = {
    "TINYINT": ("128", "-129", "1.0", " 1", "1_0", "x", "٣", "1e1"),
    "SMALLINT": ("32768",),
    "INT": ("2147483648", "NA"),
    "bigint": ("9223372036854775808", "9" * 5000),
    "DOUBLE": ("1e999", "NaN", "Infinity", "1,5", "0x1p3", "1_0", ""[:0] + "--1"),
    "DECIMAL(5, 2)": ("1000", "0.001", "NaN", "1e9999"),
    "BOOLEAN": ("1", "yes", "t"),
    "DATE": ("2023-02-29", "20240229", "2024-1-1", "2024-01-01T00:00:00Z", "0000-01-01"),
    "TIMESTAMP": ("12:30", "1770832800000", "2026-01-01", "2026-01-01T24:00:01Z", "2026-01-01T06:00:00.0000001Z"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_is_exactly_what_its_type_makes_of_it_or_is_refused(tmp_path: Path, kind: str) -> None:
    """Never NULL, never another value; the refusal names file, line and column."""
    for text, value in VALUES[kind].items():
        assert read(tmp_path, f"k,v\na,{text}\n", types={"v": kind}).rows == [("a", value)]
    for text in MISFITS[kind]:
        with pytest.raises(SpecError, match="TM-SPEC-DIMENSION-FILE") as caught:
            read(tmp_path, f'k,v\nb,\na,"{text}"\n', types={"v": kind})
        assert caught.value.parameters["line"] == 3
        assert str(caught.value.value).startswith("v is ")


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", 1, "the file is empty"),
        (b"k,v\na,1\nb\n", 3, "the line has 1 fields, the header has 2"),
        (b"k,v\na,1\n\nb,2\n", 3, "the line has 0 fields, the header has 2"),
        (b'k,v\na,"1\n2"\nb,2,3\n', 4, "the line has 3 fields, the header has 2"),
        (b'k,v\na,"1\n', 2, "unexpected end of data"),
        (b'k,v\na,"1"2\n', 2, "',' expected after '\"'"),
        (b"k,v,k\n", 1, "the column k is there twice"),
        (b"k,v,V\n", 1, "the column V is there twice"),
        (b"k,,v\n", 1, "column 2 has no name"),
        (b"x,v\n", 1, "there is no column k, which the pipeline declares"),
        (b"k,v\na,1\nb,2\na,3\n", 4, "the key k = a is also in line 2"),
        (b"k,v\na,1\nb,\xe9\n", 3, "byte 0xE9 is not utf-8"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path: Path, content: bytes, line: int, reason: str) -> None:
    """Ragged lines, quotes that do not end, names that are missing or doubled, other encodings."""
    with pytest.raises(SpecError, match="TM-SPEC-DIMENSION-FILE") as caught:
        read(tmp_path, content)
    assert (caught.value.parameters["line"], caught.value.value) == (line, reason)
    assert caught.value.parameters["path"] == tmp_path / "d.csv"


def test_encoding_and_delimiter_are_as_declared(tmp_path: Path) -> None:
    """UTF-8 with or without a byte order mark by default."""
    expected = [("é", "a;b")]
    assert read(tmp_path, "\ufeffk,v\né,a;b\n").rows == expected
    for encoding in ("latin-1", "cp1252", "utf-16", "UTF8"):
        content = 'k;v\r\né;"a;b"\r\n'.encode(encoding)
        assert read(tmp_path, content, delimiter=";", encoding=encoding).rows == expected


def test_whatever_is_written_by_rfc_4180_is_read_back(tmp_path: Path, run_seed: int) -> None:
    """Commas, quotes and line ends inside of values, drawn at random; an empty field and the declared text are NULL."""
    draw = random.Random(run_seed)
    for _ in range(100):
        rows = [
            (str(number), *("".join(draw.choices('ab,;"\n\r\t é😀', k=draw.randrange(6))) for _ in range(2)))
            for number in range(8)
        ]
        with (tmp_path / "d.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("k", "v", "w"), *rows])
        found = read(tmp_path, (tmp_path / "d.csv").read_bytes(), nulls="ab")
        assert found.rows == [tuple(None if text in ("", "ab") else text for text in row) for row in rows]


def test_the_shipped_dimensions_are_what_they_declare() -> None:
    """All four files of the flights."""
    assert {name: len(read_dimension(SHIPPED, name).rows) for name in SHIPPED.dimensions} == {
        "airports": 1458, "airlines": 16, "planes": 3322, "weather": 26115,
    }  # fmt: skip


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """As the pipeline names it, and where it was looked for."""
    pipeline = pipeline_of(tmp_path, b"")
    (tmp_path / "d.csv").unlink()
    with pytest.raises(SpecError, match="TM-SPEC-DIMENSION-MISSING") as caught:
        read_dimension(pipeline, "d")
    assert caught.value.parameters["path"] == tmp_path / "d.csv"
