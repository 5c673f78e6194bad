"""The embedded stack as one thing that is started, watched and stopped."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Self

from tidemill import processes
from tidemill.config import Settings
from tidemill.devstack import jars, ports, private_state, process_records, secrets
from tidemill.devstack.child_process import Child, Program
from tidemill.devstack.process_records import Record
from tidemill.devstack.restarts import Watch
from tidemill.devstack.servers import airflow, kafka, mariadb
from tidemill.errors import SetupError

ALL = ("mariadb", "kafka", "airflow")
"""The parts, in the reverse order of stopping."""

_LEAST_FREE_BYTES = 2_000_000_000

Report = Callable[[str], None]


def _silent(sentence: str) -> None:
    """Reports nothing."""


class Stack:
    """Runs the parts as child processes of this process. It is a context manager::

        with Stack(settings) as stack:
            stack.start(print)
            stack.watch(print)
            ...

    Inside the block, SIGTERM and SIGHUP act like Ctrl-C, so that everything is stopped on every exit.
    """

    def __init__(self, settings: Settings, parts: Iterable[str] = ALL) -> None:
        chosen = set(parts)
        self.settings = settings
        self.parts = [part for part in ALL if part in chosen]
        self.before_stop: list[Callable[[], None]] = []
        """Called in order before the servers stop: ``up`` stops the streams here, while the servers still run."""
        self._children: dict[str, Child] = {}
        self._cancelled = threading.Event()
        self._lock: IO[str] | None = None
        self._watch: Watch | None = None
        self._handlers = ExitStack()
        self._report: Report = _silent

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._handlers.callback(signal.signal, number, signal.signal(number, _interrupt))
        return self

    def __exit__(self, *exception: object) -> None:
        with self._handlers:
            self.stop()

    @property
    def children(self) -> dict[str, Child]:
        """The child processes by name."""
        return dict(self._children)

    def start(self, report: Report = _silent) -> None:
        """Start the parts and wait until all of them are ready.

        Raises:
            SetupError: something is missing, a port is taken, the disk is full, or a server failed; every process that
                was started is stopped.
        """
        self._report = report
        with self._stopped_on_failure():
            private_state.close(self.settings.state)
            (self.settings.state / "run").mkdir(exist_ok=True)
            self._take_lock()
            for sentence in process_records.stop_all(self.settings):
                report(sentence)
            secrets.ensure(self.settings)
            self._start_parts(self.parts)

    def add(self, *parts: str) -> None:
        """Start further parts of a running stack; parts that it has already are not touched.

        Raises:
            SetupError: as in ``start``; the whole stack is stopped.
        """
        fresh = [part for part in ALL if part in parts and part not in self.parts]
        with self._stopped_on_failure():
            self._start_parts(fresh)
        self.parts += fresh

    def watch(self, report: Report = _silent) -> None:
        """From now on, restart every process that ends by itself, in a thread of its own, and report it."""
        self._report = report
        if self._watch is None:
            self._watch = Watch(self._children, report)

    def stop(self) -> None:
        """Call ``before_stop``, then stop Airflow, the processes it left, Kafka and MariaDB. May be called twice."""
        if self._lock is None:
            return
        with _uninterrupted():
            self._cancelled.set()
            if self._watch is not None:
                self._watch.stop()
            for hook in self.before_stop:
                self._call(hook)
            self._stop_children([name for name in self._children if name.startswith("airflow")])
            processes.end(lambda: process_records.marked(self.settings, self._sessions()), grace_seconds=10)
            for part in reversed(ALL):
                self._stop_children([name for name in self._children if name.startswith(part)])
            processes.end(lambda: process_records.marked(self.settings), grace_seconds=5)
            process_records.remove(self.settings, process_records.STACK)
            self._lock.close()
            self._lock = None

    def _call(self, hook: Callable[[], None]) -> None:
        try:
            hook()
        except Exception as error:  # noqa: BLE001 -- reported; the servers have to be stopped all the same
            self._report(f"stopping continues after an error: {error}")

    def _sessions(self) -> list[int]:
        return [child.pid for child in self._children.values() if child.pid is not None]

    def _stop_children(self, names: list[str]) -> None:
        children = [self._children.pop(name) for name in names]
        if children:
            with ThreadPoolExecutor(len(children)) as pool:
                list(pool.map(Child.stop, children))

    def _take_lock(self) -> None:
        """The kernel releases the lock, however this process ends."""
        lock = (self.settings.state / "run" / "stack.lock").open("a", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            record = process_records.read(self.settings, process_records.STACK)
            value = f"process {record.pid}" if record else self.settings.state
            raise SetupError("TM-DEVSTACK-ALREADY-RUNNING", value=value) from None
        self._lock = lock
        Record.of(process_records.STACK, os.getpid()).write(self.settings)

    @contextmanager
    def _stopped_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise _disk_full(self.settings.state) from error
            if isinstance(error, OSError) and str(error.filename).startswith(str(self.settings.state)):
                raise SetupError("TM-DEVSTACK-STATE-UNUSABLE", value=error.filename, reason=error.strerror) from error
            raise

    def _check(self, parts: list[str]) -> None:
        state = self.settings.state
        if shutil.disk_usage(state).free < _LEAST_FREE_BYTES:
            raise _disk_full(state)
        jars.java_home()
        if "mariadb" in parts:
            jars.part(self.settings, "db")
            ports.require_free(mariadb.port(self.settings), "TIDEMILL_DB_PORT")
        if "kafka" in parts:
            jars.part(self.settings, "broker")
            ports.require_free(kafka.port(self.settings), "TIDEMILL_KAFKA_BOOTSTRAP")
        if "airflow" in parts:
            ports.require_free(airflow.port(self.settings), "TIDEMILL_AIRFLOW_PORT")

    def _start_parts(self, parts: list[str]) -> None:
        self._check(parts)
        write_settings(self.settings)
        with ThreadPoolExecutor(max(len(parts), 1)) as pool:
            futures = [pool.submit(self._start_part, part) for part in parts]
            try:
                for each in wait(futures, return_when=FIRST_EXCEPTION).done:
                    each.result()
            except BaseException:  # Ctrl-C, too, while the parts start
                # The other parts stop waiting; the pool waits for them.
                self._cancelled.set()
                raise

    def _start_part(self, part: str) -> None:
        began = time.monotonic()
        _PREPARE[part](self.settings, self._cancelled)
        children = [Child(program, self.settings) for program in _programs(part, self.settings)]
        for child in children:
            if not self._cancelled.is_set():
                self._children[child.name] = child
                child.start()
        for child in children:
            child.wait_ready(self._cancelled)
        if not self._cancelled.is_set():
            self._report(f"{part} ready after {time.monotonic() - began:.1f} s")


_PREPARE: dict[str, Callable[[Settings, threading.Event], None]] = {
    "mariadb": mariadb.prepare,
    "kafka": kafka.prepare,
    "airflow": airflow.prepare,
}


def _programs(part: str, settings: Settings) -> list[Program]:
    if part == "airflow":
        return airflow.programs(settings)
    return [kafka.program(settings) if part == "kafka" else mariadb.program(settings)]


def write_settings(settings: Settings) -> None:
    """Write the settings of the stack to the file that every later ``config.load`` of this state reads.

    Paths that follow from the project's folder or the state folder are left out, so that both may be moved.
    """
    derived = {"root", "state"} | {
        name
        for name, value in (
            ("pipelines", settings.root / "pipelines"),
            ("jars", settings.root / ".tidemill" / "jars"),
            ("models", settings.state / "models"),
        )
        if getattr(settings, name) == value
    }
    temporary = settings.settings_file.with_suffix(".new")
    temporary.write_text(
        json.dumps(settings.model_dump(mode="json", exclude=derived), indent=1) + "\n", encoding="utf-8"
    )
    temporary.replace(settings.settings_file)


def _disk_full(state: Path) -> SetupError:
    free = shutil.disk_usage(state).free / 1e9
    return SetupError("TM-DEVSTACK-DISK-FULL", value=f"{free:.1f} GB free at {state}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals do not interrupt the block: stopping has its own deadlines, and half a stop would leave processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with ExitStack() as handlers:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A function, not SIG_IGN, which child processes would inherit.
            handlers.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        yield
