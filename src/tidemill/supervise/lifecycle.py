"""A stream's life: what is, what is wanted, and the one function that says what to do about the difference.

Pure: no clock, no process, no database. Whoever acts on a stream reads its row, calls :func:`observe`, then
:func:`decide`, does that one thing, and reads again. What it does, the database takes only while the row's epoch and
wish still stand; so any number may act at once.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from tidemill.store.control import StreamRow


class _Said(StrEnum):
    """Values that say what they mean."""

    sentence: str

    def __new__(cls, value: str, sentence: str = "") -> _Said:
        """A value, and its sentence for a person."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


class Life(_Said):
    """What a stream's newest driver is, as its lease, its heartbeat and its process tell."""

    NONE = "none", "No driver was ever started."
    STARTING = "starting", "The epoch was taken, and the driver has not begun to read; it is within its grace."
    RUNNING = "running", "The driver says so, and said it lately."
    STOPPING = "stopping", "The driver knows that it is to leave, and finishes its batch."
    STOPPED = "stopped", "The driver left as it was told to."
    FAILED = "failed", "The driver left after saying why it could not go on."
    SILENT = "silent", "The driver has not spoken for too long, but it may be the database that was away: keep looking."
    LOST = "lost", "The driver's process is gone without a word, or it was silent while the database was there."


LIVE = frozenset({Life.STARTING, Life.RUNNING, Life.STOPPING, Life.SILENT})
BROKEN = frozenset({Life.FAILED, Life.LOST})


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
class Limits:
    """How patient the supervision is. Seconds throughout."""

    silence_seconds: float = 7.5
    """A driver speaks every 2 s. With a look every 2 s its death is noticed within 10 s."""
    view_seconds: float = 15
    """Nobody calls a driver silent who has seen the database for less than this without a break: after the database
    was away a driver takes up to 10 s to give up one try to connect, and 2 s to its next heartbeat."""
    blink_seconds: float = 6
    """Two looks further apart are a break: the database, or who looks, stood still meanwhile."""
    grace_seconds: float = 90
    """Time from taking the epoch to the first heartbeat: Spark has to start."""
    leave_seconds: float = 120
    """Time from being told until the driver is made to leave. A driver gives its batch 60 s."""
    cluster_grace_seconds: float = 600
    """The same where a cluster runs the driver: it may wait for its turn, and for an image."""
    launch_seconds: float = 45
    """Time from taking the epoch until its driver's process is known: whoever took it may have died in between."""
    submit_seconds: float = 150
    """The same on a cluster, which may take two minutes to accept it."""
    backoff_base_seconds: float = 4
    """The first failure is answered at once; the wait after the second, and its factor for each further one."""
    backoff_longest_seconds: float = 60
    failures: int = 6
    """Failures without a commit in between that open the circuit."""

    def backoff(self, failures: int, jitter: float) -> timedelta:
        """How long to wait after that many failures in a row: 4, 16, then 60 s, less up to half of it.

        Args:
            failures: in a row.
            jitter: from 0, for the whole time, to 1, for half of it; so that what broke together for one reason, such
                as a broker, does not come back together.
        """
        seconds = self.backoff_base_seconds ** min(failures - 1, 16) if failures > 1 else 0
        return timedelta(seconds=min(seconds, self.backoff_longest_seconds) * (1 - jitter / 2))


LIMITS = Limits()


@dataclass(frozen=True)
class View:
    """How long somebody has seen the database without a break, by the database's clock."""

    since: datetime
    until: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.until - self.since).total_seconds()

    @classmethod
    def after(cls, before: View | None, now: datetime, limits: Limits = LIMITS) -> View:
        """The view of somebody who has just seen the database's clock say ``now``.

        Args:
            before: the view at the last look; None at the first, and after a look that failed.
            now: naive UTC.
            limits: patience.
        """
        if before is None or not timedelta(0) <= now - before.until <= timedelta(seconds=limits.blink_seconds):
            return cls(now, now)
        return cls(before.since, now)


@dataclass(frozen=True)
class Observed:
    """What is. Times are naive UTC by the database's clock."""

    life: Life
    epoch: int = 0
    version: int | None = None
    """Pipeline version the driver was started for."""
    reason: str = ""
    """One sentence on what is wrong, for the states in which something is."""
    counted: bool = False
    """Whether the break of this epoch was counted as a failure."""
    failures: int = 0
    failed_at: datetime | None = None
    leaving_since: datetime | None = None
    """When this driver was asked to leave though the stream is wanted: for a restart, or for a roll."""
    jitter: float = 0
    """From 0 up to 1, and another one for each stream and epoch."""


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


def observe(
    row: StreamRow,
    *,
    gone: bool = False,
    viewed_seconds: float = 0,
    given_up: datetime | None = None,
    limits: Limits = LIMITS,
) -> Observed:
    """Read a stream's row as the life of its newest driver.

    Args:
        row: the control plane's row.
        gone: whether the driver's process is known to have ended. Look before the row is read: what the driver
            wrote last is then in the row. False where the process cannot be seen from here.
        viewed_seconds: how long whoever read the row has seen the database without a break, see :class:`View`. One
            who has just come can tell that a driver is silent, and not that it is lost.
        given_up: the sign of life that somebody who could tell took for the last one, see :func:`sign_of_life`.
        limits: patience.
    """
    heard = sign_of_life(row)
    counted = _is_after(row.last_failed_at, row.taken_at)
    # Whoever counted it as a failure could tell; that holds until it is heard of again.
    was_judged = (given_up is not None and given_up == heard) or (counted and _is_after(row.last_failed_at, heard))
    life, reason = _life(row, gone, was_judged or viewed_seconds >= limits.view_seconds, limits)
    return Observed(
        life=life,
        epoch=row.epoch,
        version=row.pipeline_version,
        reason=reason,
        counted=counted,
        failures=row.failures_in_a_row,
        failed_at=row.last_failed_at,
        leaving_since=row.leave_at if (row.leave_epoch or 0) >= row.epoch else None,
        jitter=zlib.crc32(f"{row.stream}/{row.epoch}".encode()) / 2**32,
    )


def sign_of_life(row: StreamRow) -> datetime | None:
    """When the newest driver was heard of last: its heartbeat, or else its epoch. None if there never was one."""
    return row.beat_at if row.beat_at is not None and row.beat_epoch == row.epoch else row.taken_at


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


def _life(row: StreamRow, gone: bool, may_judge: bool, limits: Limits) -> tuple[Life, str]:
    if row.epoch == 0 or row.taken_at is None:
        return Life.NONE, ""
    has_spoken = row.beat_at is not None and row.beat_epoch == row.epoch
    if has_spoken and row.state == Life.STOPPED:
        return Life.STOPPED, ""
    if has_spoken and row.state == Life.FAILED:
        return Life.FAILED, row.last_error or "it gave no reason"
    if gone:
        return Life.LOST, f"process {row.pid} is gone without a word: killed from outside, or out of memory"
    silence = _silence(row, has_spoken, limits)
    if silence is not None:
        return Life.LOST if may_judge else Life.SILENT, silence
    return Life(row.state or Life.RUNNING) if has_spoken else Life.STARTING, ""


def _silence(row: StreamRow, has_spoken: bool, limits: Limits) -> str | None:
    """What has not been heard for too long, None if nothing."""
    since = sign_of_life(row)
    assert since is not None  # the epoch was taken
    silent = (row.now - since).total_seconds()
    if has_spoken:
        return f"no heartbeat for {silent:.0f} s" if silent > limits.silence_seconds else None
    if row.pid is None and row.submission_id is None:
        is_here = (row.master or "local").startswith("local")
        late = silent > (limits.launch_seconds if is_here else limits.submit_seconds)
        return "whoever took it over did not start a driver" if late else None
    grace = limits.grace_seconds if row.submission_id is None else limits.cluster_grace_seconds
    return f"no first heartbeat within {grace:.0f} s" if silent > grace else None


def _is_after(event: datetime | None, before: datetime | None) -> bool:
    return event is not None and before is not None and event >= before
