"""What the threads of a driver share.

Four threads run in a driver: the *query* thread, which calls :meth:`tidemill.stream.driver.Driver.run`; the *heartbeat*
thread; the *probe* thread, which asks Kafka; and the *watchdog*, which ends a driver whose batch hangs. Every field
below has one thread that writes it, so that no lock is needed; the methods may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tidemill.errors import TidemillError
from tidemill.spec.schema import Pipeline
from tidemill.store.write.context import Range
from tidemill.stream.batch_sizer import BatchSizer, goal_of
from tidemill.stream.metrics import StreamMetrics

if TYPE_CHECKING:
    from tidemill.stream.query import BatchCommitter


@dataclass(frozen=True)
class UnderWay:
    """What a driver commits at present."""

    began: float
    """By the monotonic clock."""
    ranges: Mapping[int, Range]
    """Kafka partition -> its offsets."""


_LARGEST_LIMIT = 2**32 - 1
_LONGEST_REASON = 2000
"""What the columns of ``heartbeats`` hold."""


class DriverStatus:
    """The state of one driver, as its heartbeat reports it, and whether it is to end."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.metrics = StreamMetrics(time.monotonic())
        """It has a lock of its own."""
        self.sizer = BatchSizer(goal_of(pipeline.source))
        """Written by the query thread."""
        self.state = "starting"
        """``starting``, ``running`` or ``stopping``. Written by the query thread."""
        self.waiting_for: str | None = None
        """The error that ended the last query, until the next one has committed. Written by the query thread."""
        self.committer: BatchCommitter | None = None
        """Of the present query. Written by the query thread."""
        self.under_way: UnderWay | None = None
        """The batch, or the part of one, that is being committed. Written by the thread that commits it."""
        self.topic_id: str | None = None
        """The topic that the query reads; None while it is being determined. Written by the query thread."""
        self.kafka_error: str | None = None
        """Why the last probe of Kafka failed; None if it succeeded. Written by the probe thread."""
        self.finished = threading.Event()
        """Set when the query thread needs the other threads no more."""
        self._end_requested = threading.Event()
        self._final_error: TidemillError | None = None

    @property
    def must_end(self) -> bool:
        """Whether a stop or an exit was requested, or an error ends the driver."""
        return self._end_requested.is_set()

    @property
    def final_error(self) -> TidemillError | None:
        """The error that ends the driver although its query runs: another driver acquired the lease, for instance."""
        return self._final_error

    def present_batch(self) -> UnderWay | None:
        """What is being committed, by a query or before the first one."""
        return self.under_way or (self.committer.under_way if self.committer else None)

    def end(self, error: TidemillError | None = None) -> None:
        """Request the end of the driver; the first error that is given is the final one."""
        self._final_error = self._final_error or error
        self._end_requested.set()

    def wait_for_end(self, seconds: float) -> bool:
        """Wait for a request to end, for so long at most; returns whether there is one."""
        return self._end_requested.wait(seconds)

    def columns(self) -> dict[str, object]:
        """Columns of the heartbeat, beside ``state`` and ``last_error``."""
        waiting_for = self.waiting_for or self.kafka_error or ""
        return {
            **self.metrics.facts(time.monotonic(), datetime.now(UTC)),
            "batch_limit": min(self.sizer.limit, _LARGEST_LIMIT),
            "waiting_for": waiting_for[:_LONGEST_REASON] or None,
        }
