"""What a record becomes before it is written: rows of several tables, a deletion, or a reason."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyspark.sql import SparkSession

from support.cases import KAFKA_COLUMNS
from tidemill.config import Settings
from tidemill.errors import StreamError
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.transaction import Batch
from tidemill.stream.plan.decode import decode
from tidemill.stream.plan.transform import transform
from tidemill.stream.task import MicroBatch, classify

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
COLUMNS = {"id": "BIGINT NOT NULL", "team": "VARCHAR(8)", "seen": "DATETIME(6) NOT NULL"}


def make(folder: Path, **changes: Any) -> Pipeline:
    """A pipeline of an entity and an event table over one topic."""
    source = {"topic": "t", "schema": "id BIGINT, team STRING, points INT, seen TIMESTAMP", "key": "id BIGINT"}
    content: dict[str, Any] = {
        "name": "two",
        "owner": "tests",
        "source": source | changes.pop("source", {}),
        "tables": {
            "latest": {"from": "latest.sql", "kind": "entity", "key": ["id"], "version": "seen", "columns": COLUMNS},
            "goals": {
                "from": "goals.sql",
                "kind": "event",
                "key": ["id", "seen"],
                "columns": {"id": "BIGINT NOT NULL", "seen": "DATETIME(6) NOT NULL", "points": "INT NOT NULL"},
            },
        },
    }
    place = folder / "two"
    place.mkdir()
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content | changes))
    (place / "latest.sql").write_text("SELECT id, upper(team) AS team, seen FROM records")
    (place / "goals.sql").write_text("SELECT r.id, r.seen, r.points FROM records AS r WHERE r.points > 0")
    return load_pipeline(place)


def classified(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, messages: list[tuple[Any, ...]]
) -> tuple[Batch, dict[str, int]]:
    """The batch that messages ``(key, value, headers)`` make, their offsets counting from 0."""
    rows = [(key, value, 0, offset, NOW, headers) for offset, (key, value, headers) in enumerate(messages)]
    frame = transform(spark, decode(spark.createDataFrame(rows, KAFKA_COLUMNS), pipeline.source), pipeline)
    span = Range(0, 0, len(messages))
    batch = MicroBatch(settings, pipeline, WriteContext("two", 1, 1, "t"), 0, {0: span})
    table: pa.Table = frame.toArrow()
    return classify(table.sort_by("_offset"), span, batch)


def value(**fields: Any) -> bytes:
    """A record's bytes."""

    return json.dumps({"id": 1, "team": "red", "points": 1, "seen": "2026-01-01T00:00:00Z", **fields}).encode()


def test_one_record_makes_a_row_of_each_table(spark: SparkSession, settings: Settings, tmp_path: Path) -> None:
    """Each table has its own transform and its own WHERE; a record that no table wants is filtered."""
    pipeline = make(tmp_path)
    batch, _ = classified(spark, settings, pipeline, [(b"1", value(), None), (b"2", value(id=2, points=0), None)])
    assert batch.rows["latest"].to_pydict()["team"] == ["RED", "RED"]
    assert batch.rows["goals"].to_pydict()["_offset"] == [0]
    assert (batch.filtered, len(batch.rejected)) == (0, 0)


def test_a_record_that_one_table_refuses_goes_to_none(spark: SparkSession, settings: Settings, tmp_path: Path) -> None:
    """It is quarantined whole, with the column's name; a NULL for a table that filters the record does not matter."""
    pipeline = make(tmp_path)
    messages = [(b"1", value(seen=None), None), (b"2", value(id=2, points=None), None)]
    batch, _ = classified(spark, settings, pipeline, messages)
    assert [(bad.offset, bad.reason) for bad in batch.rejected] == [(0, "column seen is NULL")]
    assert batch.rows["latest"].to_pydict()["id"] == [2]
    assert batch.rows["goals"].num_rows == 0


@pytest.mark.parametrize("key", [b"7", b'"7"', b'{"id": 7}'])
def test_a_tombstone_deletes_from_the_entity(
    spark: SparkSession, settings: Settings, tmp_path: Path, key: bytes
) -> None:
    """Its key is the column's text, or a JSON object; the event table does not hear of it."""
    batch, _ = classified(spark, settings, make(tmp_path), [(key, None, None)])
    assert {name: rows.to_pydict() for name, rows in batch.deleted.items()} == {"latest": {"id": [7], "_offset": [0]}}
    assert (batch.filtered, len(batch.rejected)) == (0, 0)


@pytest.mark.parametrize(
    ("source", "key", "reason"),
    [
        ({"key": None}, b"7", "source.key does not declare"),
        ({}, b"seven", "its key is not id BIGINT"),
        ({}, None, "its key is not id BIGINT"),
        ({"key": "team STRING"}, b"red", "no entity has the key"),
    ],
)
def test_a_tombstone_that_deletes_nothing_is_quarantined(
    spark: SparkSession, settings: Settings, tmp_path: Path, source: dict[str, Any], key: bytes | None, reason: str
) -> None:
    """With the reason: what it should delete is not known."""
    batch, _ = classified(spark, settings, make(tmp_path, source=source), [(key, None, None)])
    assert batch.deleted == {}
    assert reason in batch.rejected[0].reason
    assert batch.rejected[0].key == key


def test_a_rejected_record_keeps_all_that_kafka_has(spark: SparkSession, settings: Settings, tmp_path: Path) -> None:
    """Key, value, headers and time; bytes that are no text as they are."""
    headers = [("trace", b"\xff\x00"), ("empty", None)]
    batch, _ = classified(spark, settings, make(tmp_path), [(b"\xfe", b"\xff{", headers)])
    (bad,) = batch.rejected
    assert (bad.key, bad.value, bad.value_bytes) == (b"\xfe", b"\xff{", 2)
    assert bad.headers == '[["trace", "/wA="], ["empty", null]]'
    assert bad.timestamp_us == int(NOW.timestamp() * 1_000_000)
    assert bad.reason == "the value is not UTF-8"


def test_a_value_over_the_limit_is_cut_and_quarantined(spark: SparkSession, settings: Settings, tmp_path: Path) -> None:
    """It is not even parsed; its true size is known, and its first 64 KiB are kept."""
    pipeline = make(tmp_path, source={"max_record_bytes": 100_000})
    large = value(team="x" * 200_000)
    batch, _ = classified(spark, settings, pipeline, [(b"1", large, None), (b"2", value(id=2), None)])
    (bad,) = batch.rejected
    assert bad.reason == f"the value has {len(large)} bytes, over 100000"
    assert (bad.value_bytes, bad.value) == (len(large), large[:65_536])
    assert batch.rows["latest"].to_pydict()["id"] == [2]


def test_checks_quarantine_or_warn(spark: SparkSession, settings: Settings, tmp_path: Path) -> None:
    """What does not meet a check is quarantined with its name, or written and counted; NULL meets every check."""
    checks = [
        {"name": "known_team", "table": "latest", "expect": "team IN ('RED', 'BLUE')"},
        {"name": "few_points", "table": "goals", "expect": "points < 10", "otherwise": "warn"},
    ]
    messages = [
        (b"1", value(team="green"), None),
        (b"2", value(id=2, team=None), None),
        (b"3", value(id=3, points=11), None),
    ]
    batch, warnings = classified(spark, settings, make(tmp_path, checks=checks), messages)
    reason = "check known_team: expected team IN ('RED', 'BLUE')"
    assert [(bad.offset, bad.reason) for bad in batch.rejected] == [(0, reason)]
    assert batch.rows["latest"].to_pydict()["id"] == [2, 3]
    assert (warnings, batch.warned) == ({"few_points": 1}, 1)


def test_a_check_may_end_the_stream(spark: SparkSession, settings: Settings, tmp_path: Path) -> None:
    """The sentence names the record."""
    checks = [{"name": "sane", "table": "goals", "expect": "points < 10", "otherwise": "fail"}]
    with pytest.raises(StreamError, match=r"check sane is not met.* partition 0, offset 1: expected points < 10"):
        classified(
            spark, settings, make(tmp_path, checks=checks), [(b"1", value(), None), (b"2", value(points=99), None)]
        )


def test_a_key_out_of_range_becomes_no_other_key(spark: SparkSession, settings: Settings, tmp_path: Path) -> None:
    """It is quarantined, and not wrapped to a number that is another row's key; the same for a tombstone's key."""
    latest = {"from": "latest.sql", "kind": "entity", "key": ["id"], "version": "seen"}
    tables = {"latest": latest | {"columns": COLUMNS | {"id": "INT NOT NULL"}}}
    messages = [
        (b"1", value(id=3_000_000_000), None),
        (b"3000000000", None, None),
        (b"1.9", None, None),
        (b"7", value(id=7), None),
    ]
    batch, _ = classified(spark, settings, make(tmp_path, tables=tables), messages)
    assert [bad.reason.split(", and ")[-1] for bad in batch.rejected] == [
        "column id: 3000000000 does not fit INT NOT NULL",
        "its key does not fit the key of the table",
        "its key is not id BIGINT",
    ]
    assert batch.rows["latest"].to_pydict()["id"] == [7]
    assert (batch.deleted, batch.filtered) == ({}, 0)
