"""Which offsets of some ranges Kafka does not have."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

from tidemill.store.write.context import Range


class Gaps:
    """Offsets that Kafka does not have, as intervals by partition."""

    def __init__(self) -> None:
        self._intervals: dict[int, tuple[list[int], list[int]]] = {}
        """Partition -> the first offset of each interval, and the offset after its last."""

    def add(self, span: Range, offsets: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Record which offsets of a range exist. The ranges of one partition are added in order.

        Args:
            span: the range.
            offsets: those of its offsets that Kafka delivered; shape (n,), in any order.
        """
        existing = np.concatenate([[span.start - 1], np.sort(offsets), [span.until]])
        before = np.flatnonzero(np.diff(existing) > 1)
        starts, ends = self._intervals.setdefault(span.partition, ([], []))
        starts += (existing[before] + 1).tolist()
        ends += existing[before + 1].tolist()

    def has(self, partition: int, offset: int) -> bool:
        """Whether the offset is in a gap."""
        starts, ends = self._intervals.get(partition, ([], []))
        index = bisect_right(starts, offset) - 1
        return index >= 0 and offset < ends[index]
