"""How many records a micro-batch may have, so that a full one takes about the time that the pipeline asks for.

Pure: it reads no clock. Spark fixes the limit when a query starts, so that a new limit needs a new query. Therefore
only full batches count, and the limit changes only if it is wrong by a factor of two. What a batch costs beyond its
records makes the limit approach its goal from one side, step by step; it does not overshoot, and does not oscillate.
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
WARM_UP_SECONDS = 10.0
"""What the first batch of a query may take on top: planning, new Python workers, new connections."""
_FULL = 0.9
"""The part of the limit that a full batch has: Spark divides the limit among the partitions, and rounds."""
_LAST = 3
"""How many batches count, so that a single slow one does not decide."""


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


def goal_of(source: Source) -> BatchGoal:
    """The goal of a pipeline's source."""
    return BatchGoal(source.max_records_per_batch, source.target_batch_seconds)


def next_limit(limit: int, full: Sequence[BatchTiming], waiting: int | None, goal: BatchGoal) -> int:
    """The limit for the next batches: the present one, or one that differs by a factor of two at least.

    Args:
        limit: the present one, in records.
        full: the last batches in a row that had as many records as the limit allows.
        waiting: records that wait in Kafka; None if unknown. A higher limit is of use only if they fill it.
        goal: the bounds, and what a batch should take.
    """
    last = full[-_LAST:]
    if not last:
        return limit
    rate = median(took.records / max(took.seconds, 1e-3) for took in last)
    better = max(goal.least, min(goal.most, int(rate * goal.seconds)))
    if better >= limit * FACTOR and (waiting is None or waiting > limit):
        return better
    return better if better * FACTOR <= limit else limit


class BatchSizer:
    """The limit of one driver, from batch to batch and from query to query."""

    def __init__(self, goal: BatchGoal) -> None:
        self.goal = goal
        self.limit = min(FIRST_RECORDS, goal.most)
        """Records that the next query's batches may take."""
        self._full = deque[BatchTiming](maxlen=_LAST)
        self._first = True

    def begin(self, *, carefully: bool = False) -> None:
        """A query begins; ``carefully`` after an outage, because the server may be slower than before."""
        if carefully:
            self.limit = min(self.limit, FIRST_RECORDS)
        self._full.clear()
        self._first = True

    def note(self, took: BatchTiming, waiting: int | None) -> bool:
        """Take a batch into account; returns whether the limit has changed, which requires a new query."""
        first, self._first = self._first, False
        if took.records < _FULL * self.limit:
            self._full.clear()
            return False
        if first:
            # It does not predict the next batches, unless it was slow beyond any warm-up.
            took = BatchTiming(took.records, took.seconds - WARM_UP_SECONDS)
            if took.seconds < FACTOR * self.goal.seconds:
                return False
        self._full.append(took)
        before, self.limit = self.limit, next_limit(self.limit, tuple(self._full), waiting, self.goal)
        return self.limit != before
