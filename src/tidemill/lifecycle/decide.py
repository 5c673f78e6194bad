"""What to do about the difference between a stream's driver and its desired state: the one decision.

Pure: no clock, no process, no database. A process that acts on a stream reads its row, calls
:func:`~tidemill.lifecycle.driver_state.observe`, then :func:`decide`, carries out that one action, and reads again. The
database accepts an action only while the row still has the same epoch and the same request, so any number of processes
may act at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tidemill.lifecycle.driver_state import FAILED, Described, DriverState, Observed
from tidemill.lifecycle.limits import LIMITS, Limits
from tidemill.lifecycle.stream_row import StreamRow


class ActionType(Described):
    """What to do next about a stream."""

    WATCH = "watch", "A driver of the desired version is alive: adopt it and watch it."
    START = "start", "No driver is alive: acquire the lease and launch one."
    ROLL = "roll", "A driver of another version is alive: request its exit; the next one starts once it has left."
    AWAIT_EXIT = "await exit", "The driver was requested to exit: wait until it has finished its batch and left."
    KILL = "kill", "The driver was requested to exit long ago and is still there: end its process."
    RECORD_FAILURE = (
        "record failure",
        "The driver failed and its failure is not recorded yet: record it with its reason, and decide again.",
    )
    BACK_OFF = "back off", "Drivers failed recently: start none before a certain time."
    OPEN_CIRCUIT = "open circuit", "Drivers failed again and again without a commit: open the circuit."
    IDLE = "idle", "The stream is to be stopped, and no driver is alive."


WAITING = frozenset({ActionType.WATCH, ActionType.AWAIT_EXIT, ActionType.BACK_OFF})
"""Nothing is to be done now, but there may be later."""


@dataclass(frozen=True)
class Desired:
    """What was requested of a stream."""

    running: bool
    """False also while the circuit is open."""
    since: datetime
    """When it was requested."""
    version: int | None
    """The newest applied pipeline version; None accepts a driver of any version."""


@dataclass(frozen=True)
class Action:
    """What to do next, and why, as a clause for a log."""

    action_type: ActionType
    reason: str
    until: datetime | None = None
    """Of BACK_OFF: no driver is started before this time."""


def desired_of(row: StreamRow) -> Desired:
    """What is requested of a stream by its row."""
    return Desired(
        row.desired_state == "running" and row.halted_reason is None, row.requested_at, row.newest_version or None
    )


def decide(observed: Observed, desired: Desired, now: datetime, limits: Limits = LIMITS) -> Action:
    """The one decision. ``now`` is naive UTC by the database's clock."""
    if observed.driver_state in FAILED and not observed.failure_recorded:
        return Action(ActionType.RECORD_FAILURE, observed.reason)
    if not desired.running:
        return _toward_idle(observed, desired, now, limits)
    if observed.is_alive:
        return _while_alive(observed, desired, now, limits)
    if observed.driver_state in FAILED:
        return _after_failure(observed, now, limits)
    return Action(ActionType.START, "its desired state is running, and it has no driver")


def _while_alive(observed: Observed, desired: Desired, now: datetime, limits: Limits) -> Action:
    exit_requested_at = observed.leaving_since
    if exit_requested_at is None and observed.driver_state is DriverState.STOPPING:
        exit_requested_at = desired.since  # the stream was to be stopped before the newest request
    if exit_requested_at is not None:
        if now - exit_requested_at > timedelta(seconds=limits.leave_seconds):
            return Action(ActionType.KILL, f"its driver has been leaving for more than {limits.leave_seconds:.0f} s")
        return Action(ActionType.AWAIT_EXIT, "its driver is leaving; the next one starts after it")
    if desired.version is None or observed.version == desired.version:
        return Action(ActionType.WATCH, f"its driver is {observed.driver_state}")
    return Action(ActionType.ROLL, f"version {observed.version} runs, version {desired.version} is applied")


def _toward_idle(observed: Observed, desired: Desired, now: datetime, limits: Limits) -> Action:
    if not observed.is_alive:
        return Action(ActionType.IDLE, "it is to be stopped, and it has no driver")
    if now - desired.since > timedelta(seconds=limits.leave_seconds):
        return Action(ActionType.KILL, f"its driver was requested to exit more than {limits.leave_seconds:.0f} s ago")
    return Action(ActionType.AWAIT_EXIT, "it is to be stopped; its driver finishes its batch and leaves")


def _after_failure(observed: Observed, now: datetime, limits: Limits) -> Action:
    if observed.failures >= limits.failures:
        return Action(
            ActionType.OPEN_CIRCUIT,
            f"{observed.failures} drivers failed without a commit; the last one: {observed.reason}",
        )
    if observed.failures and observed.failed_at is not None:
        until = observed.failed_at + limits.backoff(observed.failures, observed.jitter)
        if now < until:
            return Action(ActionType.BACK_OFF, f"{observed.failures} drivers failed without a commit", until)
    return Action(ActionType.START, "its driver failed, and its desired state is running")
