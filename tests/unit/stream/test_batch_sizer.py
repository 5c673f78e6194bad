"""The size of a batch: what moves it, what does not, and that it comes to rest."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.stream.batch_sizer import (
    FACTOR,
    FIRST_RECORDS,
    LEAST_RECORDS,
    WARM_UP_SECONDS,
    BatchGoal,
    BatchSizer,
    BatchTiming,
    next_limit,
)

GOAL = BatchGoal(most=100_000, seconds=10)


@pytest.mark.parametrize(
    ("limit", "full", "waiting", "expected"),
    [
        pytest.param(20_000, [], None, 20_000, id="nothing is known"),
        pytest.param(20_000, [(20_000, 10)], None, 20_000, id="it takes what it should"),
        pytest.param(20_000, [(20_000, 5.5)], None, 20_000, id="a little fast is no reason"),
        pytest.param(20_000, [(20_000, 18)], None, 20_000, id="a little slow is no reason"),
        pytest.param(20_000, [(20_000, 4)], None, 50_000, id="fast"),
        pytest.param(20_000, [(20_000, 4)], 60_000, 50_000, id="fast, and enough waits"),
        pytest.param(20_000, [(20_000, 4)], 15_000, 20_000, id="fast, but nothing waits that would fill more"),
        pytest.param(20_000, [(20_000, 0.1)], None, 100_000, id="not above what the pipeline lets it"),
        pytest.param(60_000, [(60_000, 0.1)], None, 60_000, id="too near the upper bound"),
        pytest.param(20_000, [(20_000, 40)], 0, 5_000, id="slow, also if nothing waits"),
        pytest.param(20_000, [(20_000, 4_000)], None, LEAST_RECORDS, id="not below the lower bound"),
        pytest.param(20_000, [(20_000, 9), (20_000, 900), (20_000, 9)], None, 20_000, id="one was held up"),
        pytest.param(20_000, [(20_000, 400), *3 * [(20_000, 10)]], None, 20_000, id="what is long past"),
        pytest.param(20_000, [(20_000, 0)], None, 100_000, id="no time at all"),
    ],
)
def test_the_limit_moves_by_a_factor_of_two_or_not_at_all(
    limit: int, full: list[tuple[int, float]], waiting: int | None, expected: int
) -> None:
    """The next limit is what fits into the target at the rate of the last full batches, if that is far enough."""
    assert next_limit(limit, [BatchTiming(*each) for each in full], waiting, GOAL) == expected


def test_a_small_maximum_is_the_lower_bound_too() -> None:
    """A pipeline that lets a batch have 300 records has 300, however slow they are."""
    assert next_limit(300, [BatchTiming(300, 900)], None, BatchGoal(most=300, seconds=10)) == 300


def test_a_stream_begins_moderately() -> None:
    """How long a batch takes is not known yet: the limit begins in the middle, or at the maximum where that is less."""
    assert BatchSizer(GOAL).limit == FIRST_RECORDS
    assert BatchSizer(BatchGoal(most=50, seconds=1)).limit == 50


def test_after_an_outage_it_begins_moderately_again() -> None:
    """The server that came back may be slower than it was; a limit below stays."""
    pace = _paced(100_000)
    pace.begin(carefully=True)
    assert pace.limit == FIRST_RECORDS
    pace = _paced(5_000)
    pace.begin(carefully=True)
    assert pace.limit == 5_000


def test_the_first_batch_of_a_query_counts_only_if_it_was_slow_beyond_warming_up() -> None:
    """Or a target below what a query needs to get going would lower the limit with each new query."""
    pace = _paced(20_000)
    assert not pace.note(BatchTiming(20_000, 0.1), None)
    pace = _paced(20_000)
    assert not pace.note(BatchTiming(20_000, WARM_UP_SECONDS + 15), None)
    pace = _paced(20_000)
    assert pace.note(BatchTiming(20_000, WARM_UP_SECONDS + 40), None)
    assert pace.limit == 5_000


def test_only_full_batches_count() -> None:
    """The duration of a small batch is no measure; Spark's rounding leaves a full one a little below the limit."""
    pace = _paced(20_000)
    pace.note(BatchTiming(20_000, 10), None)
    assert not pace.note(BatchTiming(2_000, 100), None)
    assert pace.limit == 20_000
    assert pace.note(BatchTiming(19_000, 60), None)


def _paced(limit: int) -> BatchSizer:
    pace = BatchSizer(GOAL)
    pace.limit = limit
    pace.begin()
    return pace


@settings(deadline=None)
@given(
    per_second=st.floats(10, 1e6),
    overhead=st.floats(0, 30),
    target=st.floats(0.1, 120),
    most=st.integers(1, 5_000_000),
    begin=st.floats(0, 1),
    noise=st.lists(st.floats(0.8, 1.25), min_size=1, max_size=7),
)
def test_at_any_rate_the_limit_comes_to_rest_near_its_goal(
    per_second: float, overhead: float, target: float, most: int, begin: float, noise: list[float]
) -> None:
    """Whatever a batch costs, with some noise: the limit moves in one direction only, and rests within the band.

    The band is a factor of two, and the noise, around the limit whose batch takes the target time; a full backlog waits
    all the while.
    """
    goal = BatchGoal(most, target)
    pace = BatchSizer(goal)
    pace.limit = max(goal.least, round(begin * most))
    limits = [pace.limit]
    batches = 0
    for _ in range(60):
        pace.begin()
        for _ in range(12):
            seconds = (overhead + pace.limit / per_second) * noise[batches % len(noise)]
            batches += 1
            if pace.note(BatchTiming(pace.limit, seconds), None):
                limits.append(pace.limit)
                break
        else:
            break
    else:
        raise AssertionError(f"it does not come to rest: {limits[-10:]}")
    assert limits in (sorted(limits), sorted(limits, reverse=True))
    ideal = pace.limit / (overhead + pace.limit / per_second) * target
    bounded = max(goal.least, min(goal.most, ideal))
    assert bounded / (FACTOR * 1.3) <= pace.limit <= bounded * FACTOR * 1.3
