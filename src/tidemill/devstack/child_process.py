"""A supervised child process of the stack: its session, its log, its readiness and its end."""

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
"""Matches no line; the last line of the log is then reported as the cause."""


@dataclass(frozen=True)
class Program:
    """A command line, and how to find out whether its process is ready."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    probe: Callable[[float], bool] = lambda started: True
    """Called with the start time (seconds since the epoch) until it returns True. It uses the server's own protocol,
    and returns False while the server does not answer."""
    ready_seconds: float = 120.0
    """The time to become ready: ten times what a quiet machine needs."""
    grace_seconds: float = 10.0
    """The time between SIGTERM and SIGKILL."""
    cause: re.Pattern[str] = NO_CAUSE
    """Matches the log line that has the cause of a failure."""
    folder: Path | None = None
    """Its working directory; None for the state folder."""


class Child:
    """A process in a session of its own, so that Ctrl-C in the terminal reaches only the process of the stack."""

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
        """Start the process. Its output is appended to its log.

        Raises:
            SetupError: the program cannot be executed.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.started = time.time()
        with self.log.open("ab") as log:
            self._log_start = log.seek(0, os.SEEK_END)
            try:
                self._process = subprocess.Popen(
                    self.program.argv,
                    env=dict(self.program.environment),
                    cwd=self.program.folder or self.settings.state,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                program = self.program.argv[0]
                raise SetupError(
                    "TM-DEVSTACK-NOT-EXECUTABLE", value=error.strerror, name=self.name, program=program
                ) from error
        process_records.Record.of(self.name, self._process.pid).write(self.settings)

    def exit_code(self) -> int | None:
        """The exit code, or minus the number of the signal that ended the process; None while it runs."""
        return self._process.poll() if self._process else None

    def is_ready(self) -> bool:
        """Whether the process answers its probe now."""
        return self.program.probe(self.started)

    def is_overdue(self) -> bool:
        """Whether the time to become ready is over."""
        return time.time() - self.started > self.program.ready_seconds

    def wait_ready(self, cancelled: Event) -> None:
        """Wait until the process is ready.

        Raises:
            SetupError: it ended, or did not become ready in time; the value is the cause from its log.
        """
        while not self.is_ready():
            if self.exit_code() is not None:
                raise self._unless_disk_full(
                    SetupError("TM-DEVSTACK-SERVER-ENDED", value=self.cause() or None, **self._facts())
                )
            if self.is_overdue():
                raise self._unless_disk_full(
                    SetupError("TM-DEVSTACK-SERVER-NOT-READY", value=self.cause() or None, **self._facts())
                )
            if cancelled.wait(_POLL_SECONDS):
                return

    def run_to_end(self, cancelled: Event) -> None:
        """Start the process and wait until it ends with exit code 0, for preparations.

        Raises:
            SetupError: it ended with another exit code, or took longer than ``ready_seconds``.
        """
        self.start()
        try:
            while self.exit_code() is None and not cancelled.wait(_POLL_SECONDS):
                if self.is_overdue():
                    raise self._unless_disk_full(
                        SetupError("TM-DEVSTACK-PREPARATION-SLOW", value=self.cause() or None, **self._facts())
                    )
        finally:
            code = self.stop()
        if code != 0 and not cancelled.is_set():
            raise self._unless_disk_full(
                SetupError("TM-DEVSTACK-PREPARATION-FAILED", value=self.cause() or None, **self._facts())
            )

    def stop(self, grace_seconds: float | None = None) -> int | None:
        """Send SIGTERM, after the grace SIGKILL, and end the other processes of its session. Returns the exit code."""
        if self._process is None:
            return None
        grace = self.program.grace_seconds if grace_seconds is None else grace_seconds
        code = processes.end_child(self._process, grace)
        leader = self._process.pid
        processes.end(lambda: processes.session_members(leader), min(grace, 3.0))
        process_records.remove(self.settings, self.name)
        return code

    def ending(self) -> str:
        """How the process ended, as the predicate of a sentence."""
        code = self.exit_code()
        if code is None:
            return "still runs"
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def cause(self) -> str:
        """The first log line since the start that matches ``Program.cause``, else the last line; secrets are masked.

        Empty if a signal ended the process and no line matches: the last line then has nothing to do with its end.
        """
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - _TAIL_BYTES))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        cause = next((line for line in lines if self.program.cause.search(line)), None)
        if cause is None:
            if (self.exit_code() or 0) < 0:
                return ""
            cause = lines[-1] if lines else "its log is empty"
        return secrets.masked(cause, self.settings)[:_CAUSE_CHARACTERS]

    def _facts(self) -> dict[str, object]:
        """Parameters of the errors of :meth:`wait_ready` and :meth:`run_to_end`."""
        seconds = f"{self.program.ready_seconds:g}"
        return {"name": self.name, "ending": self.ending(), "seconds": seconds, "log": self.log}

    def _unless_disk_full(self, error: SetupError) -> SetupError:
        if "No space left on device" in str(error.value):
            return SetupError("TM-DEVSTACK-DISK-FULL", value=self.settings.state)
        return error


_OVERRIDES = ("AIRFLOW__", "AIRFLOW_CONN_TIDEMILL_DB", "AIRFLOW_CONN_KAFKA_DEFAULT", "AIRFLOW_CONN_SPARK_DEFAULT")


def environment(settings: Settings) -> dict[str, str]:
    """The environment of every process of the stack: this process's, the settings, the paths of Python, Spark and Java.

    It holds no generated secret. Left out are variables that would override the file that ``servers.airflow`` writes,
    and connections of the same names as the ones that lead to the servers of this stack.
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
    """The folder of PySpark, without importing it."""
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise SetupError("TM-DEVSTACK-PYSPARK-MISSING", value=sys.prefix)
    return Path(found.origin).parent
