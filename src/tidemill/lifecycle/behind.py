"""How far a stream's tables are behind Kafka, and how old their newest record is: one definition of each. Pure.

Three measures, which are never printed under each other's name:

- *lag*: records in Kafka that are not committed yet;
- *behind*: for how long at most the tables have not held everything that Kafka held;
- *freshness*: the age of the newest committed record. It also grows while the feed is silent.
"""

from __future__ import annotations

from datetime import datetime

from tidemill.lifecycle.driver_state import observe
from tidemill.lifecycle.limits import LIMITS, Limits
from tidemill.lifecycle.stream_row import StreamRow


def behind_seconds(row: StreamRow, limits: Limits = LIMITS) -> float | None:
    """For how long at most a stream's tables have not held everything that Kafka held.

    The driver reports it with each heartbeat. From then on it grows with time, whether the driver has failed,
    is starting, or cannot reach Kafka: what the tables held once, they hold, and what has arrived since is
    not known.

    Returns:
        Seconds. 0.0 while the driver is running and its newest heartbeat reported that no record waits. None while the
        desired state is stopped, because then nothing is to be read, and None as long as no driver has measured it.
    """
    if row.desired_state != "running" or row.heartbeat_at is None:
        return None
    if observe(row, limits=limits).is_running and row.lag_records == 0 and not row.behind_seconds:
        return 0.0
    if row.behind_seconds is None:
        return None
    return row.behind_seconds + max((row.now - row.heartbeat_at).total_seconds(), 0.0)


def freshness_seconds(newest_at: datetime | None, now: datetime) -> float | None:
    """The age of the newest committed record.

    Args:
        newest_at: newest Kafka timestamp among the committed records, None before the first commit.
        now: by the database's clock, with a zone if ``newest_at`` has one.

    Returns:
        Seconds, not less than 0; None before the first commit.
    """
    return None if newest_at is None else max((now - newest_at).total_seconds(), 0.0)
