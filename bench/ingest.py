"""How fast a batch becomes rows: the real write path beside no-op sinks of the same read, on servers of its own.

Every variant reads the same records in the same Spark session. A round runs each variant once; the first batch of
each run, and the whole first round, are warm-up. What counts is the ratio within one round, and its median. Beside
that: what a batch of one record costs, how much memory a Python worker takes, and whether the memory of a driver and
its workers grows while a backlog drains.

Example: ``./tidemill bench ingest`` (FLIGHTS, BATCH and ROUNDS change its size; ONLY is a regular expression of the
names of what to measure, e.g. ``ONLY='^(no-op sink of read and decode|entity)$'``)
"""

from __future__ import annotations

import gc
import os
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from _champion import champion  # beside this file
from _servers import own_settings
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from tidemill.config import Account, Settings
from tidemill.demo.chaos import Chaos
from tidemill.demo.feed import FeedOptions, play
from tidemill.deploy import apply
from tidemill.devstack.stack import Stack
from tidemill.kafka import clients, topics
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import leases, ledger, streams
from tidemill.store.migrations import pipeline_version
from tidemill.store.write.context import WriteContext
from tidemill.stream.driver import Driver
from tidemill.stream.plan.decode import decode
from tidemill.stream.plan.dimensions import register_dimensions
from tidemill.stream.plan.source import read_stream
from tidemill.stream.query import BatchCommitter, stream_rows
from tidemill.stream.session import STREAM_CONF

FLIGHTS = int(os.environ.get("FLIGHTS", "200000"))
BATCH = int(os.environ.get("BATCH", "100000"))
ROUNDS = int(os.environ.get("ROUNDS", "4"))
ONLY = re.compile(os.environ.get("ONLY", ""))

READ, READ_AND_TRANSFORM = "no-op sink of read and decode", "no-op sink of read, decode and four dimensions"
CLAIMS = (
    ("entity", READ, 0.5),
    ("entity, one rollup", "entity", 1 / 1.2),
    ("entity, two rollups", "entity, one rollup", 1 / 1.2),
    # Of the three records of a flight an entity keeps one row: what is like an event is one that keeps them all.
    ("event", "entity, a row a record", 1.0),
    ("event", "entity", None),
    ("entity, 1 % malformed", "entity", 0.5),
    ("flights", READ_AND_TRANSFORM, None),
    ("flights, one rollup", "flights", None),
    ("flights, one rollup, live scores", "flights, one rollup", None),
)
"""Variant, what it is compared with, and the ratio of their rates that is the least."""
BACKLOG = int(os.environ.get("BACKLOG", "1000000"))
"""Records, about: a flight makes three."""
BACKLOG_RATIO = 1.15
"""How much more memory all of them may take than the first fifth."""
SINGLE_MS = 250
SINGLE_WARM_UP = 10
"""Batches of one record that are not counted."""
_COLUMNS = {
    "id": "BIGINT NOT NULL", "status": "VARCHAR(10) NOT NULL", "carrier": "VARCHAR(4) NOT NULL",
    "flight": "INT NOT NULL", "tailnum": "VARCHAR(8)", "origin": "VARCHAR(3) NOT NULL", "dest": "VARCHAR(3) NOT NULL",
    "distance": "INT", "scheduled_at": "DATETIME NOT NULL", "departed_at": "DATETIME", "dep_delay": "INT",
    "arrived_at": "DATETIME", "arr_delay": "INT", "air_time": "INT", "updated_at": "DATETIME(6) NOT NULL",
}  # fmt: skip
"""The feed's own, as they come."""
_HOUR = "DATE_FORMAT(scheduled_at, '%Y-%m-%d %H:00:00')"
_ROLLUPS = {
    "by_hour": {"origin": {"expr": "origin", "type": "VARCHAR(3)"}, "hour": {"expr": _HOUR, "type": "DATETIME"}},
    "by_route": {"carrier": {"expr": "carrier", "type": "VARCHAR(4)"}, "dest": {"expr": "dest", "type": "VARCHAR(3)"}},
}


def declare(folder: Path, flights: Pipeline, name: str, kind: str, partitions: int = 4) -> Pipeline:
    """A pipeline of one table that holds the feed's records as they come, and of two rollups."""
    place = folder / name
    place.mkdir(parents=True)
    key: dict[str, object] = {"kind": "entity", "key": ["id"], "version": "updated_at"}
    if kind == "entity of records":
        key["key"] = ["id", "status"]
    if kind == "event":
        key = {"kind": "event", "key": ["id", "status"]}
    measures = {"flights": "count(*)", "delay_minutes": "sum(arr_delay)", "late": "sum(arr_delay > 15)"}
    source = {"topic": name, "partitions": partitions, "start": "earliest", "schema": flights.source.schema_ddl}
    content = {
        "name": name, "owner": "bench", "source": source,
        "tables": {name: {"from": "transform.sql", **key, "columns": _COLUMNS}},
        "rollups": {f"{name}_{r}": {"of": name, "by": by, "measures": measures} for r, by in _ROLLUPS.items()},
    }  # fmt: skip
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (place / "transform.sql").write_text(f"SELECT {', '.join(_COLUMNS)} FROM records")
    return load_pipeline(place)


def variant_of(pipeline: Pipeline, topic: str, rollups: int, batch: int = BATCH) -> Pipeline:
    """The pipeline on another topic, with so many of its rollups, in batches of so many records."""
    source = pipeline.source.model_copy(update={"topic": topic, "max_records_per_batch": batch})
    kept = dict(list(pipeline.rollups.items())[:rollups])
    return pipeline.model_copy(update={"source": source, "rollups": kept})


@dataclass
class Run:
    """One run over a whole topic."""

    ended: list[float] = field(default_factory=list)
    """When each batch ended, in seconds."""
    batch_ms: list[int] = field(default_factory=list)
    """What each took the committer."""
    trigger_ms: list[int] = field(default_factory=list)
    """What each took Spark from beginning to end."""

    @property
    def rate(self) -> float:
        """Records per second between the end of the first batch and that of the last full one."""
        return BATCH * (len(self.ended) - 2) / (self.ended[-2] - self.ended[0])


def workers_mb() -> float:
    """The largest resident size of a Python worker of Spark's, in MB."""
    found = 0.0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "pyspark.daemon" in child.cmdline():
                found = max(found, child.memory_info().rss / 1e6)
    return found


@contextmanager
def peak_of(measure: Callable[[], float], pause_seconds: float) -> Iterator[list[float]]:
    """Afterwards holds the largest that was measured meanwhile."""
    peak, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(pause_seconds):
            peak[0] = max(peak[0], measure())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield peak
    finally:
        over.set()
        looking.join()


class Bench:
    """The servers, the session and the variants."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        folder = settings.state / "pipelines"
        flights = load_pipeline(settings.pipelines / "flights")
        plain = declare(folder, flights, "plain", "entity")
        event = declare(folder, flights, "plain_event", "event")
        each = declare(folder, flights, "plain_each", "entity of records")
        single = declare(folder, flights, "single", "entity", partitions=1)
        malformed = declare(folder, flights, "malformed", "entity")
        half = declare(folder, flights, "half", "entity")
        apply.apply_all(settings, [flights, plain, event, each, single, malformed, half], lambda _: None)
        options = {
            "plain": FeedOptions(limit=FLIGHTS), "malformed": FeedOptions(limit=FLIGHTS, chaos=Chaos(malformed=0.01)),
            "half": FeedOptions(limit=FLIGHTS // 2), "single": FeedOptions(limit=15),
        }  # fmt: skip
        self.records = {topic: play(settings, topic, given, lambda *_: None) for topic, given in options.items()}
        client = clients.admin(settings)
        self.begin = {topic: topics.offsets_at(client, topic, "earliest") for topic in options}
        self.pipelines = {"plain": plain, "flights": flights}
        self.spark = self._session()
        gc.freeze()  # as a driver does
        self.variants: dict[str, Callable[[Path], Run]] = {
            READ: lambda place: self._noop(self._decoded(plain), place),
            "entity": lambda place: self.write(variant_of(plain, "plain", 0), place),
            "entity, one rollup": lambda place: self.write(variant_of(plain, "plain", 1), place),
            "entity, two rollups": lambda place: self.write(variant_of(plain, "plain", 2), place),
            "entity, a row a record": lambda place: self.write(variant_of(each, "plain", 0), place),
            "event": lambda place: self.write(variant_of(event, "plain", 0), place),
            "entity, 1 % malformed": lambda place: self.write(variant_of(plain, "malformed", 0), place),
            READ_AND_TRANSFORM: lambda place: self._noop(self._rows(variant_of(flights, "plain", 0)), place),
            "flights": lambda place: self.write(variant_of(flights, "plain", 0), place),
            "flights, one rollup": lambda place: self.write(variant_of(flights, "plain", 1), place),
            "flights, one rollup, live scores": lambda place: self._scored(variant_of(flights, "plain", 1), place),
        }

    def _session(self) -> SparkSession:
        builder = SparkSession.builder.master("local[2]").config("spark.driver.memory", "2g")
        builder = builder.config("spark.jars", ",".join(map(str, sorted((self.settings.jars / "spark").glob("*.jar")))))
        for key, value in (STREAM_CONF | {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1"}).items():
            builder = builder.config(key, value)
        return builder.getOrCreate()

    def _decoded(self, pipeline: Pipeline) -> DataFrame:
        source = variant_of(pipeline, "plain", 0).source
        return decode(read_stream(self.spark, self.settings, source, self.begin[source.topic]), source)

    def _rows(self, pipeline: Pipeline) -> DataFrame:
        register_dimensions(self.spark, pipeline)
        return stream_rows(self.spark, self.settings, pipeline, self.begin[pipeline.source.topic])

    def _noop(self, frame: DataFrame, place: Path) -> Run:
        run = Run()

        def sink(batch: DataFrame, _: int) -> None:
            batch.write.format("noop").mode("overwrite").save()
            run.ended.append(time.monotonic())

        query = frame.writeStream.foreachBatch(sink).option("checkpointLocation", str(place))
        query.trigger(availableNow=True).start().awaitTermination()
        return run

    def write(self, pipeline: Pipeline, place: Path) -> Run:
        """Load the pipeline's topic into its empty table."""
        topic, run = pipeline.source.topic, Run()
        committer = BatchCommitter(self.settings, pipeline, self._claim(pipeline), self.begin[topic])
        commit = committer._commit

        def timed(batch: DataFrame, batch_id: int) -> None:
            commit(batch, batch_id)
            run.ended.append(time.monotonic())
            run.batch_ms.append(committer.metrics.batch_ms)

        committer._commit = timed  # type: ignore[method-assign, assignment]
        query = committer.attach(self._rows(pipeline), place).trigger(availableNow=True).start()
        query.awaitTermination()
        committer.close(0)
        run.trigger_ms = _trigger_ms(query)
        assert committer.metrics.records == self.records[topic]
        return run

    def _scored(self, pipeline: Pipeline, place: Path) -> Run:
        with champion(self.settings):
            return self.write(pipeline, place)

    def _claim(self, pipeline: Pipeline) -> WriteContext:
        """Empty tables, and the stream at the beginning of its topic."""
        name, topic = pipeline.name, pipeline.source.topic
        with session(self.settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
            for table in (*pipeline.tables, *(f"{name}_{rollup}" for rollup in _ROLLUPS if name != "flights")):
                cursor.execute(f"TRUNCATE TABLE {self.settings.db_data}.{table}")
            if name == "flights":
                cursor.execute(f"TRUNCATE TABLE {self.settings.db_data}.delays_by_hour")
            for table in ("offsets", "quarantine", "commits", "ledger_sums"):
                cursor.execute(f"DELETE FROM {table}")
            version = pipeline_version(connection, pipeline)
            assert version is not None
            ledger.begin_at(connection, name, topic, self.begin[topic])
            return WriteContext(name, leases.acquire_lease(connection, name, version, "bench"), version, topic)

    def measure_memory(self) -> None:
        """A worker's memory over a backlog, over twice that, and over the latter as a single batch."""
        plain = self.pipelines["plain"]
        for topic, batch in (("half", BATCH), ("plain", BATCH), ("plain", 10 * self.records["plain"])):
            with self._place() as place, peak_of(workers_mb, 0.03) as peak:
                self.write(variant_of(plain, topic, 1, batch), place)
            size = f"batches of {batch:,}" if batch == BATCH else "one batch"
            print(
                f"memory: {peak[0]:,.0f} MB in the largest worker: {self.records[topic]:,} records in {size}",
                flush=True,
            )

    def measure_backlog(self) -> None:
        """Drain a backlog by a real driver: whether the last four fifths take more memory than the first."""
        topic, client = "backlog", clients.admin(self.settings)
        pipeline = variant_of(self.pipelines["plain"], topic, 1)
        topics.create_topic(client, pipeline.source)
        records = play(self.settings, topic, FeedOptions(limit=BACKLOG // 3), lambda *_: None)
        self.begin[topic] = topics.offsets_at(client, topic, "earliest")
        began = time.monotonic()
        samples = list(self._drain(pipeline, records))
        print(f"backlog: {records:,} records in {time.monotonic() - began:.0f} s", flush=True)
        for name, number in (("the largest worker", 1), ("the driver's heap, live", 2)):
            first = max(sample[number] for sample in samples if sample[0] <= records / 5)
            whole = max(sample[number] for sample in samples)
            print(
                f"backlog: {whole:,.0f} MB in {name}, {whole / first:.2f} times those of its first fifth"
                f" (at most {BACKLOG_RATIO:.2f})",
                flush=True,
            )

    def _drain(self, pipeline: Pipeline, records: int) -> Iterator[tuple[int, float, float]]:
        """Run a real driver until its topic is read; again and again: records read, MB of a worker, MB of live heap."""
        name = pipeline.name
        epoch = self._claim(pipeline).epoch
        with session(self.settings, Account.STREAM) as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM topics")
            streams.request_state(connection, name, "running", "bench")
        driving = threading.Thread(target=Driver(self.settings, pipeline, epoch).run, args=(self.spark,))
        driving.start()
        read = 0
        while read < records and driving.is_alive():
            read = self._position(name, pipeline.source.topic)
            yield read, workers_mb(), self._live_heap_mb()
            time.sleep(0.5)  # a collection stops what is measured
        with session(self.settings, Account.STREAM) as connection:
            streams.request_state(connection, name, "stopped", "bench")
        driving.join()
        assert read == records

    def _position(self, stream: str, topic: str) -> int:
        with session(self.settings, Account.READ) as connection:
            return sum(ledger.positions(connection, stream, topic).values())

    def _live_heap_mb(self) -> float:
        """What is left of the driver's heap after a collection."""
        jvm = self.spark._jvm
        assert jvm is not None
        jvm.java.lang.System.gc()
        used = jvm.java.lang.management.ManagementFactory.getMemoryMXBean().getHeapMemoryUsage().getUsed()
        return float(used) / 1e6

    def measure_single(self) -> None:
        """What a batch of one record costs."""
        for name, rollups in (("plain", 0), ("plain", 2), ("flights", 1)):
            with self._place() as place:
                run = self.write(variant_of(self.pipelines[name], "single", rollups, 1), place)
            commit, trigger = (statistics.median(ms[SINGLE_WARM_UP:]) for ms in (run.batch_ms, run.trigger_ms))
            print(
                f"one record: {commit:.0f} ms in the committer, {trigger:.0f} ms in Spark altogether"
                f" (at most {SINGLE_MS}), median of {len(run.batch_ms) - SINGLE_WARM_UP} batches:"
                f" {name}, rollups: {rollups}",
                flush=True,
            )

    def run(self) -> None:
        """Print the memory, each round, what single records cost, and the medians."""
        if ONLY.search("memory"):
            self.measure_memory()
        if ONLY.search("backlog"):
            self.measure_backlog()
        variants = {name: variant for name, variant in self.variants.items() if ONLY.search(name)}
        rates: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(ROUNDS if variants else 0):
            for name, variant in variants.items():
                with self._place() as place:
                    rate = variant(place).rate
                print(f"round {number}{' (warm-up)' if number == 0 else ''}: {name}: {rate:,.0f} records/s", flush=True)
                if number:
                    rates[name].append(rate)
        if ONLY.search("one record"):
            self.measure_single()
        if ROUNDS > 1:
            self._conclude(rates)

    def _conclude(self, rates: dict[str, list[float]]) -> None:
        records = self.records["plain"]
        print(f"\nmedians of {ROUNDS - 1} rounds, {records:,} records, batches of {BATCH:,}, local[2]")
        for name, found in rates.items():
            print(f"  {statistics.median(found):>9,.0f} records/s   {name}")
        for name, other, least in CLAIMS:
            if name in rates and other in rates:
                ratio = statistics.median(a / b for a, b in zip(rates[name], rates[other], strict=True))
                wanted = "" if least is None else f" (at least {least:.2f})"
                print(f"  {ratio:4.2f}{wanted}: {name}, as against {other}")

    @contextmanager
    def _place(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.settings.state) as place:
            yield Path(place)


def _trigger_ms(query: StreamingQuery) -> list[int]:
    return [int(each.durationMs["triggerExecution"]) for each in query.recentProgress if each.numInputRows]


def main() -> None:
    """Run the bench on a stack of its own."""
    with own_settings() as settings, Stack(settings, parts=("mariadb", "kafka")) as stack:
        stack.start(print)
        bench = Bench(settings)
        bench.run()
        bench.spark.stop()


if __name__ == "__main__":
    main()
