"""Which processes belong to a stack, and how they are ended.

A process of the stack is recognised in two ways. A process that the stack started itself has a record in
``<state>/run/<name>.json`` with its process id and start time, so that a process id which the system has reused is
never signalled. The processes that those started, detached ones too, inherit ``STACK_MARK`` in their environment.
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
"""Environment variable with the state folder of the stack that a process belongs to. It is no setting, and so does not
have the prefix of the settings."""

STACK = "stack"
"""Name of the record of the process that runs the stack; the other records have the names of the servers."""

_SAME_START_SECONDS = 2.0
"""The start time of a process is computed from the boot time, which moves a little when the clock is set."""


@dataclass(frozen=True)
class Record:
    """A process that the stack started: what identifies this process, and no later one with the same id."""

    name: str
    pid: int
    started: float
    """Seconds since the epoch."""

    @classmethod
    def of(cls, name: str, pid: int) -> Record:
        """The record of a process that runs now."""
        return cls(name, pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The process, if it still runs; None if another one has its id."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started) < _SAME_START_SECONDS
        except psutil.NoSuchProcess:
            return None
        return process if is_same and is_running(process) else None

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self.process() is not None

    def has_session(self) -> bool:
        """Whether the process or another one of its session still runs.

        While a session has members, the system does not reuse the id of its leader.
        """
        try:
            is_other = abs(psutil.Process(self.pid).create_time() - self.started) >= _SAME_START_SECONDS
        except psutil.NoSuchProcess:
            is_other = False
        return not is_other and bool(session_members(self.pid))

    def write(self, settings: Settings) -> None:
        """Write the record to the state folder."""
        path = _path(settings, self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def remove(settings: Settings, name: str) -> None:
    """Remove the record of one name."""
    _path(settings, name).unlink(missing_ok=True)


def read(settings: Settings, name: str) -> Record | None:
    """The record of one name, whether or not its process still runs."""
    try:
        facts = json.loads(_path(settings, name).read_text(encoding="utf-8"))
        return Record(str(facts["name"]), int(facts["pid"]), float(facts["started"]))
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        # A machine that stopped while it wrote may leave a part of a record, which identifies no process.
        return None


def read_all(settings: Settings) -> list[Record]:
    """Every record in the state folder."""
    names = sorted(path.stem for path in (settings.state / "run").glob("*.json"))
    return [record for name in names if (record := read(settings, name)) is not None]


def marked(settings: Settings, spare: Iterable[int] = ()) -> list[psutil.Process]:
    """Processes that have this stack's mark, except this one, its ancestors, and the sessions in ``spare``."""
    spared = set(spare)
    own = {os.getpid(), *(each.pid for each in psutil.Process().parents())}
    found = []
    for process, state in carriers(STACK_MARK):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if state == str(settings.state) and process.pid not in own and os.getsid(process.pid) not in spared:
                found.append(process)
    return found


def stop_all(settings: Settings, grace_seconds: float = 10) -> list[str]:
    """Stop the processes that a stack which has ended left running; users of a server stop before the server.

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
            remove(settings, record.name)
    return [f"stopped {each}, left by an earlier run" for each in stopped]


def _named(process: psutil.Process) -> str:
    try:
        return f"{process.name()} (process {process.pid})"
    except psutil.NoSuchProcess:
        return f"process {process.pid}"


def _path(settings: Settings, name: str) -> Path:
    return settings.state / "run" / f"{name}.json"
