"""A small stream of its own on a real broker, and what Kafka may do to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from pyspark.sql import SparkSession

from tidemill.config import Account, Settings
from tidemill.errors import TidemillError
from tidemill.kafka import clients, topics
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import leases, streams
from tidemill.store.maintenance.verify import verify
from tidemill.store.migrations import apply_pipeline
from tidemill.store.write.context import WriteContext
from tidemill.stream.driver import Driver
from tidemill.stream.start_offsets import Start, find_start
from tidemill.testing import wait_until

SECONDS = 180
"""More than anything here takes on a busy machine."""


@dataclass
class Run:
    """A driver at work in a thread of its own."""

    driver: Driver
    thread: threading.Thread
    errors: list[TidemillError] = field(default_factory=list)

    def error(self) -> TidemillError:
        """Wait until the driver has failed; returns why."""
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), "the driver goes on"
        assert self.errors, "the driver left without an error"
        return self.errors[0]


@dataclass
class Edge:
    """A small stream of its own: records ``{"id": …}`` from a topic to a table."""

    settings: Settings
    spark: SparkSession
    client: AdminClient
    folder: Path
    kind: str = "event"
    select: str = "SELECT id, note FROM records"
    source: dict[str, Any] = field(default_factory=dict)
    version: int = 0
    runs: list[Run] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def pipeline(self) -> Pipeline:
        return load_pipeline(self.folder)

    def declare(self, **source: Any) -> None:
        """Write the pipeline's folder with these keys of ``source``, and apply it."""
        self.source |= source
        columns = {"id": "BIGINT NOT NULL", "note": "VARCHAR(16)"}
        table = {"from": "t.sql", "kind": self.kind, "key": ["id"], "columns": columns}
        if self.kind == "entity":
            table["version"] = "id"
        content = {
            "name": self.name,
            "owner": "tests",
            "source": {"topic": self.name, "schema": "id BIGINT, note STRING", **self.source},
            "tables": {f"t_{self.name}": table},
            "rollups": {
                f"r_{self.name}": {
                    "of": f"t_{self.name}",
                    "by": {"note": {"expr": "note", "type": "VARCHAR(16)"}},
                    "measures": {"n": "count(*)"},
                }
            },
        }
        (self.folder / "pipeline.yaml").write_text(yaml.safe_dump(content))
        (self.folder / "t.sql").write_text(self.select)
        with session(self.settings, Account.MIGRATE) as connection:
            self.version = apply_pipeline(connection, self.settings, self.pipeline)

    def create(self, partitions: int, **config: str) -> None:
        """Make the topic."""
        topic = NewTopic(self.name, partitions, 1, config=config)

        def made() -> bool:
            # A topic that was deleted a moment ago is still known for another.
            future = self.client.create_topics([topic])[self.name]
            return future.exception() is None

        wait_until(made, SECONDS, "topic made")
        wait_until(lambda: self._has(partitions), SECONDS, "topic known")

    def grow(self, partitions: int) -> None:
        """Add partitions to the topic."""
        self.client.create_partitions([NewPartitions(self.name, partitions)])[self.name].result(SECONDS)
        wait_until(lambda: self._has(partitions), SECONDS, "partitions known")

    def _has(self, partitions: int) -> bool:
        known = self.client.list_topics(timeout=60).topics
        return self.name in known and len(known[self.name].partitions) == partitions

    def send(self, ids: Iterable[int], partition: int = 0, note: str = "") -> None:
        """Put one record for each id into a partition, and wait until Kafka has them."""
        producer = clients.producer(self.settings)
        send(producer, self.name, ids, partition, note)
        assert producer.flush(SECONDS) == 0

    def delete(self, number: int, partition: int) -> None:
        """Put a tombstone for an id into a partition."""
        producer = clients.producer(self.settings)
        producer.produce(self.name, None, key=str(number).encode(), partition=partition)
        assert producer.flush(SECONDS) == 0

    def apply_retention(self, until: dict[int, int]) -> None:
        """Retention: Kafka drops what is before these offsets."""
        places = [TopicPartition(self.name, partition, offset) for partition, offset in until.items()]
        for future in self.client.delete_records(places).values():
            future.result(SECONDS)

    def start(self) -> Run:
        """Start the next epoch's driver."""
        with session(self.settings, Account.STREAM) as connection:
            streams.request_state(connection, self.name, "running", "a test")
            epoch = leases.acquire_lease(connection, self.name, self.version, "a test")
        errors: list[TidemillError] = []
        driver = Driver(self.settings, self.pipeline, epoch)

        def work() -> None:
            try:
                driver.run(self.spark)
            except TidemillError as error:
                errors.append(error)

        run = Run(driver, threading.Thread(target=work), errors)
        self.runs.append(run)
        run.thread.start()
        return run

    def stop(self) -> None:
        """Request a stop, and wait until the driver has ended."""
        with session(self.settings, Account.STREAM) as connection:
            streams.request_state(connection, self.name, "stopped", "a test")
        for run in self.runs:
            run.thread.join(SECONDS)
            assert not run.thread.is_alive()

    def query(self, sql: str, schema: str | None = None) -> list[tuple[Any, ...]]:
        with session(self.settings, Account.READ, schema=schema) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def ids(self) -> list[int]:
        """The table's keys."""
        return [row[0] for row in self.query(f"SELECT id FROM t_{self.name} ORDER BY id", self.settings.db_data)]

    def positions(self) -> dict[int, int]:
        return dict(self.query(f"SELECT partition_id, position FROM offsets WHERE stream = '{self.name}'"))

    def total(self, column: str) -> int:
        """A column of the ledger, added up."""
        ((total,),) = self.query(f"SELECT SUM({column}) FROM commits WHERE stream = '{self.name}'")
        return int(total or 0)

    def incidents(self, kind: str) -> list[str]:
        """The messages of the open incidents of a kind."""
        where = f"subject = 'stream {self.name}' AND kind = '{kind}' AND closed_at IS NULL"
        return [row[0] for row in self.query(f"SELECT message FROM incidents WHERE {where}")]

    def ends(self) -> dict[int, int]:
        return topics.offsets_at(self.client, self.name, "latest")

    def wait_drained(self) -> None:
        """Wait until the positions are where Kafka ends."""

        def drained() -> bool:
            assert not self.runs or not self.runs[-1].errors, self.runs[-1].errors
            return self.positions() == self.ends()

        wait_until(drained, SECONDS, f"stream {self.name} drained")

    def assert_exact(self, ids: Iterable[int], gone: int = 0) -> None:
        """These keys are in the table, each was written once, and ledger, Kafka and rollup agree.

        ``gone`` are the writes that left no row: tombstones, and what they deleted.
        """
        assert self.ids() == sorted(ids)
        assert self.total("written_rows") == len(self.ids()) + gone
        assert self.total("duplicate_rows + quarantined_rows + filtered_rows") == 0
        assert self.differences() == []

    def differences(self) -> list[str]:
        """Where ledger, Kafka and rollup do not agree."""
        with session(self.settings, Account.READ) as connection:
            return verify(connection, self.settings, self.pipeline, self.ends())


def send(producer: Producer, topic: str, ids: Iterable[int], partition: int = 0, note: str = "") -> None:
    """Hand records to a producer."""
    for number in ids:
        value = json.dumps({"id": number, "note": note}).encode()
        producer.produce(topic, value, key=str(number).encode(), partition=partition)


def find(stream: Edge) -> Start:
    """What a driver does before it streams, by itself."""
    with session(stream.settings, Account.STREAM) as connection:
        epoch = leases.acquire_lease(connection, stream.name, stream.version, "a test")
        write_context = WriteContext(stream.name, epoch, stream.version, stream.name)
        return find_start(connection, stream.client, stream.settings, stream.pipeline, write_context)


def transactional(stream: Edge) -> Producer:
    """A producer of transactions, ready to begin one."""
    producer = clients.producer(stream.settings, {"transactional.id": stream.name})
    producer.init_transactions(SECONDS)
    return producer


def recreate(stream: Edge, partitions: int) -> None:
    """Delete the topic and recreate it."""
    stream.client.delete_topics([stream.name])[stream.name].result(SECONDS)
    stream.create(partitions)


@contextmanager
def compacting(stream: Edge) -> Iterator[None]:
    """Kafka compacts the topic as soon as it can."""
    topic = {"cleanup.policy": "compact", "segment.ms": "10", "min.cleanable.dirty.ratio": "0.01"}
    cleaner = {"log.cleaner.backoff.ms": "50"}
    configure(stream.client, ResourceType.TOPIC, stream.name, topic)
    configure(stream.client, ResourceType.BROKER, "1", cleaner)
    try:
        yield
    finally:
        configure(stream.client, ResourceType.BROKER, "1", cleaner, AlterConfigOpType.DELETE)


def configure(
    client: AdminClient,
    kind: ResourceType,
    name: str,
    config: dict[str, str],
    how: AlterConfigOpType = AlterConfigOpType.SET,
) -> None:
    """Set options of a topic or broker, or take them back."""
    entries = [ConfigEntry(key, value, incremental_operation=how) for key, value in config.items()]
    resource = ConfigResource(kind, name, incremental_configs=entries)
    for future in client.incremental_alter_configs([resource]).values():
        future.result(SECONDS)


def readable(stream: Edge) -> int:
    """How many records a reader of partition 0 gets."""
    consumer = clients.consumer(stream.settings, "test", {"enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(stream.name, 0, 0)])
        found = 0
        while (message := consumer.poll(SECONDS)) is not None and message.error() is None:
            found += 1
        return found
    finally:
        consumer.close()
