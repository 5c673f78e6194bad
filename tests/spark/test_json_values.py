"""A field has the value that the record's JSON text means, exactly, or the record has a reason with field and value."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from support.cases import KAFKA_COLUMNS, outcome
from tidemill.config import Settings
from tidemill.spec import load_pipeline
from tidemill.spec.schema import Source
from tidemill.stream.plan.decode import DIGITS, LEVELS, decode

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
HUGE = "123456789012345678901234567890"
REFUSED = object()
MEANT: dict[str, dict[str, Any]] = {
    "STRING": {
        '"12.5"': "12.5", '"1.0E8"': "1.0E8", '"[1]"': "[1]", '"{"': "{", "0": "0", '"0"': "0", "5": "5", HUGE: HUGE,
        "true": "true", '"\\ud83d\\ude00"': "😀", '"\\\\ud800"': "\\ud800", '"\\\\\\\\ud800?"': "\\\\ud800?", '""': "",
        "12.50": REFUSED, "12.5": REFUSED, "100000000.0": REFUSED, "1E5": REFUSED, "1e400": REFUSED, "-0": REFUSED,
        '{"x": 1.50}': REFUSED, "{}": REFUSED, "[ 1]": REFUSED, '"\\ud800"': REFUSED, '"\\ude00\\ud83d"': REFUSED,
        '"\\\\\\ud83d"': REFUSED, '"\\ud83d\\\\\\ude00"': REFUSED, "NaN": REFUSED,
    },
    "DECIMAL(12,2)": {
        "12.50": Decimal("12.5"), "12.500": Decimal("12.5"), '"12.5"': Decimal("12.5"), "-5": Decimal(-5),
        "1E3": Decimal(1000), "1.23456789E7": Decimal("12345678.9"), "0E-10": Decimal(0), '"1e3"': Decimal(1000),
        "1.2345678912345678E3": REFUSED, "12.345": REFUSED, "1e10000000": REFUSED, "1e-10000000": REFUSED,
        '"1e10000000"': REFUSED, '"1e-10000000"': REFUSED, "12345678901": REFUSED, "true": REFUSED, "1e-5": REFUSED,
        '" 5"': REFUSED, '""': REFUSED,
    },
    "DECIMAL(38,9)": {
        f"{HUGE[:-1]}.123456789": Decimal(f"{HUGE[:-1]}.123456789"), "1.5E-8": Decimal("1.5E-8"),
        "1.0000000001": REFUSED, "1.5E-10": REFUSED, "0." + "0" * 38 + "1": REFUSED,
    },
    "TIMESTAMP": {
        '"2026-02-28T23:59:59.123456Z"': dt.datetime(2026, 2, 28, 23, 59, 59, 123456, dt.UTC),
        '"2026-02-28T01:00:00+02:00"': dt.datetime(2026, 2, 27, 23, tzinfo=dt.UTC),
        '"2026-02-28 01:00"': dt.datetime(2026, 2, 28, 1, tzinfo=dt.UTC),
        '"2026-02-28"': dt.datetime(2026, 2, 28, tzinfo=dt.UTC),
        "1770832800000": REFUSED, "1770832800": REFUSED, '"12:30"': REFUSED, '"2026"': REFUSED, '"1770832800"': REFUSED,
        '"2026-02-29T00:00:00Z"': REFUSED, '"2026-02-28T23:59:59.1234567Z"': REFUSED, "1.5": REFUSED, "{}": REFUSED,
        '"2026-10-25 02:30:00 Europe/Berlin"': REFUSED, '"now"': REFUSED,
    },
    "TIMESTAMP_NTZ": {'"2026-02-28T01:00:00"': dt.datetime(2026, 2, 28, 1), '"2026-02-28T01:00:00Z"': REFUSED},
    "DATE": {
        '"2026-02-28"': dt.date(2026, 2, 28), '"2026-02-29"': REFUSED, '"2026-02"': REFUSED, "20260228": REFUSED,
        '"2026-02-28T23:00:00Z"': REFUSED, '"today"': REFUSED, '"20260228"': REFUSED, "[]": REFUSED,
    },
    "INT": {"2147483647": 2**31 - 1, "2147483648": REFUSED, "5.0": REFUSED, '"5"': REFUSED, "1e1": REFUSED},
    "BIGINT": {"-9223372036854775808": -(2**63), "9223372036854775808": REFUSED, HUGE: REFUSED, "true": REFUSED},
    "BOOLEAN": {"true": True, "false": False, "1": REFUSED, '"true"': REFUSED},
    "DOUBLE": {"5": 5.0, "1.5e300": 1.5e300, '"x"': REFUSED, "[]": REFUSED},
    "BINARY": {'"YWI="': b"ab", '"!"': REFUSED, "5": REFUSED},
    "ARRAY<DECIMAL(5,2)>": {
        "[1.25, null, 3]": [Decimal("1.25"), None, Decimal(3)], "[]": [], "[1.255]": REFUSED, "5": REFUSED,
    },
    "STRUCT<x: STRING, t: TIMESTAMP>": {
        '{"x": "1.5", "t": null}': {"x": "1.5", "t": None}, "{}": {"x": None, "t": None},
        '{"x": 1.5}': REFUSED, '{"t": 5}': REFUSED, '{"x": {}}': REFUSED, "5": REFUSED,
    },
    "MAP<STRING, DATE>": {'{"k": "2026-02-28"}': [("k", dt.date(2026, 2, 28))], '{"k": "12:30"}': REFUSED},
}  # fmt: skip
"""Declared type -> JSON text of a value -> what it means."""
TYPES = list(MEANT)
SCHEMA = ", ".join(f"f{number} {declared}" for number, declared in enumerate(TYPES))


def decoded(spark: SparkSession, values: list[bytes], schema: str = SCHEMA) -> list[dict[str, Any]]:
    """What records are decoded to, in their order."""
    rows = [(b"k", value, 0, offset, NOW, None) for offset, value in enumerate(values)]
    source = Source.model_validate({"topic": "t", "schema": schema})
    table = decode(spark.createDataFrame(rows, KAFKA_COLUMNS), source).toArrow()
    found: list[dict[str, Any]] = table.sort_by("_offset").to_pylist()
    return found


def test_a_field_has_the_value_of_the_record_or_a_reason(spark: SparkSession) -> None:
    """The reason names the field, the value as it is written, and what was expected."""
    cases = [(number, text, meant) for number, name in enumerate(TYPES) for text, meant in MEANT[name].items()]
    values = [f'{{"f{number}": {text}}}'.encode() for number, text, _ in cases]
    found = decoded(spark, [*values, *(f'{{"f{number}": null}}'.encode() for number in range(len(TYPES)))])
    for (number, text, meant), row in zip(cases, found, strict=False):
        place = f"{TYPES[number]}: {text}"
        if meant is not REFUSED:
            assert (row[f"f{number}"], row["_error"]) == (meant, None), place
        elif text == "NaN" or "\\ud83d" in text or "\\ud800" in text:
            assert ("not JSON" in row["_error"]) or ("half a character" in row["_error"]), place
        else:
            assert row["_error"].startswith(f"field f{number}: "), place
            assert ", expected " in row["_error"], place
            if json.loads(text) is not True and not isinstance(json.loads(text), dict | list):
                assert text[:60] in row["_error"], (place, row["_error"])
    nulls = found[len(cases) :]
    assert [row["_error"] for row in nulls] == [None] * len(TYPES)
    assert all(row[f"f{number}"] is None for row in nulls for number in range(len(TYPES)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'"x"', "a JSON STRING, expected an object"),
        (b'[{"f0": "x"}]', "a JSON ARRAY, expected an object"),
        (b"{", "is not JSON"),
        (b'{"f0": "x"', "is not JSON"),
        (b'{"f0": 01}', "is not JSON"),
        (b'{"g":' * (LEVELS + 1) + b"1" + b"}" * (LEVELS + 1), f"over {LEVELS} levels"),
        (b'{"f6": ' + b"1" * (DIGITS + 1) + b"}", f"over {DIGITS} digits"),
        (b'{"f0": "\xff"}', "is not UTF-8"),
        (b'{"f0": "\xed\xa0\x80"}', "is not UTF-8"),
    ],
    ids=["text", "array", "brace", "open", "zero", "deep", "long", "bytes", "surrogate"],
)
def test_what_is_no_object_has_its_reason(spark: SparkSession, value: bytes, reason: str) -> None:
    """Other JSON, no JSON, and what is beyond the bounds of what is read."""
    [row] = decoded(spark, [value])
    assert reason in row["_error"]


KEYS: dict[str, dict[bytes | None, Any]] = {
    "team STRING": {
        b"red": "red", b'"red"': "red", b'{"team": "red"}': "red", b'"a\\"b"': 'a"b', b"7": "7", b'"7"': "7", b"": "",
        b'{"x": 1}': None, b'"a", "team": "b"': None, b'"red': None, b"{red": None, b'{"team": 1.50}': None,
        b"\xff": None, b'"\\ud800"': None, None: None,
    },
    "id BIGINT": {b"7": 7, b'"7"': 7, b'{"id": 7}': 7, b"7.0": None, b"1e1": None, b'{"id": "7"}': None, b"red": None},
    "at TIMESTAMP": {b"2026-02-28": dt.datetime(2026, 2, 28, tzinfo=dt.UTC), b"12:30": None, b'{"at": 5}': None},
    "price DECIMAL(5,2)": {
        b"1.50": Decimal("1.5"), b'{"price": 1.5}': Decimal("1.5"), b"1.555": None, b"1e10000000": None,
        b'{"price": 1e-10000000}': None,
    },
}  # fmt: skip
"""source.key -> the key of a tombstone -> the key that it deletes."""


@pytest.mark.parametrize("declared", KEYS)
def test_the_key_of_a_tombstone_is_one_value(spark: SparkSession, declared: str) -> None:
    """Plain text, a JSON string or an object; what is none of them deletes nothing and is quarantined."""
    rows = [(key, None, 0, offset, NOW, None) for offset, key in enumerate(KEYS[declared])]
    source = Source.model_validate({"topic": "t", "schema": "z INT", "key": declared})
    found = decode(spark.createDataFrame(rows, KAFKA_COLUMNS), source).toArrow().sort_by("_offset").to_pylist()
    name = declared.split(maxsplit=1)[0]
    for (key, meant), row in zip(KEYS[declared].items(), found, strict=True):
        assert row["_tombstone_key"] == (None if meant is None else {name: meant}), key
        assert (row["_error"] is None) == (meant is not None), key


NAMES = ["a.b", "_offset", "_value_bytes", "__error", "_TABLE_0", "_record", "_kept", "_corrupt", "value", "record"]
NAMES += [
    "x`y",
    'q"q',
    "back\\slash",
    "\\E",
    "two words",
    " ",
    "é漢😀",
    "$",
    "a[0]",
    "value0",
    "tokens",
    "text",
    "null",
]
NAMES += ["select", "records", "%s", "{}", "t:_kept", "\t", "'"]


@pytest.mark.parametrize("names", [NAMES, ["id", "ID", "_Offset", *NAMES]], ids=["any", "capitals"])
def test_any_name_is_a_field(spark: SparkSession, settings: Settings, tmp_path: Path, names: list[str]) -> None:
    """Whatever JSON calls it, also as Tidemill calls a column of its own, or as another field but for capitals."""
    quoted = ["`" + name.replace("`", "``") + "`" for name in names]
    columns = {f"c{number}": "INT" for number in range(len(names))}
    content = {
        "name": "named",
        "owner": "tests",
        "source": {"topic": "t", "schema": ", ".join(f"{name} INT" for name in quoted)},
        "tables": {
            table: {"from": "t.sql", "kind": "event", "key": ["k"], "columns": {"k": "INT NOT NULL", **columns}}
            for table in ("one", "two")
        },
    }
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "pipeline.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
    selected = ", ".join(f"{name} AS c{number}" for number, name in enumerate(quoted))
    (tmp_path / "named" / "t.sql").write_text(f"SELECT 1 AS k, {selected} FROM records")
    given = {name: number for number, name in enumerate(names)}
    pipeline = load_pipeline(tmp_path / "named")
    for table in pipeline.tables:
        rows, reasons = outcome(spark, pipeline, table, [given, {names[0]: 1.5}])
        assert rows == [{"k": 1, **{f"c{number}": number for number in range(len(names))}}]
        [reason] = reasons
        assert reason.startswith(f"field {names[0]}: 1.5, expected INT")
    spark.conf.set("spark.sql.caseSensitive", "false")
