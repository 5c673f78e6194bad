"""The split in time between the rows that are trained on and those that are held out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_DAY_US = 86_400_000_000
_SHORT_SHARE = 0.2
"""Share of the time that is held out where the declared days would leave too little to train on."""


@dataclass(frozen=True)
class TimeSplit:
    """A split in time, in µs since 1970: training is ``[start, holdout)``, the holdout is ``[holdout, end]``."""

    start: int
    holdout: int
    end: int


def split_by_time(first_us: int, last_us: int, holdout_days: int) -> TimeSplit:
    """Hold out the last ``holdout_days``, or the last fifth of the time if that would be more than half of it.

    Rows are not held out at random: a model scores rows that come after its training rows, and is measured on such.
    """
    whole = last_us - first_us
    held = holdout_days * _DAY_US
    if held * 2 > whole:
        held = int(whole * _SHORT_SHARE)
    return TimeSplit(first_us, last_us - held, last_us)


def as_datetime(us: int) -> datetime:
    """µs since 1970 as naive UTC, as the database stores it."""
    return datetime.fromtimestamp(0, UTC).replace(tzinfo=None) + timedelta(microseconds=us)
