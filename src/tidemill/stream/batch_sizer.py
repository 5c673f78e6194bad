"""How many records a micro-batch may take, so that a full one takes about as long as it should. Pure: no clock.

Spark fixes the limit when a query starts, so that another one needs another query. Hence the patience: only full
batches count, and the limit moves only where it is off by a factor of two. What a batch costs beside its records
makes the limit approach its goal from one side, step by step; it cannot overshoot, and so does not swing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tidemill.spec.schema import Source

LEAST_RECORDS = 1_000
"""A batch of fewer records costs what this one costs."""
FIRST_RECORDS = 20_000
"""The first batch of a stream, and the first after an outage: enough to learn from, soon over if all is slow."""
FACTOR = 2.0
"""By how much the limit must be off."""
WARM_UP_SECONDS = 10.0
"""What the first batch of a query may take beyond its records: planning, new Python workers, new connections."""
_FULL = 0.9
"""Part of the limit: Spark divides it among the partitions, and rounds."""
_LAST = 3
"""How many batches count, so that one that was held up does not decide."""


@dataclass(frozen=True)
class BatchGoal:
    """What a pipeline asks for."""

    most: int
    """Records."""
    seconds: float
    """What a full batch should take."""

    @property
    def least(self) -> int:
        """Records that a batch may have in any case."""
        return min(LEAST_RECORDS, self.most)


@dataclass(frozen=True)
class BatchTiming:
    """One batch."""

    records: int
    """Offsets, gaps included: so Spark counts."""
    seconds: float


def goal_of(source: Source) -> BatchGoal:
    """The goal of a pipeline's source."""
    return BatchGoal(source.max_records_per_batch, source.target_batch_seconds)


def next_limit(limit: int, full: Sequence[BatchTiming], waiting: int | None, goal: BatchGoal) -> int:
    """The limit for the batches to come: the same, or another one by a factor of two at least.

    Args:
        limit: the present one, in records.
        full: the last batches in a row that took all that the limit let them.
        waiting: records that wait beyond them; None is not known. More room is of use only if they fill it.
        goal: the bounds, and what a batch should take.
    """
    last = full[-_LAST:]
    if not last:
        return limit
    rate = median(took.records / max(took.seconds, 1e-3) for took in last)
    wished = max(goal.least, min(goal.most, int(rate * goal.seconds)))
    if wished >= limit * FACTOR and (waiting is None or waiting > limit):
        return wished
    return wished if wished * FACTOR <= limit else limit


class BatchSizer:
    """The limit of one stream, from batch to batch and from query to query."""

    def __init__(self, goal: BatchGoal) -> None:
        self.goal = goal
        self.limit = min(FIRST_RECORDS, goal.most)
        """Records that the next query's batches may take."""
        self._full = deque[BatchTiming](maxlen=_LAST)
        self._first = True

    def begin(self, *, carefully: bool = False) -> None:
        """A query begins; ``carefully`` where a server was away, which may be slower than it was."""
        if carefully:
            self.limit = min(self.limit, FIRST_RECORDS)
        self._full.clear()
        self._first = True

    def note(self, took: BatchTiming, waiting: int | None) -> bool:
        """Take a batch into account; returns whether the limit has changed, which needs a new query."""
        first, self._first = self._first, False
        if took.records < _FULL * self.limit:
            self._full.clear()
            return False
        if first:
            # It says nothing about the next ones, unless it was slow beyond all warming up.
            took = BatchTiming(took.records, took.seconds - WARM_UP_SECONDS)
            if took.seconds < FACTOR * self.goal.seconds:
                return False
        self._full.append(took)
        before, self.limit = self.limit, next_limit(self.limit, tuple(self._full), waiting, self.goal)
        return self.limit != before
