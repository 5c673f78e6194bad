"""The stack seen from another process: whether it is up, what runs, and how to take it down."""

from __future__ import annotations

import signal
from collections.abc import Callable

import psutil

from tidemill import processes
from tidemill.config import Settings
from tidemill.devstack import process_records
from tidemill.devstack.process_records import Record
from tidemill.errors import SetupError

_STOP_SECONDS = 180.0


def running(settings: Settings) -> Record | None:
    """The process that runs the stack of this state folder; None if none does."""
    record = process_records.read(settings, process_records.STACK)
    return record if record is not None and record.is_alive() else None


def components(settings: Settings) -> dict[str, bool]:
    """The stack's child processes by name, and whether each is alive."""
    return {
        record.name: record.is_alive()
        for record in process_records.read_all(settings)
        if record.name != process_records.STACK
    }


def down(settings: Settings, report: Callable[[str], None], stop_seconds: float = _STOP_SECONDS) -> bool:
    """Stop the stack of this state folder, or what a crashed one has left. Returns whether there was anything.

    Raises:
        SetupError: the stack's process belongs to another user.
    """
    stack = running(settings)
    process = stack.process() if stack is not None else None
    if process is not None:
        report(f"asking process {process.pid} to stop the stack")
        _send(process, signal.SIGTERM)
        if processes.wait_until_gone([process], stop_seconds):
            report(f"process {process.pid} has not stopped within {stop_seconds:.0f} seconds and is ended")
            _send(process, signal.SIGKILL)
            processes.wait_until_gone([process], 10)
    left = process_records.stop_all(settings)
    for sentence in left:
        report(sentence)
    return stack is not None or bool(left)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        processes.send_signal([process], number)
    except psutil.AccessDenied:
        raise SetupError("the stack belongs to another user", value=f"process {process.pid}") from None
