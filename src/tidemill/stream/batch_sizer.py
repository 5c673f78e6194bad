"""How many records a micro-batch may have, so that a full one takes about the time that the pipeline asks for.

Pure: it reads no clock. Spark fixes the limit when a query starts, so that a new limit needs a new query. Therefore
the limit is changed after full batches only, and only if it is wrong by a factor of two.

A batch takes ``fixed + per_record * records`` seconds. The two parts are separated by batches of different sizes: by
Tukey's resistant line, which passes through the medians of the small and of the large ones, so that a single slow batch
does not move it. A batch that is too slow because of its fixed part does not become fast by becoming small: the limit
never falls below the size at which the fixed part is a third of the batch's time. While the sizes are too similar to
separate the parts, the limit moves in proportion to the time, which provides batches of another size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tidemill.spec.schema import Source

LEAST_RECORDS = 1_000
"""A batch of fewer records takes no less time."""
FIRST_RECORDS = 20_000
"""The first batch of a stream, and the first after an outage: large enough to measure, short even if all is slow."""
FACTOR = 2.0
"""By which factor the limit must be wrong to be changed."""
SPREAD = 4.0
"""By which factor the sizes of batches must differ to separate the parts of their cost: at a smaller one, noise of a
quarter looks like a fixed part of a half."""
STEP = 5.0
"""The most by which one change lowers the limit while the parts are not known, so that two changes separate them at
the latest; and by which one raises it beyond what the time alone suggests."""
FIXED_SHARE = 1 / 3
"""The limit does not fall below the size at which the fixed part has this share of a batch's time."""
_LEAST_PER_RECORD = 0.1
"""The share of a large batch's time that is its records', at least: a smaller one cannot be measured."""
_FULL = 0.9
"""The part of the limit that a full batch has: Spark divides the limit among the partitions, and rounds."""
_LAST_FULL = 3
"""How many full batches count, so that a single slow one does not decide."""
_LAST_OTHER = 9
"""How many batches of other sizes count."""


@dataclass(frozen=True)
class BatchGoal:
    """What a pipeline asks for."""

    most: int
    """Records."""
    seconds: float
    """What a full batch should take."""

    @property
    def least(self) -> int:
        """Records that a batch may have however slow it is."""
        return min(LEAST_RECORDS, self.most)


@dataclass(frozen=True)
class BatchTiming:
    """One batch."""

    records: int
    """Offsets, gaps included, as Spark counts them."""
    seconds: float


@dataclass(frozen=True)
class BatchCost:
    """What a batch takes, in seconds."""

    fixed: float
    """Of a batch, however many records it has; not negative."""
    per_record: float
    """Of each record; positive."""

    def fitting(self, goal: BatchGoal) -> float:
        """Records of a batch that takes the goal's time; more, if the fixed part would then exceed its share."""
        in_time = (goal.seconds - self.fixed) / self.per_record
        return max(in_time, self.fixed * (1 / FIXED_SHARE - 1) / self.per_record)


def goal_of(source: Source) -> BatchGoal:
    """The goal of a pipeline's source."""
    return BatchGoal(source.max_records_per_batch, source.target_batch_seconds)


def fit_cost(timings: Sequence[BatchTiming]) -> BatchCost | None:
    """The two parts of the cost of these batches; None if their sizes differ too little to separate them."""
    sizes = [took.records for took in timings]
    if not any(sizes) or max(sizes) < SPREAD * min(sizes):
        return None
    small = _center([took for took in timings if took.records <= FACTOR * min(sizes)])
    large = _center([took for took in timings if took.records * FACTOR >= max(sizes)])
    slope = (large.seconds - small.seconds) / (large.records - small.records)
    per_record = max(slope, _LEAST_PER_RECORD * large.seconds / large.records)
    # No batch takes less than the fixed part.
    fixed = min(large.seconds - per_record * large.records, *(took.seconds for took in timings))
    return BatchCost(max(0.0, fixed), per_record)


def _center(timings: Sequence[BatchTiming]) -> BatchTiming:
    """The median size and the median time."""
    records = median(took.records for took in timings)
    return BatchTiming(round(records), max(median(took.seconds for took in timings), 1e-3))


def next_limit(
    limit: int, full: Sequence[BatchTiming], waiting: int | None, goal: BatchGoal, others: Sequence[BatchTiming] = ()
) -> int:
    """The limit for the next batches: the present one, or one that differs by a factor of two at least.

    Args:
        limit: the present one, in records.
        full: the last batches that had as many records as the limit allows.
        waiting: records that wait in Kafka; None if unknown. A higher limit is of use only if they fill it.
        goal: the bounds, and what a batch should take.
        others: batches of other sizes.
    """
    if not full:
        return limit
    center = _center(full)
    in_proportion = center.records / center.seconds * goal.seconds
    cost = fit_cost([*full, *others])
    if cost is None:
        better = max(in_proportion, limit / STEP)
    else:
        better = min(cost.fitting(goal), max(in_proportion, limit * STEP))
    bounded = max(goal.least, min(goal.most, int(better)))
    if bounded >= limit * FACTOR and (waiting is None or waiting > limit):
        return bounded
    return bounded if bounded * FACTOR <= limit else limit


class BatchSizer:
    """The limit of one driver, from batch to batch and from query to query."""

    def __init__(self, goal: BatchGoal) -> None:
        self.goal = goal
        self.limit = min(FIRST_RECORDS, goal.most)
        """Records that the next query's batches may take."""
        self._full = deque[BatchTiming](maxlen=_LAST_FULL)
        self._others = deque[BatchTiming](maxlen=_LAST_OTHER)
        """Batches that were not full, or that were full under an earlier limit."""
        self._first = True

    def begin(self, *, carefully: bool = False) -> None:
        """A query begins; ``carefully`` after an outage, because the server may be slower than before."""
        if carefully:
            self.limit = min(self.limit, FIRST_RECORDS)
            self._others.clear()
            self._full.clear()
        self._first = True

    def note(self, took: BatchTiming, waiting: int | None) -> bool:
        """Take a batch into account; returns whether the limit has changed, which requires a new query.

        The first batch of a query does not count: planning, new Python workers and new connections come on top, and
        how long these take on a slow machine is not known.
        """
        first, self._first = self._first, False
        if first:
            return False
        if took.records < _FULL * self.limit:
            self._others.append(took)
            return False
        self._full.append(took)
        limit = next_limit(self.limit, tuple(self._full), waiting, self.goal, tuple(self._others))
        if limit == self.limit:
            return False
        self.limit = limit
        self._others.extend(self._full)
        self._full.clear()
        return True
