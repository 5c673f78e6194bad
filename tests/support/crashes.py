"""A stream on real servers whose processes are killed at named points: what to kill, and how to go on."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import AdminClient

from support.merges import ENTITY, EVENT, POISON, ROW, TOMBSTONE, Commit, Model, Record
from support.recording import Comparison, encode
from tidemill.config import Account, Settings
from tidemill.devstack.stack import Stack
from tidemill.errors import TidemillError
from tidemill.kafka import clients, topics
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import leases, ledger, streams
from tidemill.store.maintenance.verify import verify
from tidemill.store.migrations import pipeline_version
from tidemill.supervisor import launcher
from tidemill.testing import wait_until

POINTS = ("before stage", "after stage", "before COMMIT", "after COMMIT", "between commits")
REACH_SECONDS = 360.0
"""A driver may have to start first."""
DRAIN_SECONDS = 360.0
# A driver that lives for seconds is not worth the second compiler, which takes a third of the start's CPU time.
_SHORT_LIVED = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}


class Failpoints:
    """The test's side of :func:`tidemill.failpoints.reach`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def arm(self, point: str) -> None:
        """Hold the next process that reaches the point."""
        self._file(point, ".reached").unlink(missing_ok=True)
        self._file(point, ".go").unlink(missing_ok=True)
        self._file(point).touch()

    def reached(self, point: str) -> int:
        """Wait until a process is held; its process id."""
        held = self._file(point, ".reached")
        return int(wait_until(lambda: held.exists() and held.read_text(), REACH_SECONDS, f"a process at «{point}»"))

    def release(self, point: str) -> None:
        """Let the held process go on, if it still lives."""
        self._file(point).unlink(missing_ok=True)
        self._file(point, ".go").touch()

    def clear(self) -> None:
        """Whatever an earlier test left: no process is held any more."""
        for point in POINTS:
            self.release(point)

    def _file(self, point: str, suffix: str = "") -> Path:
        return self.folder / (point.replace(" ", "-") + suffix)


@dataclass
class Crashing:
    """One long-lived pipeline, its producer, and the drivers it has had."""

    settings: Settings
    pipeline: Pipeline
    stack: Stack
    failpoints: Failpoints
    client: AdminClient
    produced: dict[int, list[Record]] = field(default_factory=dict)
    """Partition -> its records, by offset."""
    drivers: int = 0
    """How many were started."""
    run_seed: int = 0
    """What this run of the suite draws from."""

    # What is produced

    def produce(self, seed: int, count: int = 60) -> None:
        """Write records to all partitions: rows and their duplicates, updates, disorder, tombstones, poison."""
        chance = random.Random(f"{self.run_seed}/{seed}")
        producer = clients.producer(self.settings)
        sent: list[Record] = []
        for _ in range(count):
            record = chance.choice(sent) if sent and chance.random() < 0.15 else _any_record(chance)
            sent.append(record)
            key, value = encode(record)
            partition = record.id % self.pipeline.source.partitions
            producer.produce(self.pipeline.source.topic, value, key, partition, on_delivery=self._delivered(record))
        assert producer.flush(300) == 0

    def produce_to(self, point: str, seed: int) -> int:
        """Produce, so that a process is held at a point; its process id.

        Between two commits of one batch there is a moment only if the batch has several partitions. What is produced
        while a commit is held comes in one batch.
        """
        if point != "between commits":
            self.failpoints.arm(point)
            self.produce(seed)
        else:
            self.failpoints.arm("after COMMIT")
            self.produce(seed + 1000, count=1)
            self.failpoints.reached("after COMMIT")
            self.produce(seed)
            self.failpoints.arm(point)
            self.failpoints.release("after COMMIT")
        return self.failpoints.reached(point)

    def _delivered(self, record: Record) -> Callable[[KafkaError | None, Message], None]:
        def note(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            log = self.produced.setdefault(message.partition() or 0, [])
            assert message.offset() == len(log)
            log.append(record)

        return note

    # The driver

    def row(self) -> StreamRow:
        with session(self.settings, Account.READ) as connection:
            row = streams.read_stream(connection, self.pipeline.name)
        assert row is not None
        return row

    def start_driver(self) -> StreamRow:
        """Take the stream over and launch a driver; does not wait for it."""
        with session(self.settings, Account.STREAM) as connection:
            version = pipeline_version(connection, self.pipeline)
            assert version is not None
            epoch = leases.acquire_lease(connection, self.pipeline.name, version, "a test")
            driver = launcher.launch(self.settings, self.pipeline, epoch, _SHORT_LIVED)
            leases.record_driver(
                connection,
                self.pipeline.name,
                epoch,
                host=driver.host,
                pid=driver.pid,
                log_file=str(driver.log_file),
            )
        self.drivers += 1
        return self.row()

    def ensure_driver(self) -> None:
        """Start a driver if there is none at work."""
        row = self.row()
        if row.pid is None or launcher.is_gone(row):
            self.start_driver()

    def stop_driver(self) -> None:
        """Nothing of the newest driver may be left."""
        with session(self.settings, Account.STREAM) as connection:
            streams.request_state(connection, self.pipeline.name, "stopped", "a test")
        assert launcher.stop_driver(self.row(), grace_seconds=10)

    # The victims

    def kill_driver(self) -> None:
        """SIGKILL to the JVM and to the Python it runs; the workers find out by themselves."""
        leader = self.row().pid
        assert leader is not None
        jvm = psutil.Process(leader)
        (entry,) = [child for child in jvm.children() if _runs(child, "stream.py")]
        for process in (jvm, entry):
            process.kill()

    def kill_server(self, name: str) -> None:
        """SIGKILL to a server of the stack."""
        pid = self.stack.children[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def restart_server(self, name: str) -> None:
        """What the stack does with a server that ended, without the wait that grows with each failure."""
        child = self.stack.children[name]
        child.stop(grace_seconds=1)
        child.start()
        child.wait_ready(threading.Event())

    # What has to hold

    def drain(self) -> None:
        """Wait until all that was produced is in the ledger; a driver that ended is followed by another."""
        wait_until(self._is_drained, DRAIN_SECONDS, f"everything committed ({self.pipeline.name})")

    def _is_drained(self) -> bool:
        # A database or broker that is not back yet is what is waited for.
        with suppress(TidemillError):
            self.ensure_driver()
            with session(self.settings, Account.READ) as connection:
                at = ledger.positions(connection, self.pipeline.name, self.pipeline.source.topic)
            return all(at.get(partition) == len(log) for partition, log in self.produced.items())
        return False

    def differences(self) -> list[str]:
        """Where tables, rollups, quarantine, ledger and Kafka do not agree with what was produced."""
        model = self.expected()
        with session(self.settings, Account.READ) as connection:
            compare = Comparison(self.settings, self.pipeline, model, connection)
            totals = ledger.totals(connection, self.pipeline.name)
            ends = topics.offsets_at(self.client, self.pipeline.source.topic, "latest")
            found = verify(connection, self.settings, self.pipeline, ends) + compare.tables() + compare.quarantine()
        # How rows divide into written and superseded depends on where batches were cut; their sum does not.
        counts = {
            name: sum(entry.counts[name] for entry in model.ledger) for name in ("filtered", "quarantined", "gap")
        }
        counted = {name: getattr(totals, name) for name in counts}
        records = sum(len(log) for log in self.produced.values())
        if counted != counts or totals.records != records:
            found.append(f"the ledger has {totals.records} records and {counted}, expected {records} and {counts}")
        return found

    def expected(self) -> Model:
        """The model of all that was produced. A key has one partition, so the order of partitions does not matter."""
        kinds = {table.kind.value for table in self.pipeline.tables.values()}
        model = Model(tuple(kind for kind in (ENTITY, EVENT) if kind in kinds))
        for partition, log in sorted(self.produced.items()):
            model.commit(Commit(1, 1, 0, partition, 0, tuple(log)))
        return model


def _runs(process: psutil.Process, script: str) -> bool:
    with suppress(psutil.Error):  # a killed worker whose parent has not waited for it
        return any(script in word for word in process.cmdline())
    return False


def _any_record(chance: random.Random) -> Record:
    what = chance.choices([ROW, TOMBSTONE, POISON], [88, 5, 7])[0]
    record = Record(
        what,
        id=chance.randrange(40),
        code=chance.choice(["a", "A", "ß"]),
        team=chance.choice([None, "", "red", "blue", "é", "😀 tab\t"]),
        points=chance.choice([0, 5, 6, -4, 17]),
        amount=chance.choice([None, Decimal("0.125"), Decimal("-7.250")]),
        seen=chance.randrange(4000),
        goes=frozenset(chance.choice([(ENTITY, EVENT), (ENTITY, EVENT), (ENTITY,), (EVENT,), ()])),
    )
    # What only the database refuses has a key of its own: a row behind a newer one is not looked at.
    misfits: list[dict[str, Any]] = [
        {"team": "nine char"},
        {"team": "far more than any column"},
        {"points": 2**40},
        {"amount": Decimal(5000)},
    ]
    return replace(record, id=chance.randrange(10**9), **chance.choice(misfits)) if chance.random() < 0.08 else record
