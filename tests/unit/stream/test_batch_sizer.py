"""The size of a batch: what moves it, what does not, and that it comes to rest."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.stream.batch_sizer import (
    FACTOR,
    FIRST_RECORDS,
    LEAST_RECORDS,
    SPREAD,
    BatchCost,
    BatchGoal,
    BatchSizer,
    BatchTiming,
    fit_cost,
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
        pytest.param(20_000, [(20_000, 4_000)], None, 4_000, id="not by more than a factor of five at once"),
        pytest.param(4_000, [(4_000, 4_000)], None, LEAST_RECORDS, id="not below the lower bound"),
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


def test_the_first_batch_of_a_query_does_not_count() -> None:
    """How long a query takes to get going on a slow machine is not known: it must not shrink the batches after it."""
    for seconds in (0.1, 40, 4_000):
        pace = _paced(20_000)
        assert not pace.note(BatchTiming(20_000, seconds), None)
        assert pace.limit == 20_000
    assert pace.note(BatchTiming(20_000, 40), None)
    assert pace.limit == 5_000


def test_only_full_batches_change_the_limit() -> None:
    """A small batch tells what a batch costs at least; Spark's rounding leaves a full one a little below the limit."""
    pace = _paced(20_000)
    pace.note(BatchTiming(20_000, 10), None)
    assert not pace.note(BatchTiming(2_000, 100), None)
    assert pace.limit == 20_000
    assert pace.note(BatchTiming(19_000, 60), None)


@settings(deadline=None)
@given(
    fixed=st.floats(0, 60),
    per_record=st.floats(1e-6, 0.1),
    sizes=st.lists(st.integers(1, 500_000), min_size=1, max_size=12),
)
def test_the_two_parts_of_a_batch_s_cost_are_separated(fixed: float, per_record: float, sizes: list[int]) -> None:
    """From batches whose sizes differ enough; neither part is ever negative, and no batch takes less than the first."""
    timings = [BatchTiming(size, fixed + per_record * size) for size in sizes]
    cost = fit_cost(timings)
    assert (cost is None) == (max(sizes) < SPREAD * min(sizes))
    if cost is None:
        return
    assert 0 <= cost.fixed <= min(took.seconds for took in timings)
    assert cost.per_record > 0
    if per_record * max(sizes) > fixed:  # or the records' part is too small to be measured
        assert cost.fixed == pytest.approx(fixed, rel=0.01, abs=1e-3 + 0.01 * per_record * max(sizes))


def test_one_batch_that_was_held_up_does_not_move_the_line() -> None:
    """Neither a small nor a large one: what counts is the median of each."""
    right = [BatchTiming(1_000 * n, 2 + n) for n in (1, 1, 1, 10, 10, 10)]
    for held_up in (0, 3):
        timings = list(right)
        timings[held_up] = BatchTiming(timings[held_up].records, 500)
        cost = fit_cost(timings)
        assert cost is not None
        assert (cost.fixed, cost.per_record) == (pytest.approx(2), pytest.approx(0.001))


def test_a_fixed_cost_above_the_goal_does_not_make_batches_small() -> None:
    """Where the fixed part of a batch exceeds the goal, small batches would spend their time on it."""
    full, small = BatchTiming(20_000, 40), BatchTiming(1_000, 21)
    assert next_limit(20_000, [full], None, GOAL, [small]) == 40_000
    assert next_limit(20_000, [full], None, GOAL) == 5_000, "without the small one it is not known"


def _paced(limit: int) -> BatchSizer:
    pace = BatchSizer(GOAL)
    pace.limit = limit
    pace.begin()
    return pace


noises = st.lists(st.floats(0.8, 1.25), min_size=1, max_size=7)


def _best(fixed: float, per_record: float, goal: BatchGoal) -> float:
    """The limit whose batch takes the goal's time, or of whose time the fixed part is a third, within the bounds."""
    return max(goal.least, min(goal.most, BatchCost(fixed, per_record).fitting(goal)))


@settings(deadline=None)
@given(
    cost=st.tuples(st.floats(0, 30), st.floats(10, 1e6)),
    target=st.floats(0.1, 120),
    most=st.integers(1, 5_000_000),
    begin=st.floats(0, 1),
    warm_up=st.floats(0, 1_000),
    noise=noises,
)
def test_at_any_rate_the_limit_comes_to_rest_near_its_goal(
    cost: tuple[float, float], target: float, most: int, begin: float, warm_up: float, noise: list[float]
) -> None:
    """Whatever a batch and the start of a query cost, with some noise: after a few changes the limit rests.

    It rests where a batch takes the target time within a factor of two, and the noise; or longer, where the fixed part
    would otherwise be more than a third. A full backlog waits all the while.
    """
    overhead, per_second = cost
    goal = BatchGoal(most, target)
    pace = BatchSizer(goal)
    pace.limit = max(goal.least, round(begin * most))
    limits = [pace.limit]
    batches = 0
    for _ in range(60):
        pace.begin()
        for number in range(12):
            seconds = (overhead + pace.limit / per_second) * noise[batches % len(noise)]
            batches += 1
            if pace.note(BatchTiming(pace.limit, seconds + (0 if number else warm_up)), None):
                limits.append(pace.limit)
                break
        else:
            break
    else:
        raise AssertionError(f"it does not come to rest: {limits[-10:]}")
    in_proportion = pace.limit / (overhead + pace.limit / per_second) * target
    best = _best(overhead, 1 / per_second, goal)
    assert max(goal.least, min(goal.most, in_proportion)) / (FACTOR * 1.3) <= pace.limit, limits
    assert pace.limit <= best * FACTOR * 1.7, limits


@settings(deadline=None)
@given(
    slower=st.floats(1, 200),
    fixed=st.floats(0.05, 20),
    per_second=st.floats(500, 100_000),
    warm_up=st.floats(0, 100),
    noise=noises,
)
def test_a_backlog_takes_few_batches_on_any_machine(
    slower: float, fixed: float, per_second: float, warm_up: float, noise: list[float]
) -> None:
    """63,000 records, on a machine so many times slower, each query of which has a slow first batch.

    The batches are at most twice as many as those of the best limit, and six to find it.
    """
    pace = BatchSizer(GOAL)
    fixed, per_record, waiting = fixed * slower, slower / per_second, 63_000
    batches, is_first = 0, True
    pace.begin()
    while waiting:
        records = min(pace.limit, waiting)
        waiting -= records
        seconds = (fixed + per_record * records) * noise[batches % len(noise)] + is_first * warm_up * slower
        batches, is_first = batches + 1, False
        if pace.note(BatchTiming(records, seconds), waiting):
            pace.begin()
            is_first = True
    assert batches <= 2 * math.ceil(63_000 / _best(fixed, per_record, GOAL)) + 6
