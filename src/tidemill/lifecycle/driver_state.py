"""The state of a stream's newest driver, read from its row: the one definition of "alive".

A stream is *alive* while its newest driver is starting, running, stopping, or silent and not known to be lost. Every
part of the product that asks whether a driver lives calls :func:`observe`. Pure: no clock, no process, no database.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tidemill.lifecycle.limits import LIMITS, Limits
from tidemill.lifecycle.stream_row import StreamRow


class Described(StrEnum):
    """Values that are documented by a sentence each."""

    sentence: str

    def __new__(cls, value: str, sentence: str = "") -> Described:
        """A value, and its sentence for a person."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


class DriverState(Described):
    """The state of a stream's newest driver, by its lease, its heartbeat and its process."""

    NONE = "none", "No driver was ever started."
    STARTING = "starting", "The lease is acquired, and the driver does not read yet; its grace is not over."
    RUNNING = "running", "The driver reads, and its newest heartbeat is recent."
    STOPPING = "stopping", "The driver has read the request to exit, and finishes its batch."
    STOPPED = "stopped", "The driver exited as requested."
    FAILED = "failed", "The driver reported an error and exited."
    SILENT = "silent", "The newest heartbeat is too old; either the driver or the database was unavailable meanwhile."
    LOST = "lost", "The driver's process ended without a report, or sent no heartbeat while the database was available."


ALIVE = frozenset({DriverState.STARTING, DriverState.RUNNING, DriverState.STOPPING, DriverState.SILENT})


FAILED = frozenset({DriverState.FAILED, DriverState.LOST})


@dataclass(frozen=True)
class Observed:
    """A stream's newest driver as it was observed. Times are naive UTC by the database's clock."""

    driver_state: DriverState
    epoch: int = 0
    version: int | None = None
    """Pipeline version that the driver was started for."""
    reason: str = ""
    """A clause on what is wrong, for the states in which something is."""
    failure_recorded: bool = False
    """Whether a failure of this epoch's driver was recorded."""
    failures: int = 0
    """Failures in a row, without a commit in between."""
    failed_at: datetime | None = None
    leaving_since: datetime | None = None
    """When this driver was requested to exit although the stream is to run: for a restart, or for a roll."""
    jitter: float = 0
    """From 0 up to 1, and different for each stream and epoch."""
    has_heartbeat: bool = False
    """Whether this driver itself has sent a heartbeat; the row may hold that of an older one."""

    @property
    def is_alive(self) -> bool:
        """Whether the newest driver lives, as far as is known: no other one may be started beside it."""
        return self.driver_state in ALIVE

    @property
    def is_current(self) -> bool:
        """Whether what the driver reported last still describes it: it lives, and its newest heartbeat is recent."""
        return self.is_alive and self.driver_state is not DriverState.SILENT and self.has_heartbeat

    @property
    def is_running(self) -> bool:
        """Whether the newest driver reads records now."""
        return self.driver_state is DriverState.RUNNING


def observe(
    row: StreamRow,
    *,
    gone: bool = False,
    viewed_seconds: float = 0,
    given_up: datetime | None = None,
    limits: Limits = LIMITS,
) -> Observed:
    """Derive the state of a stream's newest driver from the stream's row.

    Args:
        row: the control plane's row.
        gone: whether the driver's process is known to have ended. It has to be looked at before the row is read, so
            that the row holds what the driver wrote last. False where the process cannot be seen from this host.
        viewed_seconds: for how long the caller has seen the database without a break, see
            :class:`~tidemill.lifecycle.limits.View`. A caller that reads the row once can find that a driver is
            silent, but not that it is lost.
        given_up: the :func:`last_signal` after which a watcher with a long enough view found the driver lost.
        limits: how long silence may last.
    """
    signal_at = last_signal(row)
    failure_recorded = _is_at_or_after(row.last_failed_at, row.acquired_at)
    # The process that recorded the failure knew; that holds until the driver sends another heartbeat.
    is_recorded_lost = failure_recorded and _is_at_or_after(row.last_failed_at, signal_at)
    is_given_up = given_up is not None and given_up == signal_at
    may_judge = is_recorded_lost or is_given_up or viewed_seconds >= limits.view_seconds
    state, reason = _reported_state(row) or _unreported_state(row, gone, may_judge, limits)
    if state in ALIVE and is_recorded_lost:
        state, reason = DriverState.LOST, "its failure was recorded, and it has sent no heartbeat since"
    return Observed(
        driver_state=state,
        epoch=row.epoch,
        version=row.pipeline_version,
        reason=reason,
        failure_recorded=failure_recorded,
        failures=row.failures_in_a_row,
        failed_at=row.last_failed_at,
        leaving_since=row.exit_requested_at if (row.exit_epoch or 0) >= row.epoch else None,
        jitter=zlib.crc32(f"{row.stream}/{row.epoch}".encode()) / 2**32,
        has_heartbeat=_has_heartbeat(row),
    )


def last_signal(row: StreamRow) -> datetime | None:
    """When the newest driver gave its last sign of life: its heartbeat, or else its lease. None without a lease."""
    return row.heartbeat_at if _has_heartbeat(row) else row.acquired_at


def _has_heartbeat(row: StreamRow) -> bool:
    """Whether the newest driver itself has sent a heartbeat; an older one may be in the row."""
    return row.heartbeat_at is not None and row.heartbeat_epoch == row.epoch


def _reported_state(row: StreamRow) -> tuple[DriverState, str] | None:
    """The states that need no judgement: no driver was started, or the driver reported its end."""
    if row.epoch == 0 or row.acquired_at is None:
        return DriverState.NONE, ""
    if _has_heartbeat(row) and row.state == DriverState.STOPPED:
        return DriverState.STOPPED, ""
    if _has_heartbeat(row) and row.state == DriverState.FAILED:
        return DriverState.FAILED, row.last_error or "it gave no reason"
    return None


def _unreported_state(row: StreamRow, gone: bool, may_judge: bool, limits: Limits) -> tuple[DriverState, str]:
    if gone:
        return DriverState.LOST, f"process {row.pid} ended without a report: killed from outside, or out of memory"
    silence = _silence(row, limits)
    if silence is not None:
        return DriverState.LOST if may_judge else DriverState.SILENT, silence
    return DriverState(row.state or DriverState.RUNNING) if _has_heartbeat(row) else DriverState.STARTING, ""


def _silence(row: StreamRow, limits: Limits) -> str | None:
    """Which sign of life is overdue, None if none is."""
    since = last_signal(row)
    assert since is not None  # the lease is acquired
    seconds = (row.now - since).total_seconds()
    if _has_heartbeat(row):
        return f"no heartbeat for {seconds:.0f} s" if seconds > limits.silence_seconds else None
    if row.pid is None and row.submission_id is None:
        is_local = (row.master or "local").startswith("local")
        is_overdue = seconds > (limits.launch_seconds if is_local else limits.submit_seconds)
        return "the process that acquired the lease did not start a driver" if is_overdue else None
    grace = limits.grace_seconds if row.submission_id is None else limits.cluster_grace_seconds
    return f"no first heartbeat within {grace:.0f} s" if seconds > grace else None


def _is_at_or_after(event: datetime | None, before: datetime | None) -> bool:
    return event is not None and before is not None and event >= before
