"""Hostile records among good ones, round by round, through a driver whose transform uses what can raise."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from support.edges import SECONDS, Edge
from support.hostile import SCHEMA, SELECT, Drawn, Hostile, good
from tidemill.config import Account, Settings
from tidemill.kafka import clients
from tidemill.store.connection import session
from tidemill.store.migrations import migrate_control


@pytest.fixture
def stream(mariadb: Settings, kafka: Settings, local_spark: SparkSession, tmp_path: Path) -> Iterator[Edge]:
    """A stream whose transform raises for some records."""
    with session(mariadb, Account.MIGRATE) as connection:
        migrate_control(connection, mariadb.root / "sql")
    folder = tmp_path / "fuzzed"
    folder.mkdir()
    edge = Edge(kafka, local_spark, clients.admin(kafka), folder, select=SELECT)
    edge.declare(schema=SCHEMA)
    edge.create(1, **{"message.timestamp.after.max.ms": str(2**63 - 1)})
    yield edge
    edge.stop()


def produce(stream: Edge, records: list[Hostile]) -> None:
    """Put records into the partition, and wait until Kafka has them."""
    producer = clients.producer(stream.settings)
    for each in records:
        producer.produce(stream.name, each.value, each.key, 0, timestamp=each.timestamp_ms, headers=each.headers)
    assert producer.flush(SECONDS) == 0


def assert_each_is_somewhere(stream: Edge, records: list[Hostile]) -> None:
    """Good ones are rows; each of the others is a row or in quarantine with a reason. The ledger agrees."""
    rows = {
        offset: (number, note)
        for offset, number, note in stream.query(
            f"SELECT _offset, id, note FROM t_{stream.name}", stream.settings.db_data
        )
    }
    reasons = dict(
        stream.query(f"SELECT record_offset, reason FROM quarantine WHERE stream = '{stream.name}'"),
    )
    assert not rows.keys() & reasons.keys()
    nowhere = set(range(len(records))) - rows.keys() - reasons.keys()
    assert len(nowhere) == stream.total("duplicate_rows"), [records[offset] for offset in nowhere]
    wrong = [
        (each, rows.get(offset), reasons.get(offset))
        for offset, each in enumerate(records)
        if each.row is not None and rows.get(offset) != each.row
    ]
    assert wrong == []
    vague = [reason for reason in reasons.values() if len(reason) < 10 or "_stage" in reason or "calling o" in reason]
    assert vague == []
    assert stream.differences() == []


@pytest.mark.parametrize(("rounds", "hostile"), [(1, 25), pytest.param(50, 100, marks=pytest.mark.full)])
def test_hostile_records_stop_no_stream(stream: Edge, run_seed: int, rounds: int, hostile: int) -> None:
    """After each round the stream is drained by the same driver, and every record is where it belongs."""
    drawn, chance = Drawn(run_seed), random.Random(run_seed)
    records: list[Hostile] = []
    stream.start()
    for _ in range(rounds):
        fresh = [drawn.record() for _ in range(hostile)]
        fresh += [good(len(records) + number) for number in range(hostile)]
        chance.shuffle(fresh)
        records += fresh
        produce(stream, fresh)
        stream.wait_drained()
        assert stream.ends() == {0: len(records)}
        assert_each_is_somewhere(stream, records)
    assert len(stream.runs) == 1
