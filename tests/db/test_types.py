"""Every type of column, written as a task writes it and read back, exactly or not at all."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from tidemill.config import Account, Settings
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import drop_worker_connection, session, worker_connection
from tidemill.store.control import leases, ledger, streams
from tidemill.store.maintenance.verify import verify
from tidemill.store.migrations import apply_pipeline, migrate_control
from tidemill.store.write import bulk_load
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.transaction import Batch, Counts, write_batch

DAY, NOW = dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 23, 59, 59, 999_999)
LARGEST = Decimal("99999999999999999999999999999.999999999")
ALL_BYTES = bytes(range(256)) + b"\\N\t\n\r\\\0\xf0\x9f\xc3\xff"
LONG = "émoji 😀\t\\\n\0'" * 100_000
"""1.6 million bytes."""


@dataclass
class Typed:
    """One table, its pipeline, and how far it is."""

    settings: Settings
    pipeline: Pipeline
    write_context: WriteContext
    position: int = 0

    @property
    def table(self) -> str:
        return next(iter(self.pipeline.tables))

    def write(self, columns: dict[str, pa.Array]) -> Counts:
        """Commit rows; the key ``id`` counts them if there is none."""
        size = len(next(iter(columns.values())))
        offsets = pa.array(range(self.position, self.position + size), pa.int64())
        own = {} if "id" in columns or "id" not in self.pipeline.tables[self.table].columns else {"id": offsets}
        rows = pa.table(own | columns | {"_offset": offsets})
        batch = Batch(self.position, Range(0, self.position, self.position + size), rows={self.table: rows})
        counts = write_batch(self.settings, self.pipeline, self.write_context, batch)
        self.position += size
        return counts

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        place = self.settings.db_data
        with session(self.settings, Account.READ, schema=place) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def values(self, column: str = "v") -> list[Any]:
        """A column in order of the offsets."""
        return [row[0] for row in self.query(f"SELECT {column} FROM {self.table} ORDER BY _offset")]

    def reasons(self) -> dict[int, str]:
        """Offset -> why it was set aside."""
        found = self.query(
            f"SELECT record_offset, reason FROM {self.settings.db_control}.quarantine"
            f" WHERE stream = '{self.pipeline.name}' ORDER BY record_offset"
        )
        return dict(found)

    def verify(self) -> list[str]:
        """What does not agree."""
        with session(self.settings, Account.READ) as connection:
            return verify(connection, self.settings, self.pipeline)


Maker = Callable[..., Typed]


@pytest.fixture
def typed(mariadb: Settings, tmp_path: Path) -> Maker:
    """A function that makes an event table of given columns."""

    def make(columns: dict[str, str], key: tuple[str, ...] = ("id",)) -> Typed:
        name = f"typed{random.randrange(10**9)}"
        if key == ("id",):
            columns = {"id": "BIGINT NOT NULL"} | columns
        content = {
            "name": name,
            "owner": "tests",
            "source": {"topic": name, "schema": ", ".join(f"{column} STRING" for column in columns)},
            "tables": {f"t_{name}": {"from": "t.sql", "kind": "event", "key": [*key], "columns": columns}},
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / "pipeline.yaml").write_text(yaml.safe_dump(content))
        (tmp_path / name / "t.sql").write_text(f"SELECT {', '.join(columns)} FROM records")
        pipeline = load_pipeline(tmp_path / name)
        with session(mariadb, Account.MIGRATE) as connection:
            migrate_control(connection, mariadb.root / "sql")
            version = apply_pipeline(connection, mariadb, pipeline)
        with session(mariadb, Account.STREAM) as connection:
            streams.request_state(connection, name, "running", "a test")
            ledger.begin_at(connection, name, name, {0: 0})
            epoch = leases.acquire_lease(connection, name, version, "a test")
        return Typed(mariadb, pipeline, WriteContext(name, epoch, version, name))

    return make


@pytest.fixture(params=["LOAD DATA", "multi-row statements"])
def way(request: pytest.FixtureRequest, mariadb: Settings) -> str:
    """Rows go both ways that there are."""
    drop_worker_connection(mariadb)
    if request.param != "LOAD DATA":
        bulk_load._without_files.add(worker_connection(mariadb))
    return str(request.param)


UTC = pa.timestamp("us", "UTC")
CARRIED: list[tuple[str, pa.DataType, list[Any]]] = [
    ("TINYINT", pa.int8(), [-128, 127]),
    ("SMALLINT", pa.int16(), [-(2**15), 2**15 - 1]),
    ("MEDIUMINT", pa.int32(), [-(2**23), 2**23 - 1]),
    ("INT", pa.int32(), [-(2**31), 2**31 - 1]),
    ("BIGINT", pa.int64(), [-(2**63), 2**63 - 1]),
    ("BIGINT UNSIGNED", pa.decimal128(20, 0), [Decimal(2**64 - 1), Decimal(0)]),
    (
        "DECIMAL(38,9)",
        pa.decimal128(38, 9),
        [LARGEST, LARGEST.copy_negate(), Decimal("0.000000001"), Decimal("-1E-9"), Decimal(0)],
    ),
    ("DECIMAL(65,30)", pa.decimal256(65, 30), [Decimal("9" * 35 + "." + "9" * 30)]),
    ("DOUBLE", pa.float64(), [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, 123456789.123456789]),
    ("DOUBLE", pa.float32(), [0.5, -1.25]),
    ("BOOLEAN", pa.bool_(), [True, False]),
    ("DATE", pa.date32(), [DAY, dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    ("DATETIME(6)", UTC, [NOW, dt.datetime(1000, 1, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 1)]),
    ("DATETIME(6)", pa.timestamp("us"), [NOW, dt.datetime(9999, 12, 31, 23, 59, 59, 999_999)]),
    ("TIMESTAMP(6) NULL", UTC, [NOW, dt.datetime(1970, 1, 1, 0, 0, 1), dt.datetime(2026, 3, 29, 2, 30)]),
    ("TIME(6)", pa.time64("us"), [dt.time(23, 59, 59, 999_999), dt.time(0)]),
    ("TIME(6)", pa.duration("us"), [dt.timedelta(hours=-838, minutes=-59, seconds=-59, microseconds=-999_999)]),
    ("YEAR", pa.int32(), [1901, 2155]),
    (
        "VARCHAR(10)",
        pa.string(),
        ["", "NULL", "\\N", "😀é漢", "a\tb\nc\rd\0e", "\\", "it's", '"', "%s", "  x  ", "0" * 10],
    ),
    ("CHAR(4)", pa.string(), ["", "ab", "😀é漢x"]),
    ("TEXT", pa.large_string(), ["", "x" * 65_535]),
    ("MEDIUMTEXT", pa.string(), [LONG]),
    ("LONGTEXT", pa.string(), [LONG, "", "\\t"]),
    ("BINARY(3)", pa.binary(3), [b"\0\xff\n", b"\\N\t"]),
    ("VARBINARY(300)", pa.binary(), [ALL_BYTES, b"", b"\\", b"\xf0\x9f", b"\xf0\t\xc3\\"]),
    ("MEDIUMBLOB", pa.large_binary(), [ALL_BYTES * 10_000, b"\0"]),
    ("BLOB", pa.string(), ["text é"]),
    ("TEXT", pa.binary(), ["bytes that are text: é😀".encode()]),
    ("JSON", pa.string(), ['{"a": [1, "é😀\\n"]}', "null", '"\\\\"']),
    ("ENUM('x','é')", pa.string(), ["x", "é"]),
    ("SET('p','q')", pa.string(), ["p,q", "q", ""]),
    ("UUID", pa.string(), ["123e4567-e89b-12d3-a456-426614174000"]),
    ("INT", pa.null(), []),
]
"""Declared type, Arrow type, values. NULL is added to each."""


def test_every_type_comes_back_as_it_was_written(typed: Maker, way: str) -> None:
    """Extremes, what means something to the bulk load, more than a megabyte, and NULL beside the empty string."""
    columns = {f"c{number}": declared for number, (declared, _, _) in enumerate(CARRIED)}
    size = max(len(values) for _, _, values in CARRIED) + 1
    given = [[*values, *[None] * (size - len(values))] for _, _, values in CARRIED]
    table = typed(columns)
    arrays = {name: pa.array(values, kind) for name, values, (_, kind, _) in zip(columns, given, CARRIED, strict=True)}
    assert table.write(arrays).written == size
    for number, (declared, kind, values) in enumerate(CARRIED):
        found = table.values(f"c{number}")
        wanted = [_read_as(declared, kind, value) for value in values]
        assert found == [*wanted, *[None] * (size - len(values))], (declared, kind)
    assert table.verify() == []


def _read_as(declared: str, kind: pa.DataType, value: Any) -> Any:
    """A value as PyMySQL returns it."""
    if isinstance(value, dt.time):
        return dt.datetime.combine(dt.date.min, value) - dt.datetime.combine(dt.date.min, dt.time())
    if declared == "BLOB" and isinstance(value, str):
        return value.encode()
    if declared == "TEXT" and isinstance(value, bytes):
        return value.decode()
    return int(value) if declared == "BIGINT UNSIGNED" else value


REFUSED: list[tuple[str, pa.DataType, Any, Any, str]] = [
    ("TINYINT", pa.int32(), 1, 128, "Out of range"),
    ("BIGINT", pa.decimal128(20, 0), 1, Decimal(2**63), "Out of range"),
    ("INT UNSIGNED", pa.int64(), 1, -1, "Out of range"),
    ("INT", pa.string(), "1", "1x", "v"),
    ("INT", pa.string(), "1", "", "Incorrect integer"),
    ("INT NOT NULL", pa.int32(), 1, None, "v"),
    ("DECIMAL(38,9)", pa.decimal256(40, 9), LARGEST, Decimal("1E+29"), "Out of range"),
    ("DOUBLE", pa.float64(), 1.5, float("nan"), "Incorrect double"),
    ("DOUBLE", pa.float64(), 1.5, float("inf"), "Incorrect double"),
    ("DOUBLE", pa.float64(), 1.5, float("-inf"), "Incorrect double"),
    ("FLOAT", pa.float64(), 1.5, 1e39, "Out of range"),
    ("DATE", pa.string(), "2024-02-29", "2023-02-29", "v"),
    ("DATE", pa.string(), "2024-02-29", "0000-00-00", "v"),
    ("DATETIME(6) NOT NULL", UTC, NOW, None, "v"),
    ("TIME(6)", pa.duration("us"), dt.timedelta(1), dt.timedelta(hours=839), "v"),
    ("YEAR", pa.int32(), 2024, 1900, "v"),
    ("VARCHAR(3)", pa.string(), "😀é漢", "abcd", "v"),
    ("VARCHAR(3)", pa.binary(), b"abc", b"a\xff", "Incorrect string"),
    ("VARCHAR(3) CHARACTER SET ascii", pa.string(), "abc", "é", "Incorrect string"),
    ("TEXT", pa.string(), "x", "x" * 65_536, "v"),
    ("BINARY(2)", pa.binary(), b"\0\1", b"\0\1\2", "v"),
    ("VARBINARY(2)", pa.binary(), b"", b"\0\1\2", "v"),
    ("JSON", pa.string(), "{}", "{", "v"),
    ("ENUM('x','y')", pa.string(), "x", "z", "v"),
    ("UUID", pa.string(), "123e4567-e89b-12d3-a456-426614174000", "zz", "v"),
]
"""Declared type, Arrow type, a value that fits, one that does not, and what the reason says."""


@pytest.mark.parametrize("way", ["LOAD DATA"], indirect=True)
@pytest.mark.parametrize("case", REFUSED, ids=[f"{case[0]} {case[3]!s:.12}" for case in REFUSED])
def test_what_does_not_fit_is_quarantined(typed: Maker, way: str, case: tuple[str, pa.DataType, Any, Any, str]) -> None:
    """No value becomes another one: the row goes to quarantine with a reason, its neighbours are written."""
    declared, kind, good, bad, reason = case
    table = typed({"v": declared})
    counts = table.write({"v": pa.array([good, bad, good, bad, good], kind)})
    assert (counts.written, counts.quarantined) == (3, 2)
    assert table.values("id") == [0, 2, 4]
    assert table.reasons().keys() == {1, 3}
    assert all(reason in said and "at row" not in said for said in table.reasons().values()), table.reasons()


def test_all_that_does_not_fit_in_one_batch(typed: Maker, way: str) -> None:
    """Rows that break a constraint, of which no warning tells the number, are found beside all the others."""
    columns = {f"c{number}": declared for number, (declared, *_) in enumerate(REFUSED)}
    table = typed(columns)
    fits = [good for _, _, good, _, _ in REFUSED]
    rows = [fits]
    for number, (_, _, _, bad, _) in enumerate(REFUSED):
        rows += [[*fits[:number], bad, *fits[number + 1 :]], fits]
    arrays = [pa.array(values, kind) for values, (_, kind, *_) in zip(zip(*rows, strict=True), REFUSED, strict=True)]
    counts = table.write(dict(zip(columns, arrays, strict=True)))
    assert (counts.written, counts.quarantined) == (len(REFUSED) + 1, len(REFUSED))
    assert table.values("id") == list(range(0, len(rows), 2))
    # The reason names the column of the row's one bad value.
    assert [re.findall(r"\bc\d+\b", reason) for reason in table.reasons().values()] == [[name] for name in columns]
    assert table.verify() == []


def test_a_key_of_several_types(typed: Maker, way: str) -> None:
    """Text, date, bytes and decimal: equal only if all parts are, case, accents and trailing bytes included."""
    columns = {
        "name": "VARCHAR(20) NOT NULL",
        "day": "DATE NOT NULL",
        "code": "VARBINARY(8) NOT NULL",
        "amount": "DECIMAL(38,9) NOT NULL",
        "v": "INT",
    }
    table = typed(columns, key=("name", "day", "code", "amount"))
    keys = [
        ("a", DAY, b"\0", LARGEST), ("A", DAY, b"\0", LARGEST), ("ä", DAY, b"\0", LARGEST), ("", DAY, b"", LARGEST),
        ("a", dt.date(2024, 3, 1), b"\0", LARGEST), ("a", DAY, b"\0\0", LARGEST), ("a", DAY, b"\xff\n", LARGEST),
        ("a", DAY, b"\0", Decimal("1E-9")), ("a", DAY, b"\0", LARGEST), ("a", DAY, b"\xff\n", LARGEST),
    ]  # fmt: skip
    kinds = [pa.string(), pa.date32(), pa.binary(), pa.decimal128(38, 9)]
    parts = {
        name: pa.array(values, kind)
        for name, values, kind in zip(columns, zip(*keys, strict=True), kinds, strict=False)
    }
    first = table.write({**parts, "v": pa.array(range(len(keys)), pa.int32())})
    again = table.write({**parts, "v": pa.array(range(len(keys)), pa.int32())})
    assert (first.written, first.duplicate, again.duplicate) == (8, 2, 10)
    assert table.query(f"SELECT name, day, code, amount, v FROM {table.table} ORDER BY v") == [
        (*key, number) for number, key in enumerate(keys[:8])
    ]


def test_an_instant_is_the_same_whatever_the_zone(typed: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """DATETIME and TIMESTAMP hold UTC, whatever zone this machine or the value is in."""
    table = typed({"v": "DATETIME(6)", "w": "TIMESTAMP(6) NULL"})
    drop_worker_connection(table.settings)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        there = pa.array([NOW], UTC).cast(pa.timestamp("us", "Asia/Kathmandu"))
        table.write({"v": there, "w": there})
        drop_worker_connection(table.settings)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (table.values("v"), table.values("w")) == ([NOW], [NOW])
    [[seconds]] = table.query(f"SELECT UNIX_TIMESTAMP(w) FROM {table.table}")
    assert seconds == Decimal("1709251199.999999")


def test_lists_structs_and_maps_become_json(typed: Maker, way: str) -> None:
    """As text that a JSON column takes."""
    kind = pa.struct({"names": pa.list_(pa.string()), "at": pa.date32(), "by": pa.map_(pa.string(), pa.int32())})
    value = {"names": ["é😀\n\t\\\"'", None], "at": DAY, "by": [("k", 1)]}
    table = typed({"v": "JSON"})
    table.write({"v": pa.array([value, None], kind)})
    found = table.values()
    assert json.loads(found[0]) == {"names": value["names"], "at": "2024-02-29", "by": {"k": 1}}
    assert found[1] is None


@pytest.mark.parametrize("way", ["LOAD DATA"], indirect=True)
def test_any_bytes_and_any_text(typed: Maker, way: str) -> None:
    """20,000 values made of what means something to the bulk load or to UTF-8 arrive as they were."""
    chance = random.Random(7)
    special = [*b"\\\t\n\r\0N'\",", 0xF0, 0x9F, 0x98, 0x80, 0xC3, 0xE2, 0x82, 0xFF, 0xED, 0xA0]
    raw = [bytes(chance.choices(special, k=chance.randrange(12))) for _ in range(20_000)]
    text = ["".join(chance.choices("\\\t\n\r\0N'\",é漢😀", k=chance.randrange(12))) for _ in raw]
    table = typed({"v": "VARBINARY(12)", "w": "VARCHAR(12)"})
    table.write({"v": pa.array(raw, pa.binary()), "w": pa.array(text, pa.string())})
    assert table.values("v") == raw
    assert table.values("w") == text


def test_much_text_is_encoded_piece_by_piece() -> None:
    """However large a batch is, encoding it takes the memory of a piece, and so do the offsets of its text."""
    one = pa.array(["x" * 2**20], pa.string())
    rows = pa.table({"id": pa.array(range(400), pa.int64()), "v": pa.chunked_array([one] * 400)})
    before, size, largest = pa.total_allocated_bytes(), 0, 0
    for buffer in bulk_load.encode(rows):
        size += len(buffer)
        largest = max(largest, len(buffer), pa.total_allocated_bytes() - before)
    assert size == sum(len(str(number)) + 2 + 2**20 for number in range(400))
    assert largest < 100 * 2**20
