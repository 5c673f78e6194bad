"""The state of a stream's newest driver, read from its row: the one definition of "alive".

Pure: no clock, no process, no database.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tidemill.lifecycle.limits import LIMITS, Limits
from tidemill.lifecycle.stream_row import StreamRow


class Described(StrEnum):
    """Values that say what they mean."""

    sentence: str

    def __new__(cls, value: str, sentence: str = "") -> Described:
        """A value, and its sentence for a person."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


class DriverState(Described):
    """What a stream's newest driver is, as its lease, its heartbeat and its process tell."""

    NONE = "none", "No driver was ever started."
    STARTING = "starting", "The epoch was taken, and the driver has not begun to read; it is within its grace."
    RUNNING = "running", "The driver says so, and said it lately."
    STOPPING = "stopping", "The driver knows that it is to leave, and finishes its batch."
    STOPPED = "stopped", "The driver left as it was told to."
    FAILED = "failed", "The driver left after saying why it could not go on."
    SILENT = "silent", "The driver has not spoken for too long, but it may be the database that was away: keep looking."
    LOST = "lost", "The driver's process is gone without a word, or it was silent while the database was there."


ALIVE = frozenset({DriverState.STARTING, DriverState.RUNNING, DriverState.STOPPING, DriverState.SILENT})


FAILED = frozenset({DriverState.FAILED, DriverState.LOST})


@dataclass(frozen=True)
class Observed:
    """What is. Times are naive UTC by the database's clock."""

    driver_state: DriverState
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
    heard = last_signal(row)
    counted = _is_after(row.last_failed_at, row.acquired_at)
    # Whoever counted it as a failure could tell; that holds until it is heard of again.
    was_judged = (given_up is not None and given_up == heard) or (counted and _is_after(row.last_failed_at, heard))
    life, reason = _state_of(row, gone, was_judged or viewed_seconds >= limits.view_seconds, limits)
    return Observed(
        driver_state=life,
        epoch=row.epoch,
        version=row.pipeline_version,
        reason=reason,
        counted=counted,
        failures=row.failures_in_a_row,
        failed_at=row.last_failed_at,
        leaving_since=row.exit_requested_at if (row.exit_epoch or 0) >= row.epoch else None,
        jitter=zlib.crc32(f"{row.stream}/{row.epoch}".encode()) / 2**32,
    )


def last_signal(row: StreamRow) -> datetime | None:
    """When the newest driver was heard of last: its heartbeat, or else its epoch. None if there never was one."""
    return row.heartbeat_at if row.heartbeat_at is not None and row.heartbeat_epoch == row.epoch else row.acquired_at


def _state_of(row: StreamRow, gone: bool, may_judge: bool, limits: Limits) -> tuple[DriverState, str]:
    if row.epoch == 0 or row.acquired_at is None:
        return DriverState.NONE, ""
    has_spoken = row.heartbeat_at is not None and row.heartbeat_epoch == row.epoch
    if has_spoken and row.state == DriverState.STOPPED:
        return DriverState.STOPPED, ""
    if has_spoken and row.state == DriverState.FAILED:
        return DriverState.FAILED, row.last_error or "it gave no reason"
    if gone:
        return DriverState.LOST, f"process {row.pid} is gone without a word: killed from outside, or out of memory"
    silence = _silence(row, has_spoken, limits)
    if silence is not None:
        return DriverState.LOST if may_judge else DriverState.SILENT, silence
    return DriverState(row.state or DriverState.RUNNING) if has_spoken else DriverState.STARTING, ""


def _silence(row: StreamRow, has_spoken: bool, limits: Limits) -> str | None:
    """What has not been heard for too long, None if nothing."""
    since = last_signal(row)
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
