"""What to do about the difference between what a stream is and what is wanted of it: the one decision.

Pure: no clock, no process, no database. Whoever acts on a stream reads its row, calls
:func:`~tidemill.lifecycle.driver_state.observe`, then :func:`decide`, does that one thing, and reads again. What it
does, the database takes only while the row's epoch and wish still stand; so any number may act at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tidemill.lifecycle.driver_state import BROKEN, LIVE, Life, Observed, _Said
from tidemill.lifecycle.limits import LIMITS, Limits
from tidemill.lifecycle.stream_row import StreamRow


class Verb(_Said):
    """What to do next about a stream."""

    WATCH = "watch", "A live driver of the wanted version: adopt it and watch."
    START = "start", "No live driver: raise the epoch and launch one."
    ROLL = "roll", "A live driver of another version: ask it to leave; the next one is started when it has left."
    STOP = "stop", "A live driver was told to leave: wait until it has finished its batch and left."
    KILL = "kill", "It was told to leave long ago and has not: end its process."
    FAIL = "fail", "The driver broke and nobody has counted it yet: count it, say why, and decide again."
    WAIT = "wait", "Drivers broke lately: start none before a certain time."
    HALT = "halt", "Drivers broke again and again without a commit: open the circuit."
    DONE = "done", "Nothing is wanted, and nothing is there."


PATIENT = frozenset({Verb.WATCH, Verb.STOP, Verb.WAIT})
"""Nothing is to be done now, and something may be later."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted."""

    running: bool
    """False also while the circuit is open."""
    since: datetime
    version: int | None
    """The newest applied pipeline version; None takes whatever runs for the right one."""


@dataclass(frozen=True)
class Action:
    """What to do next, and why, in words for a log."""

    verb: Verb
    reason: str
    until: datetime | None = None
    """For WAIT: not before."""


def wanted_of(row: StreamRow) -> Wanted:
    """What the row says is wanted."""
    return Wanted(row.wanted == "running" and row.halted_reason is None, row.wanted_at, row.newest_version or None)


def decide(observed: Observed, wanted: Wanted, now: datetime, limits: Limits = LIMITS) -> Action:
    """The one decision. ``now`` is naive UTC by the database's clock."""
    if observed.life in BROKEN and not observed.counted:
        return Action(Verb.FAIL, observed.reason)
    if not wanted.running:
        return _towards_rest(observed, wanted, now, limits)
    if observed.life in LIVE:
        return _keep(observed, wanted, now, limits)
    if observed.life in BROKEN:
        return _after_failure(observed, now, limits)
    return Action(Verb.START, "it is wanted and has no driver")


def _keep(observed: Observed, wanted: Wanted, now: datetime, limits: Limits) -> Action:
    told_at = observed.leaving_since
    if told_at is None and observed.life is Life.STOPPING:
        told_at = wanted.since  # it was not wanted a moment ago
    if told_at is not None:
        if now - told_at > timedelta(seconds=limits.leave_seconds):
            return Action(Verb.KILL, f"its driver has been leaving for more than {limits.leave_seconds:.0f} s")
        return Action(Verb.STOP, "its driver is leaving; the next one starts after it")
    if wanted.version is None or observed.version == wanted.version:
        return Action(Verb.WATCH, f"its driver is {observed.life}")
    return Action(Verb.ROLL, f"version {observed.version} runs, version {wanted.version} is applied")


def _towards_rest(observed: Observed, wanted: Wanted, now: datetime, limits: Limits) -> Action:
    if observed.life not in LIVE:
        return Action(Verb.DONE, "it is not wanted and has no driver")
    if now - wanted.since > timedelta(seconds=limits.leave_seconds):
        return Action(Verb.KILL, f"its driver was told to leave more than {limits.leave_seconds:.0f} s ago")
    return Action(Verb.STOP, "it is no longer wanted; its driver finishes its batch and leaves")


def _after_failure(observed: Observed, now: datetime, limits: Limits) -> Action:
    if observed.failures >= limits.failures:
        return Action(Verb.HALT, f"{observed.failures} drivers broke without a commit; the last one: {observed.reason}")
    if observed.failures and observed.failed_at is not None:
        until = observed.failed_at + limits.backoff(observed.failures, observed.jitter)
        if now < until:
            return Action(Verb.WAIT, f"{observed.failures} drivers broke without a commit", until)
    return Action(Verb.START, "its driver broke and it is wanted")
