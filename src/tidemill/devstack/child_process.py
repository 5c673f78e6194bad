"""One supervised child process: its session, its log, its readiness and its end."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from tidemill import processes
from tidemill.config import Settings
from tidemill.devstack import jars, process_records, secrets
from tidemill.errors import SetupError

_POLL_SECONDS = 0.1
_LOG_LIMIT_BYTES = 20_000_000
_TAIL_BYTES = 65_536
_CAUSE_CHARACTERS = 300

NO_CAUSE = re.compile(r"(?!)")
"""Matches no line: the last line of the log is the best there is."""


@dataclass(frozen=True)
class Program:
    """What to run, and how to ask it whether it serves."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    probe: Callable[[float], bool] = lambda started: True
    """Called with the start time (seconds since the epoch) until it is true. It asks by the server's own protocol and
    returns False where the server does not answer yet."""
    ready_seconds: float = 120.0
    """Ten times what a quiet machine needs, for a busy one."""
    grace_seconds: float = 10.0
    """How long it may take to leave when asked."""
    cause: re.Pattern[str] = NO_CAUSE
    """The log line that says why it failed."""


class Child:
    """A program that runs, in a session of its own, so that a Ctrl-C in the terminal reaches only the stack."""

    def __init__(self, program: Program, settings: Settings) -> None:
        self.program = program
        self.settings = settings
        self.log = settings.state / "logs" / f"{program.name}.log"
        self.started = 0.0
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int | None:
        """The process id; None before the start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it. Its output goes to the end of its log.

        Raises:
            SetupError: the program cannot be executed.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.started = time.time()
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._process = subprocess.Popen(
                    self.program.argv,
                    env=dict(self.program.environment),
                    cwd=self.settings.state,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise SetupError(
                    f"{self.name} cannot be started", value=f"{self.program.argv[0]}: {error.strerror}"
                ) from error
        process_records.Record.of(self.name, self._process.pid).write(self.settings)

    def exit_code(self) -> int | None:
        """The exit code (minus the signal's number where one ended it); None while it runs."""
        return self._process.poll() if self._process else None

    def is_ready(self) -> bool:
        """Whether it serves now."""
        return self.program.probe(self.started)

    def is_overdue(self) -> bool:
        """Whether the time it has for getting ready is over."""
        return time.time() - self.started > self.program.ready_seconds

    def wait_ready(self, cancelled: Event) -> None:
        """Wait until it serves.

        Raises:
            SetupError: it ended, or its time is over; says the cause its log gives.
        """
        while not self.is_ready():
            if self.exit_code() is not None:
                raise self._failure(f"{self.name} {self.ending()} while it started")
            if self.is_overdue():
                raise self._failure(f"{self.name} did not answer within {self.program.ready_seconds:.0f} seconds")
            if cancelled.wait(_POLL_SECONDS):
                return

    def run_to_end(self, cancelled: Event) -> None:
        """Start it and wait until it has done its work, for preparations.

        Raises:
            SetupError: it failed, or took longer than ``ready_seconds``.
        """
        self.start()
        try:
            while self.exit_code() is None and not cancelled.wait(_POLL_SECONDS):
                if self.is_overdue():
                    raise self._failure(f"{self.name} took longer than {self.program.ready_seconds:.0f} seconds")
        finally:
            code = self.stop()
        if code != 0 and not cancelled.is_set():
            raise self._failure(f"{self.name} {self.ending()}")

    def stop(self, grace_seconds: float | None = None) -> int | None:
        """Ask it to leave, make it after the grace, and end what is left of its session. Returns its exit code."""
        if self._process is None:
            return None
        grace = self.program.grace_seconds if grace_seconds is None else grace_seconds
        code = processes.end_child(self._process, grace)
        leader = self._process.pid
        processes.end(lambda: processes.session_members(leader), min(grace, 3.0))
        process_records.forget(self.settings, self.name)
        return code

    def ending(self) -> str:
        """How it ended, for a sentence."""
        code = self.exit_code()
        if code is None:
            return "still runs"
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def cause(self) -> str:
        """The log line since the start that says why, or the last one; secrets in it are masked.

        Empty where a signal ended it and no line says why: the last line then tells what it did before.
        """
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - _TAIL_BYTES))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        found = next((line for line in lines if self.program.cause.search(line)), None)
        if found is None:
            if (self.exit_code() or 0) < 0:
                return ""
            found = lines[-1] if lines else "its log is empty"
        return secrets.masked(found, self.settings)[:_CAUSE_CHARACTERS]

    def _failure(self, what: str) -> SetupError:
        cause = self.cause()
        if "No space left on device" in cause:
            return SetupError(
                "no space left on the disk", value=self.settings.state, remedy="free some and start again"
            )
        return SetupError(what, value=cause or None, remedy=f"the whole log is {self.log}")


_OVERRIDES = ("AIRFLOW__", "AIRFLOW_CONN_TIDEMILL_DB", "AIRFLOW_CONN_KAFKA_DEFAULT", "AIRFLOW_CONN_SPARK_DEFAULT")


def environment(settings: Settings) -> dict[str, str]:
    """The environment of every process of the stack: this one's, the settings, and where Python, Spark and Java are.

    Holds no secret of ours. Left out is what would override the file that ``airflow`` writes, or the connections that
    lead to these servers and no others.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OVERRIDES)}
    programs = Path(sys.executable).parent
    java_home = jars.java_home()
    sources = str(settings.root / "src")
    path = [str(programs), str(java_home / "bin"), kept.get("PATH", os.defpath)]
    python_path = [
        sources,
        *(each for each in kept.get("PYTHONPATH", "").split(os.pathsep) if each not in ("", sources)),
    ]
    return {
        "SPARK_LOCAL_IP": "127.0.0.1",
        **kept,
        **settings.environment(),
        process_records.STACK_MARK: str(settings.state),
        "JAVA_HOME": str(java_home),
        # Paths are UTF-8, and a log's causes are in English, whatever the locale of the person who starts the stack.
        "LC_ALL": "C.UTF-8",
        "PATH": os.pathsep.join(path),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(python_path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "SPARK_HOME": str(_spark_home()),
    }


def _spark_home() -> Path:
    """Where PySpark is installed, without importing it."""
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise SetupError("pyspark is not installed", value=sys.prefix, remedy="start through ./tidemill")
    return Path(found.origin).parent
