"""The promise of a pipeline, ``slo.freshness_seconds``: an incident while a stream's tables are older, and no longer.

Freshness is :func:`~tidemill.store.control.behind_seconds`: how far the tables are behind what Kafka holds. It grows
whatever the reason, so a driver that starts again and again is seen here too.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from pymysql.connections import Connection

from tidemill.store import control
from tidemill.store.control import StreamRow, behind_seconds, close_incident, open_incident
from tidemill.supervise.lifecycle import BROKEN, LIVE, Life, Observed, observe

FRESHNESS = control.FRESHNESS
MET_AGAIN = 0.8
"""The incident ends below this part of what is promised, so that it does not come and go at the edge."""


class Change(Enum):
    """What becomes of a stream's freshness incident."""

    OPEN = "open"
    CLOSE = "close"


def judge(connection: Connection[Any], row: StreamRow, freshness_seconds: float) -> bool:
    """Open or close the stream's freshness incident as its row says. Costs nothing while there is nothing to change.

    Args:
        connection: autocommit.
        row: as just read.
        freshness_seconds: what the pipeline promises.

    Returns:
        Whether something changed.
    """
    change = weigh(row, freshness_seconds)
    if change is Change.OPEN:
        open_incident(connection, f"stream {row.stream}", FRESHNESS, late(row, freshness_seconds))
    elif change is Change.CLOSE:
        close_incident(connection, f"stream {row.stream}", FRESHNESS)
    return change is not None


def weigh(row: StreamRow, freshness_seconds: float) -> Change | None:
    """What has to become of the incident; None if it is as it should be.

    A stream that was just wished to run has as long to catch up as its tables may be behind.
    """
    is_open = row.late_since is not None
    if row.wanted != "running":
        return Change.CLOSE if is_open else None
    behind = behind_seconds(row)
    if behind is None:
        return None
    if is_open:
        return Change.CLOSE if behind <= MET_AGAIN * freshness_seconds else None
    wished = (row.now - row.wanted_at).total_seconds()
    return Change.OPEN if min(behind, wished) > freshness_seconds else None


def late(row: StreamRow, freshness_seconds: float) -> str:
    """The incident's sentence: how far behind, what was promised, what the driver is doing."""
    behind = behind_seconds(row) or 0.0
    return (
        f"the tables of stream {row.stream} are {span(behind)} behind Kafka, {span(freshness_seconds)} are promised;"
        f" {doing(row)}"
    )


def doing(row: StreamRow) -> str:
    """What is going on with a stream, as a clause for a person."""
    observed = observe(row)
    if row.wanted != "running":
        return "it is not wanted, and its driver is leaving" if observed.life in LIVE else "it is not wanted"
    if row.halted_reason:
        return f"it is halted until somebody starts it: {row.halted_reason}"
    return f"its driver {_driver_does(row, observed)}" if observed.epoch else "no driver was started yet"


def _driver_does(row: StreamRow, observed: Observed) -> str:
    life = observed.life
    if life in BROKEN:
        return f"broke, and another one follows: {observed.reason}"
    if life is Life.SILENT:
        return f"is silent: {observed.reason}"
    if life in LIVE and row.waiting_for:
        return f"waits: {row.waiting_for}"
    return _reading(row) if life is Life.RUNNING else _DOING[life]


_DOING = {
    Life.NONE: "was never started",
    Life.STARTING: "is starting",
    Life.STOPPING: "is leaving, and another one follows",
    Life.STOPPED: "has left, and another one follows",
}


def _reading(row: StreamRow) -> str:
    if row.lag_records is None:
        return "runs, and has not said yet how much is left to read"
    if row.lag_records == 0:
        return "has read all there is"
    rate = "" if row.records_per_second is None else f" at {row.records_per_second:,.0f} records/s"
    return f"catches up, with {row.lag_records:,} records left{rate}"


def span(seconds: float) -> str:
    """A time span for a person: ``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = round(seconds)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for unit, length in units:
        count, whole = divmod(whole, length)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 ")) or f"{round(seconds, 1):g} s"
