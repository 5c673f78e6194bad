"""The metrics of a stream: throughput, and latency from the Kafka timestamp of a record to its COMMIT.

A task returns its latencies as a histogram over buckets of equal ratio, so that a batch adds a few numbers and not one
for each record. The driver adds up the histograms of the last minute.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.stream.quarantine_share import QuarantineShare

LATENCY_SECONDS = 60.0
"""Latencies are those of the commits of the last so many seconds, so that a backlog counts no longer than that."""
RATE_SECONDS = 60.0
"""The rate is that of the last so many seconds."""
_SLOT_SECONDS = 5.0
_PROBE_SECONDS = 15
"""A probe of Kafka that is older does not describe the present."""
_RECENT_SECONDS = 5
"""A newest committed record of that age bounds well enough how far its partition is behind."""
_PER_DOUBLING = 8
"""Buckets: a bound is 9 % above the one before it."""
_MOST_MS = 2**32 - 1
"""What the column holds: 49 days."""
_BUCKETS = 32 * _PER_DOUBLING
_EPOCH = datetime(1970, 1, 1)
"""Naive UTC, as the database has it."""

Histogram = Mapping[int, int]
"""Bucket -> records. Bucket ``b`` ends at ``2 ** (b / 8)`` ms, and the one before it ends where it begins."""


def latencies(timestamps: pa.Array, now_us: int) -> dict[int, int]:
    """The latencies of records that are committed now.

    Args:
        timestamps: Kafka's, in µs, shape (n,); a missing or negative one (Kafka's "none") does not count. One in the
            future, from a clock that is fast, counts as no latency.
        now_us: µs since 1970.
    """
    us = pc.drop_null(timestamps).cast(pa.int64()).to_numpy(zero_copy_only=False)
    waited_ms = np.maximum((now_us - us[us >= 0]) / 1000, 1.0)
    buckets = np.minimum(np.ceil(np.log2(waited_ms) * _PER_DOUBLING), _BUCKETS).astype(np.int64)
    counts = np.bincount(buckets)
    return {int(bucket): int(counts[bucket]) for bucket in np.flatnonzero(counts)}


def quantile_ms(histogram: Histogram, part: float) -> int | None:
    """The least bound in ms within which ``part`` of the records are; None if there are no records."""
    rank = part * sum(histogram.values())
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= rank:
            return min(round(2 ** (bucket / _PER_DOUBLING)), _MOST_MS)
    return None


@dataclass
class _Slot:
    """The commits of a few seconds."""

    began: float
    records: int = 0
    waited: Counter[int] = field(default_factory=Counter)


class StreamMetrics:
    """The metrics of one driver, over all its queries. Times are seconds of one monotonic clock, which callers read."""

    def __init__(self, began: float) -> None:
        self.batches, self.records, self.batch_ms = 0, 0, 0
        self.newest_us: int | None = None
        """Newest Kafka timestamp that is committed, µs since 1970."""
        self._newest_us: Mapping[int, int] = {}
        """The same for each Kafka partition that this driver has committed. Replaced as a whole, never changed."""
        self._lags: Mapping[int, int] | None = None
        self.quarantine_share = QuarantineShare()
        """Used by the query thread only."""
        self._probed_at = began
        self._waiting_us: Mapping[int, int] = {}
        """Kafka partition -> timestamp of its oldest record that was not committed at the last probe, µs since 1970."""
        self._began = began
        self._slots = deque[_Slot]()
        self._lock = threading.Lock()

    def note(self, now: float, records: int, seconds: float, waited: Iterable[Histogram]) -> None:
        """Count a committed batch: its number of offsets, its duration, and the histograms of its tasks."""
        with self._lock:
            self.batches += 1
            self.records += records
            self.batch_ms = int(seconds * 1000)
            if not self._slots or now - self._slots[-1].began >= _SLOT_SECONDS:
                self._slots.append(_Slot(now))
            self._slots[-1].records += records
            for histogram in waited:
                self._slots[-1].waited.update(histogram)
            self._prune(now)

    @property
    def lag_records(self) -> int | None:
        """Records that were not committed at the last probe of Kafka; None while that is not known."""
        return None if self._lags is None else sum(self._lags.values())

    def note_lag(self, now: float, lags: Mapping[int, int] | None, waiting_us: Mapping[int, int] | None = None) -> None:
        """Note the last probe of Kafka.

        Args:
            now: when Kafka was asked.
            lags: partition -> records that are not committed; None if the probe failed.
            waiting_us: partition -> timestamp of the oldest of these, in µs, where it was looked up.
        """
        self._probed_at, self._lags, self._waiting_us = now, lags, waiting_us or {}

    def uncertain(self, lags: Mapping[int, int], utc: datetime) -> list[int]:
        """The partitions for which the age of the oldest waiting record has to be looked up.

        It is at most the age of the newest committed record, which suffices while that is recent; after a silence
        of the feed, or in a new driver, it does not.
        """
        recent_us = int(utc.timestamp() * 1e6) - _RECENT_SECONDS * 10**6
        return [partition for partition, lag in lags.items() if lag and self._newest_us.get(partition, 0) < recent_us]

    def resume_from(self, newest_us: int, now_us: int | None = None) -> None:
        """Note the newest Kafka timestamp that the previous driver committed, in µs; its partition is not known."""
        self.newest_us = min(newest_us, time.time_ns() // 1000 if now_us is None else now_us)

    def note_newest(self, timestamps_us: Mapping[int, int | None], now_us: int | None = None) -> None:
        """Note a batch: Kafka partition -> its newest committed timestamp, in µs.

        A timestamp in the future, from a producer's wrong clock, counts as now. A negative one is no time.
        """
        now = time.time_ns() // 1000 if now_us is None else now_us
        committed = {partition: min(us, now) for partition, us in timestamps_us.items() if us is not None and us >= 0}
        before = self._newest_us
        self._newest_us = {**before, **{each: max(us, before.get(each, us)) for each, us in committed.items()}}
        self.newest_us = max((us for us in (self.newest_us, *committed.values()) if us is not None), default=None)

    def facts(self, now: float, utc: datetime) -> dict[str, object]:
        """Columns of ``heartbeats``. ``utc`` is the same moment as ``now``, with its zone."""
        with self._lock:
            self._prune(now)
            waited = sum((slot.waited for slot in self._slots), Counter[int]())
            recent = sum(slot.records for slot in self._slots if now - slot.began < RATE_SECONDS)
            facts: dict[str, object] = {"batches": self.batches, "records": self.records, "batch_ms": self.batch_ms}
        # A process that was frozen, or a broker that does not answer, lets the last probe grow old.
        lags = self._lags if now - self._probed_at <= _PROBE_SECONDS else None
        return facts | {
            "lag_records": None if lags is None else sum(lags.values()),
            "behind_seconds": None if lags is None else self._behind_seconds(lags, utc),
            "newest_at": _naive(self.newest_us),
            "records_per_second": recent / min(RATE_SECONDS, max(now - self._began, 1.0)),
            "latency_p50_ms": quantile_ms(waited, 0.5),
            "latency_p99_ms": quantile_ms(waited, 0.99),
        }

    def _behind_seconds(self, lags: Mapping[int, int], utc: datetime) -> float | None:
        """For how long at most the tables have not held everything that Kafka held.

        A partition's tables held everything until its oldest waiting record arrived, and when its newest committed
        record did. The partition that is furthest behind counts; None while neither is known of one with a lag.
        """
        known = (self._newest_us, self._waiting_us)
        held_us = [
            max((us[partition] for us in known if partition in us), default=None)
            for partition, lag in lags.items()
            if lag
        ]
        lagging = [us for us in held_us if us is not None]
        if len(lagging) < len(held_us):
            return None
        oldest_at = _naive(min(lagging, default=None))
        if oldest_at is None:
            return None if lagging else 0.0
        return max(0.0, (utc.astimezone(UTC).replace(tzinfo=None) - oldest_at).total_seconds())

    def _prune(self, now: float) -> None:
        while self._slots and now - self._slots[0].began >= LATENCY_SECONDS:
            self._slots.popleft()


def _naive(us: int | None) -> datetime | None:
    if us is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:  # a producer may set any timestamp
        return None
