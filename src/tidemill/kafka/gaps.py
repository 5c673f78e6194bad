"""Which offsets of some ranges Kafka does not have. Knows no Spark."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

from tidemill.store.write.ledger_rows import Range


class Gaps:
    """Offsets that Kafka does not have, as intervals."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[list[int], list[int]]] = {}

    def add(self, span: Range, offsets: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Of a range, these offsets are there. Ranges of one partition come in order."""
        there = np.concatenate([[span.start - 1], np.sort(offsets), [span.until]])
        before = np.flatnonzero(np.diff(there) > 1)
        starts, ends = self._of.setdefault(span.partition, ([], []))
        starts += (there[before] + 1).tolist()
        ends += there[before + 1].tolist()

    def has(self, partition: int, offset: int) -> bool:
        """Whether the offset is in a gap."""
        starts, ends = self._of.get(partition, ([], []))
        place = bisect_right(starts, offset) - 1
        return place >= 0 and offset < ends[place]
