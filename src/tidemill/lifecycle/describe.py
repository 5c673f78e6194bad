"""What a stream does, in words for a person: console, ``status``, incidents and logs use the same. Pure."""

from __future__ import annotations

from tidemill.lifecycle.driver_state import FAILED, DriverState, Observed, observe
from tidemill.lifecycle.stream_row import StreamRow

HALTED = "halted"
"""The state of a stream whose circuit is open, whatever became of its last driver."""
_ACTIVITY = {
    DriverState.NONE: "was never started",
    DriverState.STARTING: "is starting",
    DriverState.STOPPING: "is stopping, and the next one follows",
    DriverState.STOPPED: "has stopped, and the next one follows",
}


def stream_state(row: StreamRow | None) -> str:
    """The state of a stream in one word: ``halted``, or else the state of its newest driver."""
    if row is None:
        return DriverState.NONE.value
    return HALTED if row.halted_reason else observe(row).driver_state.value


def describe_activity(row: StreamRow) -> str:
    """What a stream does now, as a clause."""
    observed = observe(row)
    if row.desired_state != "running":
        stopped = "its desired state is stopped"
        return f"{stopped}, and its driver is leaving" if observed.is_alive else stopped
    if row.halted_reason:
        return f"it is halted until a person starts it: {row.halted_reason}"
    return f"its driver {_describe_driver(row, observed)}" if observed.epoch else "no driver was started yet"


def _describe_driver(row: StreamRow, observed: Observed) -> str:
    state = observed.driver_state
    if state in FAILED:
        return f"failed, and the next one follows: {observed.reason}"
    if state is DriverState.SILENT:
        return f"is silent: {observed.reason}"
    if observed.is_alive and row.waiting_for:
        return f"waits: {row.waiting_for}"
    return _describe_progress(row) if observed.is_running else _ACTIVITY[state]


def _describe_progress(row: StreamRow) -> str:
    if row.lag_records is None:
        return "is running, and has not measured the lag yet"
    if row.lag_records == 0:
        return "has read all records"
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
