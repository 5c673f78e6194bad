"""How far a stream's tables are behind Kafka, and how old their newest record is: one definition of each. Pure.

Three measures, which are never printed under each other's name:

- *lag*: records in Kafka that are not committed yet;
- *behind*: for how long at most the tables have not held everything that Kafka held, where that is measured;
- *freshness*: the age of the newest committed record. It also grows while the feed is silent.
"""

from __future__ import annotations

from datetime import datetime

from tidemill.lifecycle.driver_state import observe
from tidemill.lifecycle.limits import LIMITS, Limits
from tidemill.lifecycle.stream_row import StreamRow


def behind_seconds(row: StreamRow, limits: Limits = LIMITS) -> float | None:
    """For how long at most a stream's tables have not held everything that Kafka held.

    The driver measures it, and reports it with each heartbeat. Records that had waited for a while at the last one
    still wait while no driver commits, so it grows with time. Otherwise what has arrived since is not known: a stop, a
    restart, a roll or a start make no table late. Only a measurement that is missing for longer than any of these takes
    lets it grow all the same.

    Returns:
        Seconds. 0.0 if the newest heartbeat is recent and reported that no record waits. None while the desired state
        is stopped, because then nothing is to be read; as long as no driver has measured it; and while the next driver
        may still be starting and no record is known to wait.
    """
    if row.desired_state != "running" or row.heartbeat_at is None:
        return None
    is_current = _is_current(row, limits)
    if is_current and not row.lag_records and not row.behind_seconds:
        return 0.0
    if row.behind_seconds is None:
        return None
    grown = row.behind_seconds + max((row.now - row.heartbeat_at).total_seconds(), 0.0)
    is_known = is_current or _is_known_to_wait(row, limits)
    return grown if is_known or _unmeasured_seconds(row, grown) > _longest_start(row, limits) else None


def is_measured(row: StreamRow, limits: Limits = LIMITS) -> bool:
    """Whether what :func:`behind_seconds` returns rests on what the last measurement found, and not on its absence."""
    return _is_current(row, limits) or _is_known_to_wait(row, limits)


def _is_current(row: StreamRow, limits: Limits) -> bool:
    return observe(row, limits=limits).is_current and row.lag_records is not None


def _is_known_to_wait(row: StreamRow, limits: Limits) -> bool:
    """Whether records waited for so long at the last heartbeat that its driver has hardly committed them after it."""
    return bool(row.lag_records) and (row.behind_seconds or 0.0) > limits.backlog_seconds


def _unmeasured_seconds(row: StreamRow, grown: float) -> float:
    """For how long at most no driver has measured it although the stream is to run."""
    return min(grown, max((row.now - row.requested_at).total_seconds(), 0.0))


def _longest_start(row: StreamRow, limits: Limits) -> float:
    """How long it may take until the next driver has measured: one exits, the next one starts."""
    grace = limits.grace_seconds if row.submission_id is None else limits.cluster_grace_seconds
    return limits.leave_seconds + grace + limits.unmeasured_seconds


def freshness_seconds(newest_at: datetime | None, now: datetime) -> float | None:
    """The age of the newest committed record.

    Args:
        newest_at: newest Kafka timestamp among the committed records, None before the first commit.
        now: by the database's clock, with a zone if ``newest_at`` has one.

    Returns:
        Seconds, not less than 0; None before the first commit.
    """
    return None if newest_at is None else max((now - newest_at).total_seconds(), 0.0)
