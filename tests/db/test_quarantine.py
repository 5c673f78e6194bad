"""Rejected records on their way to the quarantine: whatever they add up to, a worker holds few of them at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from support.paths import ROOT
from support.writes import Writer
from tidemill.config import Settings
from tidemill.kafka import clients
from tidemill.kafka.fetch_records import fetch_records
from tidemill.spec.schema import Quarantine
from tidemill.store.maintenance.run import maintain
from tidemill.store.write.ledger_rows import Rejected
from tidemill.store.write.transaction import write_batch
from tidemill.stream.task import RejectedRecords

VALUE_BYTES = 200_000
ALIVE_BYTES = 16 * 2**20
"""More than a statement of records takes, and less than the records of each test add up to."""
REFUSED = "a name that the column is too short for"


def values(offsets: Iterable[int]) -> Iterator[Rejected]:
    """Records as large as in the report, each with its own content."""
    return (Rejected(offset, "it cannot be read", value=b"%8d" % offset * (VALUE_BYTES // 8)) for offset in offsets)


def task_rows(number: int) -> pa.Table:
    """What a task has of records that it rejects, in Spark's columns."""
    rows = {"_offset": pa.array(range(number), pa.int64()), "_error": pa.array(["it cannot be read"] * number)}
    rows |= {"_timestamp": pa.array([0] * number, pa.timestamp("us", "UTC")), "_key": pa.nulls(number, pa.binary())}
    rows |= {"_value": pa.array([made.value for made in values(range(number))], pa.binary())}
    rows |= {"_headers": pa.nulls(number, pa.string()), "_value_bytes": pa.array([VALUE_BYTES] * number, pa.int64())}
    return pa.table(rows)


@pytest.mark.parametrize("refused_by", ["task", "database"])
def test_a_worker_holds_few_of_the_records_that_it_quarantines(entity: Writer, refused_by: str) -> None:
    """All of them are in the quarantine with all their bytes, and never in memory at the same time."""
    number = 200
    if refused_by == "task":
        batch = entity.batch([], rejected=RejectedRecords(task_rows(number)))
    else:
        batch = entity.batch([(at, REFUSED, 1, at) for at in range(number)])
    tracemalloc.start()
    try:
        counts = write_batch(entity.settings, entity.pipeline, entity.write_context, batch, read_raw=values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counts.quarantined == number
    assert stored(entity) == (number, number * VALUE_BYTES)
    assert peak < ALIVE_BYTES < number * VALUE_BYTES, f"{peak / 2**20:.0f} MiB"
    assert entity.verify() == []


def stored(writer: Writer) -> tuple[int, int]:
    """Records and bytes in a stream's quarantine."""
    ((records, size),) = writer.query(
        f"SELECT COUNT(*), CAST(COALESCE(SUM(LENGTH(record_value)), 0) AS SIGNED)"
        f" FROM {writer.settings.db_control}.quarantine WHERE stream = '{writer.pipeline.name}'"
    )
    return int(records), int(size)


def test_above_the_bytes_of_a_day_coordinates_and_reason_are_kept(entity: Writer) -> None:
    """Of all partitions together, whether the task or the database rejects the records; one incident a day."""
    limit = Quarantine(max_bytes_per_day=20)
    entity.pipeline = entity.pipeline.model_copy(update={"quarantine": limit})
    name, fetched = entity.pipeline.name, list[int]()

    def bad(partition: int, number: int) -> tuple[Rejected, ...]:
        start = entity.positions.get(partition, 0)
        return tuple(Rejected(start + n, "bad", 1, b"k", b"123456789") for n in range(number))

    def read_raw(offsets: Iterable[int]) -> Iterator[Rejected]:
        fetched.extend(offsets)
        return (Rejected(offset, "", 1, b"k", b"123456789") for offset in fetched)

    def kept() -> list[tuple[object, ...]]:
        return entity.query(
            "SELECT partition_id, record_offset, record_value, record_at IS NULL, reason"
            f" FROM {entity.settings.db_control}.quarantine WHERE stream = '{name}' ORDER BY id"
        )

    def incidents() -> list[tuple[object, ...]]:
        return entity.query(
            f"SELECT kind, closed_at IS NULL FROM {entity.settings.db_control}.incidents"
            f" WHERE subject = 'stream {name}' ORDER BY id"
        )

    entity.write([], 0, rejected=bad(0, 1))
    assert incidents() == []
    entity.write([], 1, rejected=bad(1, 2))
    assert kept() == [(0, 0, b"123456789", 0, "bad"), (1, 0, b"123456789", 0, "bad"), (1, 1, None, 1, "bad")]
    entity.write([], 1, rejected=bad(1, 1))
    batch = entity.batch([(7, REFUSED, 1, 7)], 2)
    counts = write_batch(entity.settings, entity.pipeline, entity.write_context, batch, read_raw=read_raw)
    assert (counts.quarantined, fetched) == (1, []), "bytes that are not kept are not read"
    assert [row[2:4] for row in kept()[3:]] == [(None, 1), (None, 1)]
    assert incidents() == [("quarantine-full", 1)]
    assert entity.verify() == []

    with entity.connection.cursor() as cursor:  # a day later
        for change in ("incidents SET opened_at = opened_at", "quarantine_bytes SET day = day"):
            cursor.execute(f"UPDATE {change} - INTERVAL 1 DAY")
    maintain(entity.connection, entity.settings, entity.pipeline)
    assert incidents() == [("quarantine-full", 0)]
    entity.write([], 3, rejected=bad(3, 1))
    assert kept()[-1] == (3, 0, b"123456789", 0, "bad")


def make_topic(settings: Settings, name: str, records: Iterable[bytes]) -> None:
    """A topic of one partition with these records."""
    client = clients.admin(settings)
    client.create_topics([NewTopic(name, 1, 1)])[name].result(60)
    producer = clients.producer(settings, {"compression.type": "zstd", "queue.buffering.max.messages": 100_000})
    for number, value in enumerate(records):
        producer.produce(name, value, key=str(number), headers={"n": str(number)}, partition=0)
        producer.poll(0)
    assert producer.flush(60) == 0


def test_records_are_fetched_in_order_and_missing_ones_are_left_out(kafka: Settings) -> None:
    """Near ones and far ones; what retention has removed, and what the topic does not have, costs no other record."""
    make_topic(kafka, "fetched", (b"%d" % number for number in range(3_000)))
    client = clients.admin(kafka)
    for removed in client.delete_records([TopicPartition("fetched", 0, 10)]).values():
        removed.result(60)
    found = list(fetch_records(kafka, "fetched", 0, [2_999, 3, 10, 11, 600, 9, 40]))
    assert [record.offset for record in found] == [10, 11, 40, 600, 2_999]
    assert [(record.key, record.value) for record in found][-1] == (b"2999", b"2999")
    assert found[0].headers == '[["n", "MTA="]]'


_WORKER = """
import json, re, sys
from pathlib import Path
import pyarrow as pa
from tidemill.config import load
from tidemill.kafka.fetch_records import fetch_records
from tidemill.spec import load_pipeline
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.transaction import Batch, write_batch

folder, epoch, version, number = Path(sys.argv[1]), *map(int, sys.argv[2:])
settings, pipeline = load(), load_pipeline(folder)
name = pipeline.name
rows = {"id": pa.array(range(number), pa.int64()), "team": pa.array(["too long for it"] * number)}
rows |= {"points": pa.array([1] * number, pa.int64()), "seen": pa.array([0] * number, pa.timestamp("us", "UTC"))}
table = pa.table(rows | {"_offset": pa.array(range(number), pa.int64())})
batch = Batch(0, Range(0, 0, number), rows={f"t_{name}": table})
context = WriteContext(name, epoch, version, name)


def peak_kb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])


Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
before = peak_kb()
counts = write_batch(
    settings, pipeline, context, batch, read_raw=lambda offsets: fetch_records(settings, name, 0, offsets)
)
print(json.dumps([counts.quarantined, peak_kb() - before]))
"""


@pytest.mark.full
def test_large_records_that_only_the_database_refuses(entity: Writer, kafka: Settings) -> None:
    """A process like a worker reads their bytes from Kafka: 100 MB, of which it holds less than a batch may have."""
    number, bound = 500, entity.pipeline.source.max_bytes_per_batch
    make_topic(kafka, entity.pipeline.name, (os.urandom(VALUE_BYTES) for _ in range(number)))
    folder = Path(str(entity.pipeline.folder))
    arguments = [sys.executable, "-c", _WORKER, str(folder), *map(str, (entity.epoch, entity.version, number))]
    done = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **entity.settings.environment()},
    )
    assert done.returncode == 0, done.stderr
    quarantined, grown_kb = json.loads(done.stdout)
    assert quarantined == number
    assert stored(entity) == (number, number * VALUE_BYTES)
    assert grown_kb * 1024 < bound < number * VALUE_BYTES, f"{grown_kb / 1024:.0f} MiB"
