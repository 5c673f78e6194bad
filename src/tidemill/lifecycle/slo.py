"""The promise ``slo.freshness_seconds``: when its incident opens and closes. It limits how far the tables are *behind*.

Pure: no clock, no database.
"""

from __future__ import annotations

from enum import Enum

from tidemill.lifecycle.behind import behind_seconds, is_measured
from tidemill.lifecycle.describe import describe_activity, format_duration
from tidemill.lifecycle.stream_row import StreamRow

RECOVERY_SHARE = 0.8
"""The incident closes below this share of what is promised, so that it does not open and close again at the limit."""


class Change(Enum):
    """What has to become of a stream's freshness incident."""

    OPEN = "open"
    CLOSE = "close"


def incident_change(row: StreamRow, promised_seconds: float) -> Change | None:
    """What has to become of the incident; None if it is as it should be, or if that is not known.

    A stream that was just started has as long to catch up as its tables may be behind.

    Args:
        row: as just read.
        promised_seconds: how far the tables may be behind, by the pipeline's ``slo.freshness_seconds``.
    """
    is_open = row.freshness_incident_since is not None
    if row.desired_state != "running":
        return Change.CLOSE if is_open else None
    behind = behind_seconds(row)
    if behind is None:
        return None
    if is_open:
        return Change.CLOSE if behind <= RECOVERY_SHARE * promised_seconds else None
    seconds_since_request = (row.now - row.requested_at).total_seconds()
    return Change.OPEN if min(behind, seconds_since_request) > promised_seconds else None


def freshness_message(row: StreamRow, promised_seconds: float) -> str:
    """The incident's sentence: how far the tables are behind, what is promised, and what the driver does."""
    behind, promised = format_duration(behind_seconds(row) or 0.0), format_duration(promised_seconds)
    if is_measured(row):
        state = f"the tables of stream {row.stream} are {behind} behind Kafka"
    else:
        state = f"no driver of stream {row.stream} has measured for {behind} whether the tables hold what Kafka holds"
    return f"{state}, {promised} are promised; {describe_activity(row)}"
