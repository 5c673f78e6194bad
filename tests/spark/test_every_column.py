"""Every type of column and every form of JSON, from the record to the row: the value that is meant, or quarantine.

What is right is computed here, by Python's own numbers, texts and times, and by nothing of what decodes and writes.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from support.cases import KAFKA_COLUMNS
from tidemill.config import Account, Settings
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import leases, ledger, streams
from tidemill.store.migrations import apply_pipeline, migrate_control
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.transaction import write_batch
from tidemill.stream.plan.decode import decode
from tidemill.stream.plan.transform import transform
from tidemill.stream.task import MicroBatch, classify

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SAMPLE = 200
"""Cells of a short run."""
REFUSED = object()
_number = count(1)
LONG = Context(prec=100)

BITS = {"TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24, "INT": 32, "BIGINT": 64}
BOUNDS = [
    each + d for bits in BITS.values() for each in (-(2 ** (bits - 1)), 2 ** (bits - 1), 2**bits) for d in (-1, 0)
]
NUMBERS = [str(each) for each in (0, 1, -1, 2, 5, 70, 1900, 1901, 2024, 2155, 2156, 1030, 20260228, *BOUNDS, 10**30)]
NUMBERS += ["-0", "1.0", "1.5", "12.50", "12.345", "0.1", "-0.005", "1e2", "1E-3", "1.5e300", "1e400", "1e10000000"]
TEXTS = [
    "",
    " ",
    "5",
    "05",
    " 5",
    "5 ",
    "1.5",
    "1e2",
    "2",
    "3",
    "x",
    "X",
    "x ",
    "1,x",
    "x,1",
    "5,2",
    "x,x",
    "abc",
    "ab\0",
]
TEXTS += ["é漢😀", "x" * 10, "x" * 11, "x" * 9 + "  ", "\\N", "a\tb\nc", "2026-02-28", "2026-02-30", "12:30", "12:61"]
TEXTS += ["2026-02-28T23:59:59.123456Z", "2026-02-28T00:30:00+02:00", "-838:59:59", "2024", "70", "now", "null", "{}"]
FORMS = [*NUMBERS, *(json.dumps(each) for each in TEXTS), "true", "false", "null", "[]", "[1]", "{}", '{"a": 1.50}']
FORMS += ['"\\ud83d"', '"\\ud83d\\ude00"']


def source_value(kind: str, form: str) -> Any:
    """What a JSON text means as a field of the schema; REFUSED if it is no value of the field's type."""
    if form == "null":
        return None
    value = json.loads(form, parse_float=Decimal, parse_int=int)
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if kind == "STRING":
        if isinstance(value, str):
            return REFUSED if re.search("[\ud800-\udfff]", value) else value
        is_same = isinstance(value, bool) or (isinstance(value, int) and form != "-0")
        return form if is_same else REFUSED
    if kind in ("DATE", "TIMESTAMP"):
        parse = _date if kind == "DATE" else _instant
        return parse(value) if isinstance(value, str) else REFUSED
    if kind == "BOOLEAN":
        return value if isinstance(value, bool) else REFUSED
    return _number_of(kind, value, is_number)


def _number_of(kind: str, value: Any, is_number: bool) -> Any:
    if kind in ("BIGINT", "INT"):
        bound = 2 ** (63 if kind == "BIGINT" else 31)
        return value if is_number and isinstance(value, int) and -bound <= value < bound else REFUSED
    if kind == "DOUBLE":
        return float(value) if is_number and abs(float(value)) < float("inf") else REFUSED
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d{1,3})?", value, re.ASCII):
        value, is_number = Decimal(value), True
    return _digits(Decimal(value), 29, 9) if is_number else REFUSED


def _digits(value: Decimal, whole: int, scale: int) -> Any:
    """A number, if a DECIMAL has all of its digits."""
    if value and (value.adjusted() >= whole or value.adjusted() < -scale):
        return REFUSED
    return value if value == value.quantize(Decimal(1).scaleb(-scale), context=LONG) else REFUSED


def _date(text: str) -> Any:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        return REFUSED
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return REFUSED


def _instant(text: str) -> Any:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?)?", text, re.ASCII):
        return REFUSED
    try:
        value = dt.datetime.fromisoformat(text)
    except ValueError:
        return REFUSED
    return value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value


def _integer(bits: int, *, unsigned: bool = False) -> Callable[[Any], Any]:
    low, high = (0, 2**bits) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1))

    def stored(value: Any) -> Any:
        if isinstance(value, str):
            value = int(value) if re.fullmatch(r"-?\d+", value, re.ASCII) else REFUSED
        elif isinstance(value, Decimal | float):
            value = int(Decimal(value).quantize(Decimal(1), ROUND_HALF_UP, LONG)) if abs(value) < 1e30 else REFUSED
        return value if value is not REFUSED and low <= value < high else REFUSED

    return stored


def _rounded(value: Any) -> Any:
    """In a DECIMAL(12,2) that is neither key nor version; a text is taken with all its digits only."""
    if isinstance(value, str):
        known = re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d{1,3})?", value, re.ASCII)
        return _digits(Decimal(value), 10, 2) if known else REFUSED
    if abs(value) >= 10**10:
        return REFUSED
    return Decimal(value).quantize(Decimal("0.01"), ROUND_HALF_UP, LONG)


def _text(length: int, *, char: bool = False) -> Callable[[Any], Any]:
    def stored(value: Any) -> Any:
        return REFUSED if len(value) > length or (char and value.endswith(" ")) else value

    return stored


def _labelled(labels: tuple[str, ...], *, several: bool = False) -> Callable[[Any], Any]:
    def stored(value: Any) -> Any:
        parts = str(value).split(",") if several and value != "" else [str(value)]
        if several and value == "":
            return ""
        if any(part not in labels for part in parts):
            return REFUSED
        return ",".join(label for label in labels if label in parts) if several else str(value)

    return stored


def _year(value: Any) -> Any:
    known = re.fullmatch(r"\d{4}", str(value), re.ASCII)
    return int(value) if known and 1901 <= int(value) <= 2155 else REFUSED


def _time(value: Any) -> Any:
    if not (match := re.fullmatch(r"(-?)(\d{1,3}):([0-5]\d)(?::([0-5]\d))?", value, re.ASCII)):
        return REFUSED
    sign = -1 if match[1] else 1
    return sign * dt.timedelta(hours=int(match[2]), minutes=int(match[3]), seconds=int(match[4] or 0))


def _is_json(value: Any) -> Any:
    try:
        json.loads(value)
    except ValueError:
        return REFUSED
    return value


Stored = Callable[[Any], Any]
LABELS = ("5", "1", "x")
COLUMNS: list[tuple[str, str, Stored]] = [
    *((kind, source, _integer(BITS[kind])) for kind in BITS for source in ("BIGINT", "STRING")),
    *((f"{kind} UNSIGNED", "DECIMAL(38,9)", _integer(BITS[kind], unsigned=True)) for kind in BITS),
    ("TINYINT(1)", "BOOLEAN", int),
    ("DECIMAL(12,2)", "DECIMAL(38,9)", _rounded),
    ("DECIMAL(12,2)", "STRING", _rounded),
    ("DECIMAL(38,9)", "DECIMAL(38,9)", lambda value: value),
    ("DOUBLE", "DOUBLE", lambda value: value),
    ("VARCHAR(10)", "STRING", _text(10)),
    ("CHAR(10)", "STRING", _text(10, char=True)),
    ("TEXT", "STRING", _text(65_535)),
    ("BINARY(3)", "STRING", lambda value: value.encode() if len(value.encode()) == 3 else REFUSED),
    ("VARBINARY(10)", "STRING", lambda value: value.encode() if len(value.encode()) <= 10 else REFUSED),
    ("BLOB", "STRING", str.encode),
    ("ENUM('5','1','x')", "STRING", _labelled(LABELS)),
    ("ENUM('5','1','x')", "BIGINT", _labelled(LABELS)),
    ("SET('5','1','x')", "STRING", _labelled(LABELS, several=True)),
    ("SET('5','1','x')", "BIGINT", _labelled(LABELS, several=True)),
    ("DATE", "DATE", lambda value: value),
    ("DATE", "STRING", _date),
    ("DATE", "BIGINT", lambda _: REFUSED),
    ("DATETIME(6)", "TIMESTAMP", lambda value: value),
    ("DATETIME(6)", "STRING", _instant),
    ("DATETIME(6)", "BIGINT", lambda _: REFUSED),
    ("TIMESTAMP(6) NULL", "TIMESTAMP", lambda value: value),
    ("TIME(6)", "STRING", _time),
    ("TIME(6)", "BIGINT", lambda _: REFUSED),
    ("YEAR", "INT", _year),
    ("YEAR", "STRING", _year),
    ("JSON", "STRING", _is_json),
]
"""Column's type, the field's type, and what the column stores of the field's value."""


def _exactly(stored: Stored) -> Stored:
    """The same of a key or a version, which rounds nothing."""

    def exact(value: Any) -> Any:
        found = stored(value)
        return found if found is REFUSED or isinstance(value, str) or found == value else REFUSED

    return exact


COMPARED: list[tuple[str, str, Stored]] = [
    ("INTEGER UNSIGNED", "BIGINT", _integer(32, unsigned=True)),
    ("INT4", "DECIMAL(38,9)", _integer(32)),
    ("BIGINT UNSIGNED", "DECIMAL(38,9)", _integer(64, unsigned=True)),
    ("DECIMAL(20)", "DECIMAL(38,9)", lambda value: _digits(value, 20, 0)),
    ("DECIMAL(12,2)", "DECIMAL(38,9)", _rounded),
    ("DATETIME(6)", "TIMESTAMP", lambda value: value),
]
"""What may be key and version."""
KEYS = [
    *COMPARED,
    ("VARCHAR(10)", "STRING", _text(10)),
    ("VARBINARY(10)", "STRING", lambda value: value.encode() if len(value.encode()) <= 10 else REFUSED),
    ("DATE", "DATE", lambda value: value),
    ("DATETIME", "TIMESTAMP", lambda value: REFUSED if value.microsecond else value),
]


class Stage:
    """A pipeline whose record sets one field, and how far its stream is."""

    def __init__(self, settings: Settings, folder: Path, fields: list[str], tables: dict[str, Any], sql: Any) -> None:
        name = f"every{next(_number)}"
        schema = ", ".join(["id BIGINT", *(f"f{number} {kind}" for number, kind in enumerate(fields))])
        content = {"name": name, "owner": "tests", "source": {"topic": name, "schema": schema}}
        (folder / name).mkdir()
        content["tables"] = {f"{table}_{name}": each for table, each in tables.items()}
        (folder / name / "pipeline.yaml").write_text(yaml.safe_dump(content))
        for file, text in sql.items():
            (folder / name / file).write_text(text)
        self.settings, self.name, self.position = settings, name, 0
        self.pipeline: Pipeline = load_pipeline(folder / name)
        with session(settings, Account.MIGRATE) as connection:
            migrate_control(connection, settings.root / "sql")
            version = apply_pipeline(connection, settings, self.pipeline)
        with session(settings, Account.STREAM) as connection:
            streams.request_state(connection, name, "running", "a test")
            ledger.begin_at(connection, name, name, {0: 0})
            epoch = leases.acquire_lease(connection, name, version, "a test")
        self.context = WriteContext(name, epoch, version, name)

    def commit(self, spark: SparkSession, values: list[str]) -> None:
        """One batch, the way of a record: decode, transform, classify, write."""
        span = Range(0, self.position, self.position + len(values))
        rows = [(b"k", value.encode(), 0, span.start + n, NOW, None) for n, value in enumerate(values)]
        frame = spark.createDataFrame(rows, KAFKA_COLUMNS)
        table = transform(spark, decode(frame, self.pipeline.source), self.pipeline).toArrow().sort_by("_offset")
        batch = MicroBatch(self.settings, self.pipeline, self.context, span.start, {0: span})
        write_batch(self.settings, self.pipeline, self.context, classify(table, span, batch)[0])
        self.position = span.until

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        place = self.settings.db_data
        with session(self.settings, Account.READ, schema=place) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def quarantined(self) -> dict[int, str]:
        """Offset -> reason."""
        control = self.settings.db_control
        return dict(self.query(f"SELECT record_offset, reason FROM {control}.quarantine WHERE stream = '{self.name}'"))


def cells(columns: list[tuple[str, str, Stored]], seed: int, sample: int | None) -> list[tuple[int, str]]:
    """Number of a column, JSON text: all of them, or some that the seed draws."""
    every = [(number, form) for number in range(len(columns)) for form in FORMS]
    return every if sample is None else random.Random(seed).sample(every, sample)


def meant(column: tuple[str, str, Stored], form: str, *, compared: bool = False) -> Any:
    """What is stored of a JSON text, or REFUSED."""
    _, source, stored = column
    value = source_value(source, form)
    if value is None or value is REFUSED:
        return value
    return (_exactly(stored) if compared else stored)(value)


SIZES = [pytest.param(SAMPLE, id="sample"), pytest.param(None, id="all", marks=pytest.mark.full)]
"""A part for every run, all for a full one."""


@pytest.mark.parametrize("sample", SIZES)
def test_a_column_stores_what_is_meant(
    spark: SparkSession, mariadb: Settings, tmp_path: Path, run_seed: int, sample: int | None
) -> None:
    """Every type and every form: the row has the value, or the reason names the field or the column."""
    columns = {"id": "BIGINT NOT NULL"} | {f"c{number}": each[0] for number, each in enumerate(COLUMNS)}
    selected = ", ".join(f"f{number} AS c{number}" for number in range(len(COLUMNS)))
    table = {"from": "t.sql", "kind": "event", "key": ["id"], "columns": columns}
    sql = {"t.sql": f"SELECT id, {selected} FROM records"}
    stage = Stage(mariadb, tmp_path, [source for _, source, _ in COLUMNS], {"t": table}, sql)
    given = cells(COLUMNS, run_seed, sample)
    stage.commit(spark, [f'{{"id": {n}, "f{number}": {form}}}' for n, (number, form) in enumerate(given)])
    rows = {row[0]: row[1:] for row in stage.query(f"SELECT {', '.join(columns)} FROM t_{stage.name}")}
    refused = stage.quarantined()
    wrong = []
    for n, (number, form) in enumerate(given):
        expected = meant(COLUMNS[number], form)
        found = REFUSED if n in refused else rows[n][number] if n in rows else "nowhere"
        if found is not expected and (found != expected or expected is REFUSED):
            wrong.append((*COLUMNS[number][:2], form, expected, found, refused.get(n)))
        elif n in refused and "half a character" not in refused[n]:
            assert f"f{number}: " in refused[n] or f"c{number}" in refused[n], (form, refused[n])
    assert wrong == []


@pytest.mark.parametrize("sample", SIZES)
def test_a_key_is_the_value_that_is_meant(
    spark: SparkSession, mariadb: Settings, tmp_path: Path, run_seed: int, sample: int | None
) -> None:
    """Every type of key: two records are one row only if they mean one key, in one batch and in two."""
    tables, sql = {}, {}
    for number, (declared, _, _) in enumerate(KEYS):
        key = {"k": f"{declared} NOT NULL", "first": "BIGINT"}
        tables[f"t{number}"] = {"from": f"t{number}.sql", "kind": "event", "key": ["k"], "columns": key}
        # The record that sets another field is not this table's; one whose field is no value has its reason before.
        sql[f"t{number}.sql"] = f"SELECT f{number} AS k, id AS first FROM records WHERE f{number} IS NOT NULL"
    stage = Stage(mariadb, tmp_path, [source for _, source, _ in KEYS], tables, sql)
    given = cells(KEYS, run_seed, sample and sample // 2)
    values = [f'{{"id": {n}, "f{number}": {form}}}' for n, (number, form) in enumerate(given)]
    stage.commit(spark, values[: len(values) // 2])
    stage.commit(spark, values[len(values) // 2 :])
    refused, expected_refused = stage.quarantined(), set()
    for number, column in enumerate(KEYS):
        expected: dict[Any, int] = {}
        for n, (of, form) in enumerate(given):
            if of == number and (value := meant(column, form, compared=True)) is REFUSED:
                expected_refused.add(n)
            elif of == number and value is not None:
                expected.setdefault(value, n)
        assert dict(stage.query(f"SELECT k, first FROM t{number}_{stage.name}")) == expected, column[:2]
    assert refused.keys() == expected_refused


@pytest.mark.parametrize("sample", SIZES)
def test_the_newest_version_is_the_greatest_that_is_meant(
    spark: SparkSession, mariadb: Settings, tmp_path: Path, run_seed: int, sample: int | None
) -> None:
    """Every type of version: the row is that of the greatest value, the first of equal ones, also over two batches."""
    tables, sql = {}, {}
    for number, (declared, _, _) in enumerate(COMPARED):
        columns = {"k": "INT NOT NULL", "v": f"{declared} NOT NULL", "at": "BIGINT"}
        tables[f"t{number}"] = {
            "from": f"t{number}.sql", "kind": "entity", "key": ["k"], "version": "v", "columns": columns,
        }  # fmt: skip
        sql[f"t{number}.sql"] = f"SELECT 1 AS k, f{number} AS v, id AS at FROM records WHERE f{number} IS NOT NULL"
    stage = Stage(mariadb, tmp_path, [source for _, source, _ in COMPARED], tables, sql)
    given = cells(COMPARED, run_seed, sample and sample // 2)
    values = [f'{{"id": {n}, "f{number}": {form}}}' for n, (number, form) in enumerate(given)]
    stage.commit(spark, values[: len(values) // 2])
    stage.commit(spark, values[len(values) // 2 :])
    for number, column in enumerate(COMPARED):
        found = [(meant(column, form, compared=True), -n) for n, (of, form) in enumerate(given) if of == number]
        kept = [each for each in found if each[0] is not REFUSED and each[0] is not None]
        rows = stage.query(f"SELECT v, `at` FROM t{number}_{stage.name}")
        assert rows == ([(max(kept)[0], -max(kept)[1])] if kept else []), column[:2]
