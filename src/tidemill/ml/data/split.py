"""Where time is cut into what is trained on and what is held out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_DAY_US = 86_400_000_000
_SHORT_SHARE = 0.2
"""Part of the time that is held out where the declared days would leave too little to learn from."""


@dataclass(frozen=True)
class Cut:
    """A cut through time, µs since 1970: training is ``[start, holdout)``, the holdout ``[holdout, end]``."""

    start: int
    holdout: int
    end: int


def cut_by_time(first_us: int, last_us: int, holdout_days: int) -> Cut:
    """Hold out the last ``holdout_days``, or the last fifth of the time if that would be more than half of it.

    Never by chance: a model is used on what comes after all that it has seen, and so it is measured.
    """
    whole = last_us - first_us
    held = holdout_days * _DAY_US
    if held * 2 > whole:
        held = int(whole * _SHORT_SHARE)
    return Cut(first_us, last_us - held, last_us)


def as_datetime(us: int) -> datetime:
    """µs since 1970 as naive UTC, as the database keeps it."""
    return datetime.fromtimestamp(0, UTC).replace(tzinfo=None) + timedelta(microseconds=us)
