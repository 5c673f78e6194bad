"""Processes of this machine: which ones belong to us, how they are signalled, and when they are gone.

The launcher of drivers, the embedded stack, the command line and the clean-up of files use this module, so that each
rule about processes is written once: a process id alone proves nothing, because the system gives it to another process
later; a zombie has ended; a session has members after its leader has ended; and a process that has just been started
shows the environment of its parent for a moment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import psutil

_ENVIRONMENT_SECONDS = 0.2
_PAUSE_SECONDS = 0.01
_POLL_SECONDS = 0.05
_KILL_SECONDS = 10.0
"""SIGKILL cannot be ignored, but the kernel needs a moment to free the memory of a big process."""


def environment_of(process: psutil.Process, seconds: float = _ENVIRONMENT_SECONDS) -> dict[str, str]:
    """The environment that a process was started with.

    While a process executes another program, the kernel shows no environment for a moment, or only its beginning if it
    is read meanwhile. A driver executes three programs before it is the JVM. An environment is therefore returned only
    after it was read twice with the same content.

    Args:
        process: of any user.
        seconds: how long to wait for a process that shows none.

    Returns:
        Empty for a thread of the kernel, and for a process that was started without an environment.

    Raises:
        psutil.Error: the process has ended, is a zombie, or belongs to another user.
    """
    deadline, before = time.monotonic() + seconds, None
    while True:
        shown = process.environ()
        # Threads of the kernel have no program either.
        is_complete = shown == before if shown else not process.exe()
        if is_complete or time.monotonic() > deadline:
            return dict(shown)
        before = shown
        if not shown:
            time.sleep(_PAUSE_SECONDS)


def is_running(process: psutil.Process) -> bool:
    """Whether this very process still runs. A zombie has ended, and a process id may be another process's by now."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # another user's process exists


def carriers(variable: str) -> Iterator[tuple[psutil.Process, str]]:
    """Running processes that have a variable in their environment, each with its value.

    A process inherits the variable from the one that started it, so a mark finds detached processes, too. Processes of
    other users cannot be read and are left out.
    """
    for process in psutil.process_iter():
        try:
            value = environment_of(process).get(variable)
            if value is not None and is_running(process):
                yield process, value
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue


def session_members(leader: int) -> list[psutil.Process]:
    """The running processes of one session, its leader included if that still runs.

    Sessions are compared, and not process groups, because Airflow's supervisor puts each task into a group of its own.
    """
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and is_running(process):
                members.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return members


def send_signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each process that has not ended yet.

    Raises:
        psutil.AccessDenied: a process belongs to another user.
    """
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def wait_until_gone(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until none of the processes runs any more; returns those that still run after that many seconds.

    A process of our own that has ended stays a zombie for its ``subprocess.Popen``, which reads the exit code.
    """
    deadline = time.monotonic() + seconds
    remaining = [process for process in processes if is_running(process)]
    while remaining and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        remaining = [process for process in remaining if is_running(process)]
    return remaining


def end(
    find: Callable[[], Iterable[psutil.Process]],
    grace_seconds: float,
    signals: Sequence[signal.Signals | None] = (signal.SIGTERM, signal.SIGKILL),
) -> list[psutil.Process]:
    """End processes by one signal after the other, each time waiting for them to leave.

    Args:
        find: returns the processes; called before each signal, because they may have started others meanwhile.
        grace_seconds: how long to wait after each signal; after SIGKILL at least 10 s.
        signals: in this order; None only waits.

    Returns:
        The processes that still run after the last signal; as a rule none.
    """
    remaining: list[psutil.Process] = []
    for number in signals:
        remaining = list(find())
        if number is not None:
            send_signal(remaining, number)
        seconds = max(grace_seconds, _KILL_SECONDS) if number is signal.SIGKILL else grace_seconds
        remaining = wait_until_gone(remaining, seconds)
        if not remaining:
            break
    return remaining


def end_session(leader: int, grace_seconds: float) -> None:
    """End a session: its leader first, because it may have to end its children in an order."""
    end(lambda: [each for each in session_members(leader) if each.pid == leader], grace_seconds)
    end(lambda: session_members(leader), min(grace_seconds, 3.0))


def end_child(child: subprocess.Popen[bytes], grace_seconds: float) -> int:
    """End a child process: SIGTERM, and SIGKILL after the grace. Only ``Popen`` may wait for it, for the exit code.

    Args:
        child: started by this process; may have ended.
        grace_seconds: how long it may take to leave after SIGTERM; 0 sends SIGKILL at once.

    Returns:
        The exit code, or minus the number of the signal that ended it.
    """
    if child.poll() is None and grace_seconds > 0:
        child.terminate()
        try:
            return child.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            pass
    child.kill()  # does nothing after the child was waited for
    return child.wait()
