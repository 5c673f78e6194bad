"""The stack seen from another process: whether it runs, its child processes, and how to stop it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any

import psutil

from tidemill import processes
from tidemill.config import Settings
from tidemill.devstack import process_records
from tidemill.devstack.process_records import Record
from tidemill.errors import SetupError

_STOP_SECONDS = 180.0
_CONNECT_SECONDS = 2.0


def running(settings: Settings) -> Record | None:
    """The record of the process that runs the stack of this state folder; None if no process does."""
    record = process_records.read(settings, process_records.STACK)
    return record if record is not None and record.is_alive() else None


def components(settings: Settings) -> dict[str, bool]:
    """The stack's child processes by name, and whether each is alive."""
    return {
        record.name: record.is_alive()
        for record in process_records.read_all(settings)
        if record.name != process_records.STACK
    }


def stack_facts(settings: Settings) -> dict[str, Any]:
    """The part of an overview that needs neither the database nor Kafka: the processes of the stack."""
    stack = running(settings)
    return {
        "stack": {"pid": stack.pid if stack else None, "components": components(settings)},
        "airflow": settings.airflow_url,
        "streams": [],
        "models": [],
        "problems": [],
    }


def require_database(settings: Settings) -> None:
    """Check quickly, before any heavy import, that a stack runs on this machine or a database answers elsewhere.

    Raises:
        SetupError: no process runs a stack of this state folder, and nothing listens at the database's address.
    """
    if running(settings) is not None:
        return
    try:
        socket.create_connection((settings.db_host, settings.db_port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        raise SetupError("TM-DEVSTACK-DOWN", host=settings.db_host, port=settings.db_port) from None


def down(settings: Settings, report: Callable[[str], None], stop_seconds: float = _STOP_SECONDS) -> bool:
    """Stop the stack of this state folder, or the processes that a crashed one has left.

    Returns:
        Whether there was a process to stop.

    Raises:
        SetupError: the stack's process belongs to another user.
    """
    stack = running(settings)
    process = stack.process() if stack is not None else None
    if process is not None:
        report(f"asking process {process.pid} to stop the stack")
        _send(process, signal.SIGTERM)
        if processes.wait_until_gone([process], stop_seconds):
            report(f"process {process.pid} did not stop within {stop_seconds:.0f} seconds; killing it")
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
        raise SetupError("TM-DEVSTACK-OTHER-USER", value=f"process {process.pid}") from None
