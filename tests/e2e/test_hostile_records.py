"""Records that make a task fail: each is quarantined with a reason, and its neighbours are written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from support.edges import SECONDS, Edge
from tidemill.config import Account, Settings
from tidemill.kafka import clients
from tidemill.store.connection import session
from tidemill.store.control import ledger
from tidemill.store.control.suspects import Suspect, read_suspects, record_suspect
from tidemill.store.migrations import migrate_control
from tidemill.store.write.context import Range, WriteContext
from tidemill.stream import watchdog
from tidemill.stream.suspicion import MOST_ATTEMPTS, REASON

_number = itertools.count(1)
SCHEMA = "id BIGINT, note STRING, ms BIGINT, digits STRING"
SELECT = """
SELECT id, CASE WHEN note LIKE 'raise%' THEN raise_error(note) WHEN ms IS NOT NULL THEN
    CAST(timestamp_millis(ms) AS STRING) ELSE substr(note, 1, 16) END AS note
FROM records
WHERE assert_true(id IS NULL OR id < 1000000) IS NULL
"""


@pytest.fixture
def hostile(
    mariadb: Settings, kafka: Settings, local_spark: SparkSession, tmp_path: Path
) -> Iterator[Callable[..., Edge]]:
    """Makes streams whose transform raises for some records."""
    made: list[Edge] = []
    with session(mariadb, Account.MIGRATE) as connection:
        migrate_control(connection, mariadb.root / "sql")

    def make(partitions: int = 1, **source: Any) -> Edge:
        folder = tmp_path / f"hostile{next(_number)}"
        folder.mkdir()
        edge = Edge(kafka, local_spark, clients.admin(kafka), folder, select=SELECT)
        edge.declare(schema=SCHEMA, **source)
        # Since Kafka 4 a broker takes no time that is more than an hour ahead, unless its topic is told to.
        edge.create(partitions, **{"message.timestamp.after.max.ms": str(2**63 - 1)})
        made.append(edge)
        return edge

    yield make
    for each in made:
        each.stop()


def produce(stream: Edge, records: list[dict[str, Any]], partition: int = 0) -> None:
    """Put records into a partition, and wait until Kafka has them."""
    producer = clients.producer(stream.settings)
    for record in records:
        producer.produce(stream.name, json.dumps(record).encode(), partition=partition)
    assert producer.flush(SECONDS) == 0


def reasons(stream: Edge) -> dict[tuple[int, int], str]:
    """Partition and offset -> why the record was quarantined."""
    found = stream.query(
        f"SELECT partition_id, record_offset, reason FROM quarantine WHERE stream = '{stream.name}'"
        " AND record_value IS NOT NULL ORDER BY partition_id, record_offset"
    )
    return {(partition, offset): reason for partition, offset, reason in found}


def test_a_record_that_an_expression_raises_for_is_quarantined(hostile: Callable[..., Edge]) -> None:
    """With what the expression reports; the words of a record make no error of another kind of it."""
    stream = hostile(partitions=2)
    produce(stream, [{"id": number, "note": "good"} for number in range(200)])
    bad: list[dict[str, Any]] = [
        {"id": 900, "ms": 9 * 10**18},
        {"id": 901, "note": "raise java.lang.OutOfMemoryError: No space left on device"},
        {"id": 902, "note": "raise\ntidemill.errors.Fenced: [TM-STORE-LEASE-LOST] none"},
        {"id": 5_000_000},
    ]
    produce(stream, [{"id": 300}, bad[0], {"id": 301}, *bad[1:3], {"id": 302}, bad[3]], partition=1)
    stream.start()
    stream.wait_drained()
    stream.stop()
    assert stream.ids() == [*range(200), 300, 301, 302]
    found = reasons(stream)
    assert found.keys() == {(1, 1), (1, 3), (1, 4), (1, 6)}
    assert [reason.partition(": ")[2] for reason in found.values()] == [
        "ArithmeticException: long overflow",
        f"[USER_RAISED_EXCEPTION] {bad[1]['note']}",
        f"[USER_RAISED_EXCEPTION] {' '.join(bad[2]['note'].split())}",
        "[USER_RAISED_EXCEPTION] '((id IS NULL) OR (id < 1000000))' is not true!",
    ]
    assert stream.differences() == []


def test_a_record_of_any_time_is_written_or_quarantined(hostile: Callable[..., Edge]) -> None:
    """Kafka takes any 64 bits as milliseconds: seconds, nanoseconds and negative numbers among the good ones."""
    stream = hostile()
    now = 1_770_000_000_000
    nanoseconds = now * 10**6
    times = [now, nanoseconds, 2**31 * 1000, 4 * 10**12, 1, 253_402_300_800_000, nanoseconds, nanoseconds, 2**63 - 1]
    times.append(now)
    producer = clients.producer(stream.settings)
    for number, milliseconds in enumerate(times):
        producer.produce(stream.name, json.dumps({"id": number}).encode(), partition=0, timestamp=milliseconds)
    assert producer.flush(SECONDS) == 0
    assert stream.ends() == {0: len(times)}
    run = stream.start()
    stream.wait_drained()
    stream.stop()
    assert run.driver.status.columns()["newest_at"] is not None
    too_far = [number for number, milliseconds in enumerate(times) if milliseconds * 1000 >= 2**63]
    assert stream.ids() == [number for number in range(len(times)) if number not in too_far]
    found = reasons(stream)
    assert [offset for _, offset in found] == too_far
    assert all(str(times[offset]) in reason for (_, offset), reason in found.items())
    assert stream.differences() == []


def test_a_record_at_which_two_drivers_ended_is_quarantined_unread(hostile: Callable[..., Edge]) -> None:
    """By its coordinates; its neighbours are read part by part, and nothing is suspect afterwards."""
    stream = hostile(partitions=2)
    produce(stream, [{"id": number} for number in range(40)])
    produce(stream, [{"id": number} for number in range(100, 110)], partition=1)
    with session(stream.settings, Account.STREAM) as connection:
        context = WriteContext(stream.name, 1, stream.version, stream.name)
        ledger.begin_at(connection, stream.name, stream.name, {0: 0, 1: 0})
        record_suspect(connection, context, Suspect(Range(0, 0, 1), 0, MOST_ATTEMPTS))
        record_suspect(connection, context, Suspect(Range(1, 0, 1_000), 0, 1))
        stream.start()
        stream.wait_drained()
        stream.stop()
        assert read_suspects(connection, context) == ()
    assert stream.ids() == [*range(1, 40), *range(100, 110)]
    assert stream.query(
        f"SELECT partition_id, record_offset, record_value, reason FROM quarantine WHERE stream = '{stream.name}'"
    ) == [(0, 0, None, REASON)]
    assert stream.query(f"SELECT COUNT(*) FROM commits WHERE stream = '{stream.name}' AND partition_id = 1") == [(10,)]
    assert stream.differences() == []


def test_a_batch_that_is_only_slow_is_written_by_the_next_driver(
    hostile: Callable[..., Edge], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver whose batch passes the limit ends and names the ranges; the next one writes them part by part."""
    stream = hostile()
    produce(stream, [{"id": number} for number in range(40)])
    usual = stream.settings
    with monkeypatch.context() as patched:
        patched.setattr(watchdog, "INTERVAL_SECONDS", 0.01)
        stream.settings = usual.model_copy(update={"stuck_batch_seconds": 1e-6})
        error = stream.start().error()
    assert (error.code, str(error.value).partition(":")[0]) == ("TM-STREAM-BATCH-STUCK", "partition 0")
    context = WriteContext(stream.name, 1, stream.version, stream.name)
    with session(usual, Account.STREAM) as connection:
        assert [suspect.range for suspect in read_suspects(connection, context)] == [Range(0, 0, 40)]
        stream.settings = usual
        stream.start()
        stream.wait_drained()
        stream.stop()
        assert read_suspects(connection, context) == ()
    assert stream.ids() == list(range(40))
    assert reasons(stream) == {}
    assert stream.differences() == []
