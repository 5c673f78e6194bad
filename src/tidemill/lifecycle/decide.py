"""What to do about the difference between what a stream is and what is wanted of it: the one decision.

Pure: no clock, no process, no database. Whoever acts on a stream reads its row, calls
:func:`~tidemill.lifecycle.driver_state.observe`, then :func:`decide`, does that one thing, and reads again. What it
does, the database takes only while the row's epoch and wish still stand; so any number may act at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tidemill.lifecycle.driver_state import ALIVE, FAILED, Described, DriverState, Observed
from tidemill.lifecycle.limits import LIMITS, Limits
from tidemill.lifecycle.stream_row import StreamRow


class ActionType(Described):
    """What to do next about a stream."""

    WATCH = "watch", "A live driver of the wanted version: adopt it and watch."
    START = "start", "No live driver: raise the epoch and launch one."
    ROLL = "roll", "A live driver of another version: ask it to leave; the next one is started when it has left."
    AWAIT_EXIT = "await exit", "A live driver was told to leave: wait until it has finished its batch and left."
    KILL = "kill", "It was told to leave long ago and has not: end its process."
    RECORD_FAILURE = (
        "record failure",
        "The driver broke and nobody has counted it yet: count it, say why, and decide again.",
    )
    BACK_OFF = "back off", "Drivers broke lately: start none before a certain time."
    OPEN_CIRCUIT = "open circuit", "Drivers broke again and again without a commit: open the circuit."
    IDLE = "idle", "Nothing is wanted, and nothing is there."


WAITING = frozenset({ActionType.WATCH, ActionType.AWAIT_EXIT, ActionType.BACK_OFF})
"""Nothing is to be done now, and something may be later."""


@dataclass(frozen=True)
class Desired:
    """What is wanted."""

    running: bool
    """False also while the circuit is open."""
    since: datetime
    version: int | None
    """The newest applied pipeline version; None takes whatever runs for the right one."""


@dataclass(frozen=True)
class Action:
    """What to do next, and why, in words for a log."""

    action_type: ActionType
    reason: str
    until: datetime | None = None
    """For WAIT: not before."""


def desired_of(row: StreamRow) -> Desired:
    """What the row says is wanted."""
    return Desired(
        row.desired_state == "running" and row.halted_reason is None, row.requested_at, row.newest_version or None
    )


def decide(observed: Observed, wanted: Desired, now: datetime, limits: Limits = LIMITS) -> Action:
    """The one decision. ``now`` is naive UTC by the database's clock."""
    if observed.driver_state in FAILED and not observed.counted:
        return Action(ActionType.RECORD_FAILURE, observed.reason)
    if not wanted.running:
        return _toward_idle(observed, wanted, now, limits)
    if observed.driver_state in ALIVE:
        return _while_alive(observed, wanted, now, limits)
    if observed.driver_state in FAILED:
        return _after_failure(observed, now, limits)
    return Action(ActionType.START, "it is wanted and has no driver")


def _while_alive(observed: Observed, wanted: Desired, now: datetime, limits: Limits) -> Action:
    notified_at = observed.leaving_since
    if notified_at is None and observed.driver_state is DriverState.STOPPING:
        notified_at = wanted.since  # it was not wanted a moment ago
    if notified_at is not None:
        if now - notified_at > timedelta(seconds=limits.leave_seconds):
            return Action(ActionType.KILL, f"its driver has been leaving for more than {limits.leave_seconds:.0f} s")
        return Action(ActionType.AWAIT_EXIT, "its driver is leaving; the next one starts after it")
    if wanted.version is None or observed.version == wanted.version:
        return Action(ActionType.WATCH, f"its driver is {observed.driver_state}")
    return Action(ActionType.ROLL, f"version {observed.version} runs, version {wanted.version} is applied")


def _toward_idle(observed: Observed, wanted: Desired, now: datetime, limits: Limits) -> Action:
    if observed.driver_state not in ALIVE:
        return Action(ActionType.IDLE, "it is not wanted and has no driver")
    if now - wanted.since > timedelta(seconds=limits.leave_seconds):
        return Action(ActionType.KILL, f"its driver was told to leave more than {limits.leave_seconds:.0f} s ago")
    return Action(ActionType.AWAIT_EXIT, "it is no longer wanted; its driver finishes its batch and leaves")


def _after_failure(observed: Observed, now: datetime, limits: Limits) -> Action:
    if observed.failures >= limits.failures:
        return Action(
            ActionType.OPEN_CIRCUIT,
            f"{observed.failures} drivers broke without a commit; the last one: {observed.reason}",
        )
    if observed.failures and observed.failed_at is not None:
        until = observed.failed_at + limits.backoff(observed.failures, observed.jitter)
        if now < until:
            return Action(ActionType.BACK_OFF, f"{observed.failures} drivers broke without a commit", until)
    return Action(ActionType.START, "its driver broke and it is wanted")
