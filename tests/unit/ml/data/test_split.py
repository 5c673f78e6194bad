"""The split in time."""

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from tidemill.ml.data.split import as_datetime, split_by_time

DAY = 86_400_000_000


def test_holds_out_the_declared_days() -> None:
    """The holdout is the last days of the time that the rows cover."""
    split = split_by_time(0, 100 * DAY, holdout_days=30)
    assert (split.start, split.holdout, split.end) == (0, 70 * DAY, 100 * DAY)


def test_holds_out_a_fifth_of_a_short_time() -> None:
    """Days that would leave less than half of the time to learn from give way to its last fifth."""
    assert split_by_time(0, 60 * DAY, holdout_days=30).holdout == 30 * DAY
    assert split_by_time(0, 50 * DAY, holdout_days=30).holdout == 40 * DAY


@given(first=st.integers(-(10**15), 10**15), whole=st.integers(0, 10**15), days=st.integers(1, 400))
def test_never_trains_on_less_than_half_of_the_time(first: int, whole: int, days: int) -> None:
    """Whatever is declared, training has at least half of the time, and the newest row is held out."""
    split = split_by_time(first, first + whole, days)
    assert split.holdout - split.start >= split.end - split.holdout
    assert split.start <= split.holdout <= split.end


def test_times_are_utc() -> None:
    """µs since 1970 become the naive UTC that the database keeps, to the last digit."""
    assert as_datetime(1_383_443_999_999_999) == datetime(2013, 11, 3, 1, 59, 59, 999_999)
    assert as_datetime(-1) == datetime(1969, 12, 31, 23, 59, 59, 999_999)
