"""How far a stream is behind, the one definition, and what its promise ``slo.freshness_seconds`` makes of it.

Pure: no clock, no database.
"""

from __future__ import annotations

from enum import Enum

from tidemill.lifecycle.driver_state import ALIVE, FAILED, DriverState, Observed, observe
from tidemill.lifecycle.stream_row import StreamRow

SILENT_SECONDS = 15.0
"""A driver speaks every 2 s; after this long without a word, what it said last is not how things are."""


RECOVERY_SHARE = 0.8
"""The incident ends below this part of what is promised, so that it does not come and go at the edge."""


class Change(Enum):
    """What becomes of a stream's freshness incident."""

    OPEN = "open"
    CLOSE = "close"


def is_running(row: StreamRow) -> bool:
    """Whether the newest driver reads, and said so lately."""
    lately = row.heartbeat_at is not None and (row.now - row.heartbeat_at).total_seconds() <= SILENT_SECONDS
    return lately and row.heartbeat_epoch == row.epoch and row.state == "running"


def behind_seconds(row: StreamRow) -> float | None:
    """How far a wanted stream's tables are behind what Kafka holds: the time since they last held all of it, at most.

    While nobody measures it, because no driver is there or Kafka is away, it grows with time.

    Returns:
        Seconds, 0 where nothing waits; None where nothing is known yet, or the stream is not wanted.
    """
    if row.desired_state != "running" or row.heartbeat_at is None:
        return None
    if is_running(row) and row.lag_records == 0 and not row.lag_seconds:
        return 0.0
    if row.lag_seconds is None:
        return None
    return row.lag_seconds + max((row.now - row.heartbeat_at).total_seconds(), 0.0)


def incident_change(row: StreamRow, freshness_seconds: float) -> Change | None:
    """What has to become of the incident; None if it is as it should be.

    A stream that was just wished to run has as long to catch up as its tables may be behind.
    """
    is_open = row.freshness_incident_since is not None
    if row.desired_state != "running":
        return Change.CLOSE if is_open else None
    behind = behind_seconds(row)
    if behind is None:
        return None
    if is_open:
        return Change.CLOSE if behind <= RECOVERY_SHARE * freshness_seconds else None
    wished = (row.now - row.requested_at).total_seconds()
    return Change.OPEN if min(behind, wished) > freshness_seconds else None


def freshness_message(row: StreamRow, freshness_seconds: float) -> str:
    """The incident's sentence: how far behind, what was promised, what the driver is doing."""
    behind = behind_seconds(row) or 0.0
    return (
        f"the tables of stream {row.stream} are {format_duration(behind)} behind Kafka,"
        f" {format_duration(freshness_seconds)} are promised;"
        f" {describe_activity(row)}"
    )


def describe_activity(row: StreamRow) -> str:
    """What is going on with a stream, as a clause for a person."""
    observed = observe(row)
    if row.desired_state != "running":
        return "it is not wanted, and its driver is leaving" if observed.driver_state in ALIVE else "it is not wanted"
    if row.halted_reason:
        return f"it is halted until somebody starts it: {row.halted_reason}"
    return f"its driver {_describe_driver(row, observed)}" if observed.epoch else "no driver was started yet"


def _describe_driver(row: StreamRow, observed: Observed) -> str:
    life = observed.driver_state
    if life in FAILED:
        return f"broke, and another one follows: {observed.reason}"
    if life is DriverState.SILENT:
        return f"is silent: {observed.reason}"
    if life in ALIVE and row.waiting_for:
        return f"waits: {row.waiting_for}"
    return _reading(row) if life is DriverState.RUNNING else _DOING[life]


_DOING = {
    DriverState.NONE: "was never started",
    DriverState.STARTING: "is starting",
    DriverState.STOPPING: "is leaving, and another one follows",
    DriverState.STOPPED: "has left, and another one follows",
}


def _reading(row: StreamRow) -> str:
    if row.lag_records is None:
        return "runs, and has not said yet how much is left to read"
    if row.lag_records == 0:
        return "has read all there is"
    rate = "" if row.records_per_second is None else f" at {row.records_per_second:,.0f} records/s"
    return f"catches up, with {row.lag_records:,} records left{rate}"


def format_duration(seconds: float) -> str:
    """A time span for a person: ``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = round(seconds)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for unit, length in units:
        count, whole = divmod(whole, length)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 ")) or f"{round(seconds, 1):g} s"
