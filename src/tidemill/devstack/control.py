"""The stack seen from another process: whether it is up, what runs, and how to take it down."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tidemill.config import Settings
from tidemill.devstack import process_records
from tidemill.devstack.process_records import Record
from tidemill.errors import SetupError

_STOP_SECONDS = 180.0
_POLL_SECONDS = 0.1


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
    if stack is not None:
        report(f"asking process {stack.pid} to stop the stack")
        _send(stack, signal.SIGTERM)
        if not _wait_gone(stack, stop_seconds):
            report(f"process {stack.pid} has not stopped within {stop_seconds:.0f} seconds and is ended")
            _send(stack, signal.SIGKILL)
            _wait_gone(stack, 10)
    left = process_records.stop_all(settings)
    for sentence in left:
        report(sentence)
    return stack is not None or bool(left)


def _send(record: Record, number: signal.Signals) -> None:
    try:
        os.kill(record.pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise SetupError("the stack belongs to another user", value=f"process {record.pid}") from None


def _wait_gone(record: Record, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while record.is_alive():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_SECONDS)
    return True
