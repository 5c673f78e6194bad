"""Which processes belong to a stack, and how they are ended.

A process of the stack is recognised in two ways. What the stack started itself stands in ``<state>/run/<name>.json``
with its process id and start time, so that a process id which the system gave to somebody else is never touched. What
those started in turn, detached ones too, inherited ``STACK_MARK`` in their environment.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tidemill.config import Settings
from tidemill.processes import carriers, end, end_session, is_running, session_members

STACK_MARK = "TIDE_STACK"
"""Environment variable that names the state folder of the stack a process belongs to. It has another prefix than the
settings because it is none."""

STACK = "stack"
"""The record of the process that runs the stack; the others are named after what they run."""

_SAME_START_SECONDS = 2.0
"""The start time of a process is computed from the boot time, which moves a little when the clock is set."""


@dataclass(frozen=True)
class Record:
    """A process that the stack started: enough to find it again, and only it."""

    name: str
    pid: int
    started: float
    """Seconds since the epoch."""

    @classmethod
    def of(cls, name: str, pid: int) -> Record:
        """The record of a process that runs now."""
        return cls(name, pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The process, if this very one still runs."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started) < _SAME_START_SECONDS
        except psutil.NoSuchProcess:
            return None
        return process if is_same and is_running(process) else None

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return self.process() is not None

    def has_session(self) -> bool:
        """Whether it, or what it started, still runs.

        While a session has members, no other process gets its leader's id, dead or not.
        """
        try:
            is_other = abs(psutil.Process(self.pid).create_time() - self.started) >= _SAME_START_SECONDS
        except psutil.NoSuchProcess:
            is_other = False
        return not is_other and bool(session_members(self.pid))

    def write(self, settings: Settings) -> None:
        """Keep it in the state folder."""
        path = _path(settings, self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)) + "\n")


def forget(settings: Settings, name: str) -> None:
    """Remove the record of one name."""
    _path(settings, name).unlink(missing_ok=True)


def read(settings: Settings, name: str) -> Record | None:
    """The record of one name, whether or not its process still runs."""
    try:
        found = json.loads(_path(settings, name).read_text())
        return Record(str(found["name"]), int(found["pid"]), float(found["started"]))
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        # A record is cut short when the machine stops in the middle; it names nobody then.
        return None


def read_all(settings: Settings) -> list[Record]:
    """Every record in the state folder."""
    names = sorted(path.stem for path in (settings.state / "run").glob("*.json"))
    return [record for name in names if (record := read(settings, name)) is not None]


def marked(settings: Settings, spare: Iterable[int] = ()) -> list[psutil.Process]:
    """Processes that carry this stack's mark, except this one, its ancestors, and the sessions in ``spare``."""
    spared = set(spare)
    own = {os.getpid(), *(each.pid for each in psutil.Process().parents())}
    found = []
    for process, state in carriers(STACK_MARK):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if state == str(settings.state) and process.pid not in own and os.getsid(process.pid) not in spared:
                found.append(process)
    return found


def stop_all(settings: Settings, grace_seconds: float = 10) -> list[str]:
    """Stop what a stack that is no more has left running, users of a server before the server.

    Returns:
        A sentence for each process that was stopped.
    """
    left = [record for record in read_all(settings) if record.name != STACK and record.has_session()]
    servers = [record for record in left if not record.name.startswith("airflow")]
    stopped = []
    for record in (each for each in left if each not in servers):
        end_session(record.pid, grace_seconds)
        stopped.append(f"{record.name} (process {record.pid})")
    marked_processes = marked(settings, spare=[record.pid for record in servers])
    stopped += [_named(process) for process in marked_processes]
    end(lambda: marked_processes, grace_seconds)
    for record in servers:
        end_session(record.pid, grace_seconds)
        stopped.append(f"{record.name} (process {record.pid})")
    for record in read_all(settings):
        if record.name != STACK:
            forget(settings, record.name)
    return [f"stopped {each}, left by a run that was not stopped" for each in stopped]


def _named(process: psutil.Process) -> str:
    try:
        return f"{process.name()} (process {process.pid})"
    except psutil.NoSuchProcess:
        return f"process {process.pid}"


def _path(settings: Settings, name: str) -> Path:
    return settings.state / "run" / f"{name}.json"
