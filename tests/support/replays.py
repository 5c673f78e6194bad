"""A stream over records that a first version of its folder reads wrongly, and what a fixed version makes of them."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic
from pyspark.sql import DataFrame, SparkSession

from tidemill.config import Account, Settings
from tidemill.kafka import clients, topics
from tidemill.replay import job
from tidemill.replay.request import ReplayRequest, request_replay
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import leases, ledger, replays
from tidemill.store.maintenance.verify import verify
from tidemill.store.migrations import apply_pipeline, migrate_control
from tidemill.store.write.context import Range, WriteContext
from tidemill.stream.batch import run_batch
from tidemill.stream.plan.decode import decode
from tidemill.stream.plan.source import read_range
from tidemill.stream.plan.transform import transform
from tidemill.stream.task import MicroBatch

_number = itertools.count(1)
PARTITIONS = 2
START = dt.datetime(2026, 1, 1)
FLAGS = ("", "", "", "dropped", "late", "renamed", "bad", "poor", "early")
"""What is particular about a record; see :data:`VERSIONS`."""
VERSIONS = {
    # The first version leaves out late records, keeps dropped ones, takes poor ones for unusable and bad ones for good.
    1: (
        "SELECT id, code, CASE WHEN flag <> 'poor' THEN points END AS points, seen FROM records WHERE flag <> 'late'",
        300,
    ),
    # The second sees other values, other keys, earlier times; and it takes larger records.
    2: (
        "SELECT id, CASE WHEN flag = 'renamed' THEN concat(code, 'x') ELSE code END AS code,"
        " CASE WHEN flag <> 'bad' THEN points * 10 END AS points,"
        " CASE WHEN flag = 'early' THEN seen - INTERVAL 1 DAY ELSE seen END AS seen"
        " FROM records WHERE flag <> 'dropped'",
        2_000_000,
    ),
}


@dataclass
class Course:
    """One stream: an entity table of the latest points of each code, an event table of all of them."""

    settings: Settings
    spark: SparkSession
    folder: Path
    topic: str
    version: int = 0
    epoch: int = 0
    batch_id: int = field(default=0)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def pipeline(self) -> Pipeline:
        return load_pipeline(self.folder)

    def declare(self, transform_version: int) -> None:
        """Write the folder as it is in this version, apply it, and become the stream's driver."""
        select, size = VERSIONS[transform_version]
        columns = {"id": "BIGINT NOT NULL", "code": "VARCHAR(8) NOT NULL", "points": "INT NOT NULL"}
        columns["seen"] = "DATETIME(6) NOT NULL"
        by = {"code": {"expr": "code", "type": "VARCHAR(8)"}}
        content = {
            "name": self.name,
            "owner": "tests",
            "source": {
                "topic": self.topic,
                "partitions": PARTITIONS,
                "schema": "id BIGINT, code STRING, points INT, seen TIMESTAMP, flag STRING, note STRING",
                "key": "code STRING",
                "max_records_per_batch": 120,
                "max_record_bytes": size,
            },
            "tables": {
                f"{self.name}_latest": {
                    "from": "t.sql", "kind": "entity", "key": ["code"], "version": "seen", "columns": columns,
                },
                f"{self.name}_all": {"from": "t.sql", "kind": "event", "key": ["code", "id"], "columns": columns},
            },
            "rollups": {
                f"{self.name}_{table}_sums": {
                    "of": f"{self.name}_{table}", "by": by, "measures": {"n": "count(*)", "points": "sum(points)"},
                }
                for table in ("latest", "all")
            },
        }  # fmt: skip
        self.folder.mkdir(exist_ok=True)
        (self.folder / "pipeline.yaml").write_text(yaml.safe_dump(content))
        (self.folder / "t.sql").write_text(select)
        with session(self.settings, Account.MIGRATE) as connection:
            migrate_control(connection, self.settings.root / "sql")
            self.version = apply_pipeline(connection, self.settings, self.pipeline)
        with session(self.settings, Account.STREAM) as connection:
            self.epoch = leases.acquire_lease(connection, self.name, self.version, "a test")
            ledger.begin_at(connection, self.name, self.topic, dict.fromkeys(range(PARTITIONS), 0))

    def load(self, spark: SparkSession | None = None, step: int = 10**6) -> None:
        """Read what is new in Kafka as the stream's driver does, ``step`` offsets of each partition at a time."""
        ends = topics.offsets_at(clients.admin(self.settings), self.topic, "latest")
        while found := self.next_batch(spark or self.spark, ends, step):
            run_batch(*found)
            self.batch_id += 1

    def next_batch(
        self, spark: SparkSession, ends: dict[int, int], step: int = 10**6
    ) -> tuple[DataFrame, MicroBatch] | None:
        """Rows and ranges of the next batch, as the driver hands them to its tasks; None if there is nothing left."""
        pipeline, source, at = self.pipeline, self.pipeline.source, self.positions()
        spans = {p: Range(p, at[p], min(end, at[p] + step)) for p, end in ends.items() if end > at[p]}
        if not spans:
            return None
        starts, untils = ({p: getattr(s, name) for p, s in spans.items()} for name in ("start", "until"))
        rows = decode(read_range(spark, self.settings, source, starts, untils), source)
        write_context = WriteContext(self.name, self.epoch, self.version, self.topic)
        return transform(spark, rows, pipeline), MicroBatch(
            self.settings, pipeline, write_context, self.batch_id, spans
        )

    def positions(self) -> dict[int, int]:
        with session(self.settings, Account.READ) as connection:
            return ledger.positions(connection, self.name, self.topic)

    def request_replay(self, asked: ReplayRequest) -> int:
        """Ask for a replay; returns its id."""
        with session(self.settings, Account.STREAM) as connection:
            return request_replay(connection, clients.admin(self.settings), self.pipeline, asked, "a test")

    def replay(self, asked: ReplayRequest) -> dict[str, Any]:
        """Ask for a replay and run it."""
        return self.run(self.request_replay(asked))

    def run(self, replay_id: int) -> dict[str, Any]:
        """Run a replay."""
        return job.run(self.spark, self.settings, self.pipeline, replay_id)

    def row(self, replay_id: int) -> replays.Replay:
        with session(self.settings, Account.READ) as connection:
            return replays.read(connection, replay_id)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Read the database; ``{}`` is the operational schema with the stream's name."""
        with session(self.settings, Account.READ) as connection, connection.cursor() as cursor:
            cursor.execute(sql.replace("{}", f"{self.settings.db_data}.{self.name}"))
            return list(cursor.fetchall())

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that has to be right, with the coordinates of the records and without the commits."""
        found = {
            table: self.query(
                f"SELECT id, code, points, seen, _partition, _offset, _pipeline_version = {self.version}"
                f" FROM {{}}_{table} ORDER BY code, id"
            )
            for table in ("latest", "all")
        }
        for table in ("latest", "all"):
            found[f"sums of {table}"] = self.query(f"SELECT code, n, points FROM {{}}_{table}_sums ORDER BY code")
        found["quarantine"] = self.query(
            "SELECT partition_id, record_offset, reason FROM quarantine"
            f" WHERE stream = '{self.name}' AND resolved_commit IS NULL ORDER BY partition_id, record_offset"
        )
        return found

    def verify(self) -> list[str]:
        """What does not agree."""
        with session(self.settings, Account.READ) as connection:
            return verify(connection, self.settings, self.pipeline)


def make_course(settings: Settings, spark: SparkSession, folder: Path, topic: str | None = None) -> Course:
    """A stream of its own, with a topic of its own unless one is named."""
    name = f"course{next(_number)}"
    if topic is None:
        client = clients.admin(settings)
        client.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(60)
    return Course(settings, spark, folder / name, topic or name)


def send(settings: Settings, topic: str, count: int, seed: int) -> None:
    """Records of twenty codes in disorder, with duplicates, tombstones and transactions, one of them aborted."""
    chance = random.Random(seed)
    producer = clients.producer(settings, {"transactional.id": f"{topic}-{seed}"})
    producer.init_transactions(30)
    for number in range(4):
        producer.begin_transaction()
        for place in range(count // 4):
            code = f"c{chance.randrange(20)}"
            partition = sum(code.encode()) % PARTITIONS
            value = record(chance, seed * 10**6 + number * count + place, code)
            for _ in range(1 + (chance.random() < 0.1)):
                producer.produce(topic, None if chance.random() < 0.05 else value, code, partition)
        if number == 2:
            producer.flush(60)  # a broker that has not yet seen a record of a transaction has none to abort
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)


def record(chance: random.Random, number: int, code: str, **other: Any) -> bytes:
    """One record; no two are of the same moment."""
    seen = START + dt.timedelta(seconds=chance.randrange(200_000), microseconds=number % 10**6)
    value = {"id": number, "code": code, "points": chance.randrange(100), "seen": f"{seen.isoformat()}Z"}
    return json.dumps(value | {"flag": chance.choice(FLAGS)} | other).encode()


def apply_retention(settings: Settings, topic: str, until: dict[int, int]) -> None:
    """Retention: Kafka drops what is before these offsets."""
    places = [TopicPartition(topic, partition, offset) for partition, offset in until.items()]
    client = clients.admin(settings)
    for future in client.delete_records(places).values():
        future.result(60)
