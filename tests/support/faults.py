"""A stream that Airflow keeps alive while parts of the stack are killed under it: its feed, observer and oracle."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml
from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import AdminClient

from support.merges import ENTITY, POISON, ROW, TOMBSTONE, Commit, Model, Record
from support.recording import Comparison, encode, table_name
from tidemill.config import Account, Settings
from tidemill.devstack import process_records
from tidemill.devstack.airflow_api import AirflowApi
from tidemill.devstack.stack import Stack
from tidemill.errors import TidemillError
from tidemill.kafka import clients, topics
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.processes import environment_of, session_members
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import ledger, streams
from tidemill.store.maintenance.verify import verify
from tidemill.supervisor.launcher import DRIVER_MARK
from tidemill.testing import wait_until

SPARK_SECONDS = 360.0
"""For a driver to start on a busy machine."""
DRAIN_SECONDS = 360.0
_TICK_SECONDS = 0.05
_LOOK_SECONDS = 0.5


class Feed(threading.Thread):
    """Produces records at a steady pace: rows, updates, late and repeated ones, tombstones, poison."""

    def __init__(self, settings: Settings, pipeline: Pipeline, per_second: int, seed: int) -> None:
        super().__init__(name="feed", daemon=True)
        self.topic, self.partitions = pipeline.source.topic, pipeline.source.partitions
        self.logs: dict[int, list[Record]] = {partition: [] for partition in range(self.partitions)}
        """Partition -> its records, by offset."""
        self.failure: AssertionError | KafkaError | None = None
        self._per_tick = round(per_second * _TICK_SECONDS)
        self._turn, self._ended = threading.Lock(), threading.Event()
        self._chance, self._sent, self._made = random.Random(seed), deque[Record](maxlen=1000), 0
        # No time-out: an unavailable broker is waited for, and no record is given up.
        self._producer = clients.producer(settings, {"message.timeout.ms": 0})

    def run(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            with self._turn:
                for _ in range(self._per_tick):
                    self._produce()
                self._producer.poll(0)

    @contextmanager
    def held(self) -> Iterator[dict[int, list[Record]]]:
        """Nothing is produced inside; all that was is in Kafka, as the yielded logs list."""
        with self._turn:
            assert self._producer.flush(60) == 0
            assert self.failure is None, self.failure
            yield self.logs

    def end(self) -> None:
        """Produce no more."""
        self._ended.set()
        self.join()

    def _produce(self) -> None:
        repeat = bool(self._sent) and self._chance.random() < 0.1
        record = self._chance.choice(self._sent) if repeat else self._record()
        self._sent.append(record)
        key, value = encode(record)
        # A key keeps to its partition.
        self._producer.produce(self.topic, value, key, record.id % self.partitions, on_delivery=self._noted(record))

    def _noted(self, record: Record) -> Callable[[KafkaError | None, Message], None]:
        def note(error: KafkaError | None, message: Message) -> None:
            log = self.logs[message.partition() or 0]
            if error is None and message.offset() == len(log):
                log.append(record)
            elif self.failure is None:
                self.failure = error or AssertionError(f"offset {message.offset()} after {len(log)} records")

        return note

    def _record(self) -> Record:
        chance, self._made = self._chance, self._made + 1
        return Record(
            chance.choices([ROW, TOMBSTONE, POISON], [97, 2, 1])[0],
            id=chance.randrange(400),
            team=chance.choice([None, "red", "blue", "é"]),
            points=chance.randrange(20),
            amount=chance.choice([None, Decimal("0.125"), Decimal("-7.250")]),
            # Event time goes on, and records come up to half a minute late.
            seen=self._made // 20 + chance.randrange(30),
            goes=frozenset((ENTITY,)),
        )


class Observer(threading.Thread):
    """Looks twice a second which drivers of a stream live."""

    def __init__(self, settings: Settings, stream: str) -> None:
        super().__init__(name="observer", daemon=True)
        self.settings, self.stream = settings, stream
        self.doubles: list[str] = []
        """What was seen of two drivers living at once."""
        self._ended = threading.Event()

    def run(self) -> None:
        before: set[tuple[int, int]] = set()
        while not self._ended.wait(_LOOK_SECONDS):
            # The leader of its session is the driver: what a killed one leaves behind is none.
            alive = {(epoch, pid) for epoch, pid, leader in processes(self.settings, self.stream) if pid == leader}
            # A JVM asks a shell once whether it can lead a session: that is none, and gone by the next look.
            if len(alive & before) > 1:
                self.doubles.append(f"at {time.strftime('%H:%M:%S')}: {alive}")
            before = alive

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self.join()


def processes(settings: Settings, stream: str) -> Iterator[tuple[int, int, int]]:
    """Epoch, process id and session of each living process of a stream's drivers in this stack."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it ended while we looked
            environment = environment_of(process)
            name, _, epoch = environment.get(DRIVER_MARK, "").rpartition("/")
            ours = name == stream and environment.get(process_records.STACK_MARK) == str(settings.state)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                yield int(epoch), process.pid, os.getsid(process.pid)


@dataclass
class Supervised:
    """A stream under Airflow."""

    settings: Settings
    api: AirflowApi
    stream: str

    @property
    def dag(self) -> str:
        return f"stream__{self.stream}"

    @property
    def row(self) -> StreamRow:
        """The stream now."""
        with session(self.settings, Account.READ) as connection:
            found = streams.read_stream(connection, self.stream)
        assert found is not None
        return found

    def request_state(self, desired_state: str) -> None:
        """Request a state of the stream."""
        with session(self.settings, Account.STREAM) as connection:
            streams.request_state(connection, self.stream, desired_state, "a test")

    def until_state(self, state: str, epoch: int) -> StreamRow:
        """The row once the driver of an epoch, or of a later one, is in a state."""

        def reached() -> StreamRow | None:
            row = self.row
            return row if row.heartbeat_epoch == row.epoch >= epoch and row.state == state else None

        return wait_until(reached, SPARK_SECONDS, f"epoch {epoch} is {state}")

    def task(self, run_id: str | None = None) -> dict[str, Any]:
        """The task ``run`` of a run, of the newest if none is named."""
        run_id = run_id or self.api.dag_runs(self.dag, 1)[0]["dag_run_id"]
        return next(task for task in self.api.task_instances(self.dag, run_id) if task["task_id"] == "run")

    def until_deferred(self, tries: int = 1) -> dict[str, Any]:
        """The task once it is watching for the ``tries``-th time it was tried, or a later one."""

        def deferred() -> dict[str, Any] | None:
            task = self.task()
            taken = task["state"] == "deferred" and (task["trigger"] or {}).get("triggerer_id") is not None
            return task if taken and task["try_number"] >= tries else None

        return wait_until(deferred, 300, "the task watches")

    def clear(self, task: dict[str, Any]) -> None:
        """What a person does with «clear»."""
        chosen = {"dag_run_id": task["dag_run_id"], "task_ids": ["run"], "only_failed": False}
        self.api.request("POST", f"/dags/{self.dag}/clearTaskInstances", {"dry_run": False, **chosen})

    def mark(self, task: dict[str, Any], state: str) -> None:
        """What a person does with «mark as …»."""
        path = f"/dags/{self.dag}/dagRuns/{task['dag_run_id']}/taskInstances/run"
        self.api.request("PATCH", path, {"new_state": state})


@dataclass
class Surf(Supervised):
    """A stream under Airflow with a feed, and the model of what its tables have to hold."""

    stack: Stack
    pipeline: Pipeline
    feed: Feed
    observer: Observer
    client: AdminClient
    model: Model = field(default_factory=lambda: Model((ENTITY,)))
    _learnt: dict[int, int] = field(default_factory=dict)
    """Partition -> how many of its records the model knows."""

    # What is killed

    def kill_driver(self) -> StreamRow:
        """SIGKILL to the leader of the driver's session; the row as it was before."""
        before = self.row
        os.kill(int(before.pid or 0), signal.SIGKILL)
        return before

    def kill_children(self, *names: str) -> float:
        """SIGKILL to children of the stack and to all that runs in their sessions; when it was, monotonic."""
        for name in names:
            leader = self.stack.children[name].pid
            for process in session_members(int(leader or 0)):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        for name in names:
            child = self.stack.children[name]
            wait_until(lambda child=child: child.exit_code() is not None, 60, f"{name} has ended")
        return time.monotonic()

    def restart_children(self, *names: str) -> None:
        """Start them again, as the stack does, and wait until they serve."""
        children = [self.stack.children[name] for name in names]
        for child in children:
            child.stop(grace_seconds=1)
            child.start()
        for child in children:
            child.wait_ready(threading.Event())

    # What has to hold

    def until_commits(self, count: int = 10) -> None:
        """Wait until the stream has made so many more commits."""
        begun = self._last_commit()
        wait_until(lambda: self._last_commit() >= begun + count, 180, f"{count} more commits")

    def longest_pause_seconds(self, since: datetime) -> float:
        """The longest time without a commit between ``since`` and now, both by the database's clock."""
        with session(self.settings, Account.READ) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT committed_at FROM commits WHERE stream = %s AND committed_at >= %s ORDER BY committed_at",
                (self.stream, since),
            )
            times = [since, *(row[0] for row in cursor.fetchall())]
            cursor.execute("SELECT UTC_TIMESTAMP(6)")
            times.append(cursor.fetchone()[0])
        return max((after - before).total_seconds() for before, after in pairwise(times))

    def assert_same_driver(self, before: StreamRow, pause_seconds: float) -> None:
        """The driver did not notice, and made commits all the time."""
        after = self.row
        assert (after.epoch, after.pid, after.state) == (before.epoch, before.pid, "running"), after
        assert self.longest_pause_seconds(before.now) < pause_seconds

    def assert_sound(self) -> StreamRow:
        """One driver lives and there never were two, nothing waits for a person, and the tables are exact."""
        row = self.row
        assert (row.desired_state, row.halted_reason) == ("running", None)
        assert {(epoch, leader) for epoch, _, leader in processes(self.settings, self.stream)} == {(row.epoch, row.pid)}
        assert self.observer.doubles == []
        assert self.differences() == []
        return row

    def differences(self) -> list[str]:
        """Where tables, rollups, quarantine, ledger and Kafka do not agree with what was produced until now."""
        with self.feed.held() as logs:
            wait_until(lambda: self._is_drained(logs), DRAIN_SECONDS, "everything is committed")
            with session(self.settings, Account.READ) as connection:
                self._learn(connection, logs)
                compare = Comparison(self.settings, self.pipeline, self.model, connection)
                totals = ledger.totals(connection, self.stream)
                ends = topics.offsets_at(self.client, self.pipeline.source.topic, "latest")
                found = verify(connection, self.settings, self.pipeline, ends) + compare.tables() + compare.quarantine()
        counted = (totals.records, totals.quarantined, totals.filtered + totals.gap + totals.lost)
        expected = (sum(map(len, logs.values())), len(self.model.quarantine), 0)
        if counted != expected:
            found.append(f"the ledger counts {counted} (records, quarantined, others), expected {expected}")
        return found

    def _last_commit(self) -> int:
        with session(self.settings, Account.READ) as connection:
            return ledger.totals(connection, self.stream).commits

    def _is_drained(self, logs: dict[int, list[Record]]) -> bool:
        with suppress(TidemillError), session(self.settings, Account.READ) as connection:
            at = ledger.positions(connection, self.stream, self.pipeline.source.topic)
            return all(at.get(partition, 0) == len(log) for partition, log in logs.items())
        return False

    def _learn(self, connection: Any, logs: dict[int, list[Record]]) -> None:
        """Pass the model the new records. Only the version that a record met is read from the ledger."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT partition_id, pipeline_version, MIN(from_offset), MAX(until_offset) FROM commits"
                " WHERE stream = %s GROUP BY partition_id, pipeline_version ORDER BY partition_id, pipeline_version",
                (self.stream,),
            )
            ranges = [tuple(map(int, row)) for row in cursor.fetchall()]
        for partition, version, start, until in ranges:
            known = max(start, self._learnt.get(partition, 0))
            if known < until:
                records = tuple(logs[partition][known:until])
                self.model.commit(Commit(1, version, known, partition, known, records))
                self._learnt[partition] = until


def write_second_version(pipeline: Pipeline) -> str:
    """Change the pipeline's folder: what :meth:`settling.Record.row` calls version 2, and one rollup more, by code.

    Returns:
        The rollup's name.
    """
    folder, rollup = Path(pipeline.folder), f"{pipeline.name}_by_code"
    (folder / f"{ENTITY}.sql").write_text(
        f"SELECT id, code, team, points + 7 AS points, amount, seen FROM records WHERE goes LIKE '%{ENTITY}%'"
    )
    content = yaml.safe_load((folder / "pipeline.yaml").read_text())
    content["rollups"][rollup] = {
        "of": table_name(pipeline.name, ENTITY),
        "by": {"code": {"expr": "code", "type": "VARCHAR(4)"}},
        "measures": {"n": "count(*)", "points": "sum(points)"},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(content))
    return rollup
