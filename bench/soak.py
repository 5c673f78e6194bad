"""Whether the whole stack lives on by itself while its parts are killed at random, on a disturbed feed.

A stack of its own plays ``flights`` with duplicates, disorder and malformed records at a steady pace. Every 20 to 60 s
something is killed by SIGKILL: the driver, one of its Python workers, a component of Airflow or all of them, the
database, the broker. Only the stack's own watch and Airflow start things again. In the end every record has to be in
the ledger and ``verify --deep`` has to find nothing.

Example: ``MINUTES=30 ./tidemill bench soak`` (SEED orders the kills, RATE is the mean of records per second, PAUSES the
least and most seconds between two kills, e.g. ``PAUSES=20,60``, LOGS a folder that gets the logs in the end). Exits
with 1 if anything differs, if a person would have been needed, or if two drivers of the stream lived at once.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import psutil
from _servers import own_settings  # beside this file

from tidemill.config import Account, Settings
from tidemill.demo.chaos import Chaos
from tidemill.demo.feed import Feed, FeedOptions
from tidemill.deploy import apply
from tidemill.devstack import process_records
from tidemill.devstack.airflow_api import AirflowApi
from tidemill.devstack.stack import Stack
from tidemill.devstack.up import FeedThread, connections
from tidemill.errors import TidemillError
from tidemill.kafka import clients, topics
from tidemill.kafka.audit import count_records
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.processes import environment_of
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session, translated
from tidemill.store.control import ledger, streams
from tidemill.supervisor.launcher import DRIVER_MARK
from tidemill.supervisor.maintenance import verify_pipeline

MINUTES = float(os.environ.get("MINUTES", "30"))
SEED = int(os.environ.get("SEED", "1"))
RATE = float(os.environ.get("RATE", "400"))
LOGS = os.environ.get("LOGS")
LEAST, MOST = (float(part) for part in os.environ.get("PAUSES", "20,60").split(","))
STREAM = "flights"
CHAOS = Chaos(duplicates=0.1, disorder=300, malformed=0.01)
RECORDS_PER_FLIGHT = 3.2
"""Scheduled, departed and arrived, and what chaos adds; near enough to choose how many flights are played."""
ALL_FLIGHTS = 336_776
DRAIN_SECONDS = 300.0
NOTICED_SECONDS = 5.0
"""A pause that begins later than this after a kill is not the kill's."""
USUAL_SECONDS = 3.0
"""Pauses up to this are the feed's own: at night there are no flights."""
CHILDREN = {
    "scheduler": ("airflow-scheduler",),
    "triggerer": ("airflow-triggerer",),
    "api-server": ("airflow-api-server",),
    "airflow": ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"),
    "database": ("mariadb",),
    "broker": ("kafka",),
}
"""What is killed -> children of the stack."""
KINDS = ("driver", "worker", *CHILDREN)


def now() -> datetime:
    """This machine's time in naive UTC, as the database's clock, which is the same, gives it."""
    return datetime.now(UTC).replace(tzinfo=None)


def schedule(seed: int, seconds: float) -> Iterator[tuple[float, str]]:
    """When to kill what: seconds since the beginning, and the kind. Every kind comes before one comes again."""
    chance, at, left = random.Random(seed), 0.0, list[str]()
    while (at := at + chance.uniform(LEAST, MOST)) < seconds:
        left = left or chance.sample(KINDS, len(KINDS))
        yield at, left.pop()


def recovery_seconds(commits: Sequence[datetime], killed: datetime, until: datetime) -> float | None:
    """From a kill to the commit that ended the longest pause after it.

    Args:
        commits: when each was made, in order.
        killed: when the kill was.
        until: only pauses that had begun by then count.

    Returns:
        Seconds; 0 if the pause was a usual one, None if there was no commit any more.
    """
    pauses = [(after - before, after) for before, after in pairwise(commits) if before <= until and after > killed]
    if not pauses:
        return None
    longest, ended = max(pauses)
    return (ended - killed).total_seconds() if longest.total_seconds() > USUAL_SECONDS else 0.0


def drivers(settings: Settings) -> Iterator[tuple[str, psutil.Process]]:
    """Each living process of the stream's drivers in this stack, with the mark ``<stream>/<epoch>`` it carries."""
    for each in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it ended while we looked
            environment = environment_of(each)
            ours = environment.get(process_records.STACK_MARK) == str(settings.state)
            if ours and DRIVER_MARK in environment and each.status() != psutil.STATUS_ZOMBIE:
                yield environment[DRIVER_MARK], each


def leaders(settings: Settings) -> dict[int, str]:
    """Process id -> mark of each driver: the process that leads its session. What a dead one has left is none."""
    found = {}
    for mark, each in drivers(settings):
        with suppress(OSError):
            if os.getsid(each.pid) == each.pid:
                found[each.pid] = mark
    return found


def workers(settings: Settings) -> list[int]:
    """Process ids of the drivers' Python workers, which their daemon forks."""
    found = []
    for _, each in drivers(settings):
        with suppress(psutil.Error):
            parent = each.parent()
            if parent and all("pyspark.daemon" in one.cmdline() for one in (each, parent)):
                found.append(each.pid)
    return found


class Observer(threading.Thread):
    """Looks twice a second whether two drivers live, and whether the stream waits for a person."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="observer", daemon=True)
        self.settings = settings
        self.trouble: dict[str, None] = {}
        """What may not be, once each, in order."""
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            alive = leaders(self.settings)
            if len(alive) > 1:
                self.trouble[f"two drivers lived at once: {', '.join(sorted(alive.values()))}"] = None
            with suppress(TidemillError), session(self.settings, Account.READ) as connection:
                row = streams.read_stream(connection, STREAM)
                if row and row.halted_reason:
                    self.trouble[f"a person was needed: {row.halted_reason}"] = None


@dataclass(frozen=True)
class Kill:
    """One that was done."""

    kind: str
    at: datetime


@dataclass
class Soak:
    """One run on a running stack."""

    settings: Settings
    pipeline: Pipeline
    stack: Stack
    say: Callable[[str], None]
    kills: list[Kill] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    feeds: list[FeedThread] = field(default_factory=list)
    """The feed, and those that went on where one before it could not."""

    def run(self) -> None:
        """Feed and kill, then let everything come to rest, and report."""
        options, records = self._options()
        self.say(f"{records:,} records in {MINUTES:g} min: {options.limit or ALL_FLIGHTS:,} flights, {options.chaos}")
        self._start_stream()
        observer = Observer(self.settings)
        observer.start()
        self._feed(options)
        begun = time.monotonic()
        for at, kind in schedule(SEED, 60 * MINUTES):
            while (left := at - (time.monotonic() - begun)) > 0:
                self._heal_feed(options)
                time.sleep(min(left, 1.0))
            self._kill(kind)
        self._rest(options)
        observer.ended.set()
        observer.join()
        self.trouble += observer.trouble
        self._report(records)

    def leave(self) -> None:
        """End feed and stream while all they need runs."""
        for feed in self.feeds:
            if feed.is_alive():
                feed.end()
        apply.stop_streams(self.settings, 60)

    def _options(self) -> tuple[FeedOptions, int]:
        """As many flights as the rate and the time want, at the speed at which they last as long."""
        flights = min(ALL_FLIGHTS, int(RATE * 60 * MINUTES / RECORDS_PER_FLIGHT))
        limit = None if flights == ALL_FLIGHTS else flights
        feed = Feed(FeedOptions(limit=limit, chaos=CHAOS), self.pipeline.source.partitions)
        speed = float(feed.due[-1] - feed.due[0]) / (60 * MINUTES)
        return FeedOptions(speed=speed, limit=limit, chaos=CHAOS), len(feed)

    def _start_stream(self) -> None:
        apply.apply_all(self.settings, [self.pipeline], self.say)
        with AirflowApi(self.settings) as api:
            for connection in connections(self.settings):
                api.put_connection(connection)
            api.wait_for_dag(f"stream__{STREAM}")
            api.unpause(f"stream__{STREAM}")
        apply.request_start(self.settings, [self.pipeline])
        deadline = time.monotonic() + 180
        while (row := self._row()) is None or row.state != "running":
            if time.monotonic() > deadline:
                raise SystemExit("the stream did not start within 180 s")
            time.sleep(0.5)
        self.say("the stream runs")

    def _feed(self, options: FeedOptions) -> None:
        self.feeds.append(FeedThread(self.settings, self.pipeline.source.topic, options))
        self.feeds[-1].start()

    def _heal_feed(self, options: FeedOptions) -> None:
        """Go on with a feed that found no broker at its start or was refused."""
        if self.feeds[-1].failure:
            self.say(f"the feed goes on after: {self.feeds[-1].failure}")
            self._feed(options)

    def _kill(self, kind: str) -> None:
        victims = self._victims(kind)
        self.kills += [Kill(kind, now())] if victims else []
        self.say(f"{'kill' if victims else 'nothing to kill of'} {kind} {' '.join(map(str, victims))}")
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _victims(self, kind: str) -> list[int]:
        if kind == "driver":
            return [*leaders(self.settings)]
        if kind == "worker":
            return workers(self.settings)[:1]
        children = [self.stack.children[name] for name in CHILDREN[kind]]
        return [child.pid for child in children if child.pid is not None and child.exit_code() is None]

    def _rest(self, options: FeedOptions) -> None:
        """Wait until the feed has ended, all of it is in the ledger, and every incident is over."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while not (self.feeds[-1].done and self._lag() == 0 and self._open_incidents() == []):
            self._heal_feed(options)
            if time.monotonic() > deadline:
                lag, still = self._lag(), self._open_incidents()
                self.trouble.append(f"not at rest after {DRAIN_SECONDS:g} s: lag {lag}, open {still}, {self._row()}")
                return
            time.sleep(0.5)
        self.say("everything is in the ledger, and no incident is open")

    def _open_incidents(self) -> list[str] | None:
        """Kinds of the stream's incidents that are open; None while the database cannot be asked."""
        reader = session(self.settings, Account.READ)
        with suppress(TidemillError), reader as connection, translated(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT kind FROM incidents WHERE subject = %s AND closed_at IS NULL ORDER BY kind",
                (f"stream {STREAM}",),
            )
            return [str(row[0]) for row in cursor.fetchall()]
        return None

    def _row(self) -> StreamRow | None:
        with suppress(TidemillError), session(self.settings, Account.READ) as connection:
            return streams.read_stream(connection, STREAM)
        return None

    def _lag(self) -> int | None:
        """Records in Kafka that are not in the ledger; None while one of the two cannot be asked."""
        with suppress(TidemillError), session(self.settings, Account.READ) as connection:
            ends = topics.offsets_at(clients.admin(self.settings), self.pipeline.source.topic, "latest")
            at = ledger.positions(connection, STREAM, self.pipeline.source.topic)
            return sum(end - at.get(partition, 0) for partition, end in ends.items())
        return None

    def _report(self, records: int) -> None:
        with session(self.settings, Account.READ) as connection, translated(), connection.cursor() as cursor:
            total, row = ledger.totals(connection, STREAM), streams.read_stream(connection, STREAM)
            cursor.execute("SELECT committed_at FROM commits WHERE stream = %s ORDER BY committed_at", (STREAM,))
            commits = [each[0] for each in cursor.fetchall()]
            cursor.execute("SELECT kind, COUNT(*) FROM incidents GROUP BY kind ORDER BY kind")
            incidents = [f"{kind} {count}" for kind, count in cursor.fetchall()]
        self._report_kills(commits)
        pause, ended = max((after - before, after) for before, after in pairwise(commits))
        epochs = row.epoch if row else 0
        parts = ("written", "stale", "duplicate", "filtered", "quarantined", "gap", "lost")
        counts = " + ".join(f"{getattr(total, name):,} {name}" for name in parts)
        print(f"restarts of the driver: {epochs - 1}, by {sum(k.kind == 'driver' for k in self.kills)} kills of it")
        print(f"longest time between two commits: {pause.total_seconds():.1f} s, until {ended:%H:%M:%S} UTC")
        print(f"records: {total.records:,} = {counts}, in {total.commits:,} commits")
        print(f"incidents: {', '.join(incidents) or 'none'}")
        if total.records != records:
            self.trouble.append(f"the ledger has {total.records:,} records, the feed has {records:,}")
        found = [*verify_pipeline(self.settings, self.pipeline, clients.admin(self.settings)).differences]
        found += count_records(self.settings, self.pipeline)
        print(f"verify --deep: {'; '.join(found) or 'ledger, Kafka and tables agree'}", flush=True)
        self.trouble += found

    def _report_kills(self, commits: Sequence[datetime]) -> None:
        """Per kind: how many, and how long it took until commits went on."""
        took: dict[str, list[float]] = {kind: [] for kind in KINDS}
        ends = [kill.at for kill in self.kills[1:]] + [datetime.max]
        for kill, following in zip(self.kills, ends, strict=True):
            until = min(kill.at + timedelta(seconds=NOTICED_SECONDS), following)
            seconds = recovery_seconds(commits, kill.at, until)
            if seconds is not None:
                took[kill.kind].append(seconds)
        print(f"\n{len(self.kills)} kills, seed {SEED}; seconds until commits went on, 0 where they did not pause:")
        for kind, found in took.items():
            if found:
                figures = f"median {statistics.median(found):5.1f}, worst {max(found):5.1f}"
                print(f"  {kind:<10} {len(found):>3} times, {figures}")


def main() -> int:
    """Run it in a state folder of its own; 1 if anything is wrong."""
    began = time.monotonic()

    def say(sentence: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {sentence}", flush=True)

    with own_settings(TIDEMILL_DB_BUFFER_POOL="512M", TIDEMILL_SPARK_DRIVER_MEMORY="1g") as settings:
        with Stack(settings) as stack:
            stack.start(say)
            stack.watch(say)
            soak = Soak(settings, load_pipeline(settings.pipelines / STREAM), stack, say)
            stack.before_stop.append(soak.leave)
            soak.run()
        if LOGS:
            shutil.copytree(settings.state / "logs", LOGS, dirs_exist_ok=True)
        soak.trouble += [f"left running: {each}" for each in process_records.marked(settings)]
    for sentence in soak.trouble:
        print(f"wrong: {sentence}")
    print(f"soak of {MINUTES:g} min: {'failed' if soak.trouble else 'passed'}", flush=True)
    return 1 if soak.trouble else 0


if __name__ == "__main__":
    sys.exit(main())
