"""What it costs a triggerer to watch 200 streams, and how soon a death is noticed: simulated, on a real MariaDB.

Each stream has its rows, a living process that carries its mark, and a heartbeat every 2 s. Each case runs in a
process of its own, which holds nothing but the triggers. Beside the triggers as they are runs the naive way: a
connection and a query for each. What counts is their ratio.

Example: ``./tidemill bench triggers`` (SECONDS changes how long each case is measured, DEATHS how many streams die)
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pymysql
from _servers import own_settings  # beside this file
from pymysql.connections import Connection

from tidemill.config import Account, Settings
from tidemill.devstack import secrets
from tidemill.devstack.stack import Stack
from tidemill.store.connection import session
from tidemill.store.control import heartbeats, leases, streams
from tidemill.store.migrations import migrate_control
from tidemill.supervisor.launcher import DRIVER_MARK

SECONDS = float(os.environ.get("SECONDS", "30"))
DEATHS = int(os.environ.get("DEATHS", "20"))
STREAMS = 200
COUNTS = (1, 50, STREAMS)
BEAT_SECONDS = 2.0
NOTICED_SECONDS = 10.0
"""Within this a death has to be noticed."""
_WARM_UP_SECONDS = 5.0


def name_of(number: int) -> str:
    """Of a stream."""
    return f"s{number:03}"


class Drivers:
    """Rows, processes and heartbeats of streams. Their heartbeats are spread over time, as real ones are."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.dead: set[int] = set()
        self.last_beat: dict[int, float] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._processes = [self._process(number) for number in range(STREAMS)]
        with session(settings, Account.STREAM) as connection:
            for number in range(STREAMS):
                self._begin(connection, number)
        self._beating = threading.Thread(target=self._beat, name="heartbeats")
        self._beating.start()

    def die(self, number: int) -> float:
        """Let a stream's heartbeats end, now; when the last one was."""
        with self._lock:
            self.dead.add(number)
            return self.last_beat[number]

    def kill(self, number: int) -> None:
        """SIGKILL to its process."""
        self.dead.add(number)
        self._processes[number].kill()
        self._processes[number].wait()

    def close(self) -> None:
        """End all of it."""
        self._over.set()
        self._beating.join()
        for each in self._processes:
            each.kill()
            each.wait()

    def _process(self, number: int) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.defpath, DRIVER_MARK: f"{name_of(number)}/1"}
        return subprocess.Popen(["sleep", "infinity"], env=environment, start_new_session=True)

    def _begin(self, connection: Connection[Any], number: int) -> None:
        stream = name_of(number)
        streams.request_state(connection, stream, "running", "bench")
        leases.acquire_lease(connection, stream, 1, "bench")
        leases.record_driver(
            connection, stream, 1, host=socket.gethostname(), pid=self._processes[number].pid, master="local[2]"
        )
        heartbeats.report_heartbeat(connection, stream, 1, "running", batches=1, lag_records=0, behind_seconds=0)
        self.last_beat[number] = time.monotonic()

    def _beat(self) -> None:
        slices, turn = 20, 0
        with session(self.settings, Account.STREAM) as connection, connection.cursor() as cursor:
            while not self._over.wait(BEAT_SECONDS / slices):
                with self._lock:
                    numbers = [each for each in range(turn % slices, STREAMS, slices) if each not in self.dead]
                    if numbers:
                        cursor.execute(
                            "UPDATE heartbeats SET heartbeat_at = UTC_TIMESTAMP(6) WHERE stream IN %s",
                            ([name_of(each) for each in numbers],),
                        )
                        self.last_beat |= dict.fromkeys(numbers, time.monotonic())
                turn += 1


class Case:
    """Some triggers in a process of their own."""

    def __init__(self, way: str, first: int, count: int) -> None:
        argv = [sys.executable, __file__, way, str(first), str(count)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.heard: dict[str, tuple[float, str]] = {}
        """Stream -> when its trigger fired, and why."""
        self.facts: dict[str, float] = {}
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "stream" in said:
                self.heard[said["stream"]] = (time.monotonic(), said["reason"])
            else:
                self.facts = said

    def end(self) -> dict[str, float]:
        """What it cost."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reading.join(60)
        self._process.wait(60)
        return self.facts


def run_case(way: str, first: int, count: int) -> None:
    """In the process of a case: run triggers until standard input ends; say what fires, and what it cost."""
    asyncio.run(_case(way, first, count))


async def _case(way: str, first: int, count: int) -> None:
    from tidemill.airflow.triggers.stream import StreamTrigger  # noqa: PLC0415

    own = psutil.Process()
    triggers = [StreamTrigger(name_of(number), 1, freshness_seconds=60) for number in range(first, first + count)]

    async def report(trigger: StreamTrigger) -> None:
        event = await (_naive(trigger) if way == "naive" else anext(trigger.run()))
        print(json.dumps({"stream": trigger.stream, "reason": event.payload["reason"]}), flush=True)

    # What everybody needs is there before it is measured: the first look's imports, caches and threads.
    first_look = asyncio.create_task(report(StreamTrigger("nobody", 1)))
    await first_look
    rss = own.memory_info().rss
    waiting = [asyncio.create_task(report(trigger)) for trigger in triggers]
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    await asyncio.sleep(_WARM_UP_SECONDS)
    began, cpu = time.monotonic(), time.process_time()
    await ended
    minutes = (time.monotonic() - began) / 60
    print(
        json.dumps(
            {
                "cpu": (time.process_time() - cpu) / minutes,
                "rss_mb": (own.memory_info().rss - rss) / 1e6,
                "threads": threading.active_count(),
            }
        ),
        flush=True,
    )
    for each in waiting:
        each.cancel()


async def _naive(trigger: Any) -> Any:
    """What the trigger does, with a connection, a query and a thread's time of its own every 2 s."""
    from airflow.sdk.bases.hook import BaseHook  # noqa: PLC0415

    from tidemill.airflow.connections import open_connection  # noqa: PLC0415
    from tidemill.airflow.triggers.poller import POLL_SECONDS, StreamObservation  # noqa: PLC0415
    from tidemill.airflow.triggers.stream import observe_stream  # noqa: PLC0415

    target = await BaseHook.aget_connection(trigger.conn_id)
    connection = await asyncio.to_thread(open_connection, target)

    def ask() -> Any:
        observed = observe_stream(connection, trigger.stream)
        return trigger.on_observation(StreamObservation(*observed, connection) if observed else None)

    while (event := await asyncio.to_thread(ask)) is None:
        await asyncio.sleep(POLL_SECONDS)
    return event


class Bench:
    """The cases, beside one database."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.drivers = settings, Drivers(settings)
        self._root = pymysql.connect(
            host=settings.db_host,
            port=settings.db_port,
            user="root",
            password=secrets.ensure(settings)[secrets.DB_ROOT],
            autocommit=True,
        )
        with self._root.cursor() as cursor:
            cursor.execute("SET GLOBAL max_connections = 1000")
        self._server = next(
            each for each in psutil.Process().children(recursive=True) if each.name().startswith("mariadbd")
        )

    def run(self) -> bool:
        """Print the table, the ratios and how soon deaths were noticed; whether that was soon enough."""
        heads = ("CPU s/min", "RSS +MB", "queries/min", "connections", "DB CPU s/min")
        print(f"{'triggers':>12}" + "".join(f"{head:>14}" for head in heads))
        idle = self._server_cpu()
        print(f"{'none':>12}" + f"{'-':>14}" * 4 + f"{idle:>14.2f}", flush=True)
        found = {(way, count): self.measure(way, count) for count in COUNTS for way in ("shared", "naive")}
        for count in COUNTS:
            shared, naive = found["shared", count], found["naive", count]
            ratios = ", ".join(f"{name} {naive[name] / max(shared[name], 1e-9):.1f}" for name in ("cpu", "queries"))
            print(
                f"{count} triggers, naive / shared: {ratios}; memory {naive['rss_mb']:.1f} / {shared['rss_mb']:.1f} MB"
            )
        return self.measure_deaths()

    def measure(self, way: str, count: int) -> dict[str, float]:
        """One case, for SECONDS."""
        case = Case(way, 0, count)
        time.sleep(_WARM_UP_SECONDS + 5)  # it starts, and looks for the first time
        before, cpu, began = self._selects(), self._cpu(), time.monotonic()
        time.sleep(SECONDS)
        minutes = (time.monotonic() - began) / 60
        found = {"queries": (self._selects() - before) / minutes, "db": (self._cpu() - cpu) / minutes}
        found["connections"] = self._connections()
        found |= case.end()
        assert not case.heard.keys() - {"nobody"}, f"nothing has happened, and triggers fired: {case.heard}"
        figures = f"{found['cpu']:>14.2f}{found['rss_mb']:>14.1f}{found['queries']:>14.0f}{found['connections']:>14.0f}"
        print(f"{f'{count} {way}':>12}{figures}{found['db']:>14.2f}", flush=True)
        return found

    def measure_deaths(self) -> bool:
        """Some streams fall silent at random moments while 200 are watched, then some processes are killed."""
        case, chance = Case("shared", 0, STREAMS), random.Random(5)
        time.sleep(30)  # a watcher that has just come calls nobody silent
        victims = chance.sample(range(STREAMS), 2 * DEATHS)
        silent, killed = victims[:DEATHS], victims[DEATHS:]
        died, spoke = {}, {}
        for number in silent:
            time.sleep(chance.uniform(0, 1))
            spoke[number] = self.drivers.die(number)
            died[number] = time.monotonic()
        time.sleep(NOTICED_SECONDS + 5)
        gone = {}
        for number in killed:
            time.sleep(chance.uniform(0, 0.5))
            gone[number] = time.monotonic()
            self.drivers.kill(number)
        time.sleep(6)
        case.end()
        after = [case.heard[name_of(number)][0] - died[number] for number in silent]
        longest = max(case.heard[name_of(number)][0] - spoke[number] for number in silent)
        print(
            f"{DEATHS} streams of {STREAMS} fell silent: noticed after {statistics.median(after):.1f} s (median),"
            f" {max(after):.1f} s (worst); {longest:.1f} s after its last heartbeat (limit {NOTICED_SECONDS:g})"
        )
        after = [case.heard[name_of(number)][0] - gone[number] for number in killed]
        print(
            f"{DEATHS} processes were killed on this machine: noticed after {statistics.median(after):.1f} s (median),"
            f" {max(after):.1f} s (worst)"
        )
        return longest <= NOTICED_SECONDS

    def _server_cpu(self) -> float:
        cpu, began = self._cpu(), time.monotonic()
        time.sleep(10)
        return (self._cpu() - cpu) * 60 / (time.monotonic() - began)

    def _cpu(self) -> float:
        times = self._server.cpu_times()
        return float(times.user + times.system)

    def _selects(self) -> int:
        with self._root.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
            return int(cursor.fetchone()[1])  # type: ignore[index]

    def _connections(self) -> int:
        """Those of triggers: all but ours, and the one of the heartbeats."""
        with self._root.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) - 2 FROM information_schema.processlist WHERE user <> 'system user'")
            return int(cursor.fetchone()[0])  # type: ignore[index]


@contextmanager
def servers() -> Iterator[Settings]:
    """A database of its own, and the environment that leads Airflow's connection there."""
    with own_settings() as settings, Stack(settings, parts=("mariadb",)) as stack:
        os.environ["AIRFLOW_HOME"] = str(settings.state / "airflow")
        stack.start(print)
        with session(settings, Account.MIGRATE) as connection:
            migrate_control(connection, settings.root / "sql")
        os.environ["AIRFLOW_CONN_TIDEMILL_DB"] = json.dumps(
            {
                "conn_type": "tidemill",
                "host": settings.db_host,
                "port": settings.db_port,
                "schema": settings.db_control,
                "login": settings.user(Account.STREAM),
                "password": settings.password(Account.STREAM).get_secret_value(),
            }
        )
        yield settings


def main() -> int:
    """Run the bench."""
    with servers() as settings:
        bench = Bench(settings)
        try:
            return 0 if bench.run() else 1
        finally:
            bench.drivers.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with suppress(KeyboardInterrupt):
            run_case(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        sys.exit(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
