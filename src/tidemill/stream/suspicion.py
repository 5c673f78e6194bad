"""How a driver begins where an earlier one ended without an error: a record may have ended its JVM, or hung its task.

Nothing can be caught of that, so the range under way is in the database before it is read. The driver reads what is
suspect in :data:`PARTS` parts, one after the other; if it ends at one of them, the next driver divides that part. A
single offset at which two drivers in a row ended is quarantined by its coordinates, without being read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from pyspark.sql import SparkSession

from tidemill.config import Account, Settings
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import streams
from tidemill.store.control.suspects import Suspect, clear_suspect, read_suspects, record_suspect
from tidemill.store.write.context import Range, WriteContext
from tidemill.stream.driver_status import DriverStatus, UnderWay
from tidemill.stream.narrowing import NarrowedBatch
from tidemill.stream.record_faults import TASK_ERRORS, is_crash
from tidemill.stream.task import MicroBatch, PartitionOutcome

log = logging.getLogger(__name__)
PARTS = 32
"""Into how many parts a suspect range is divided: a batch of 20,000 records takes four drivers to a single one."""
MOST_ATTEMPTS = 2
"""How many drivers may end at a single offset. One may have been ended by something else at this moment."""
REASON = "drivers ended without an error, or hung, each time they read this record; it was not read again"


def parts_of(suspect: Suspect, position: int, epoch: int) -> Iterator[Suspect]:
    """The parts of a suspect range that is left, in the order in which they are read, each with its attempts.

    Args:
        suspect: as it was found.
        position: up to where the partition is committed.
        epoch: of the driver that reads them.
    """
    span = suspect.range
    at = max(span.start, position)
    length = max(1, -(-(span.until - at) // PARTS))
    while at < span.until:
        part = Range(span.partition, at, min(span.until, at + length))
        yield Suspect(part, epoch, suspect.attempts + 1 if part == span else 1)
        at = part.until


def is_proven(suspect: Suspect, epoch: int) -> bool:
    """Whether a single offset ended so many drivers that it is quarantined without being read."""
    span = suspect.range
    return span.until - span.start == 1 and suspect.attempts >= MOST_ATTEMPTS and suspect.epoch < epoch


class SuspectReader:
    """Reads what is suspect when a driver begins."""

    def __init__(
        self, spark: SparkSession, settings: Settings, pipeline: Pipeline, status: DriverStatus, context: WriteContext
    ) -> None:
        """A reader; the pipeline's dimensions are registered in the session."""
        self._spark, self._settings, self._pipeline, self._status = spark, settings, pipeline, status
        self._context = context

    def run(self, positions: dict[int, int], ends: Callable[[], dict[int, int]]) -> dict[int, int]:
        """Commit the suspect ranges.

        Args:
            positions: Kafka partition -> next offset.
            ends: the ends of the topic; asked only if anything is suspect.

        Returns:
            The positions after them.

        Raises:
            SearchEnded: the driver is to end.
            TidemillError, PySparkException, Py4JJavaError: a range failed for another reason than its records.
        """
        positions = dict(positions)
        for suspect in self._suspects(positions, ends):
            partition = suspect.range.partition
            if partition in positions:
                self._read(suspect, positions[partition])
                positions[partition] = max(positions[partition], suspect.range.until)
            self._clear(partition)
        return positions

    def _suspects(self, positions: dict[int, int], ends: Callable[[], dict[int, int]]) -> tuple[Suspect, ...]:
        with session(self._settings, Account.STREAM) as connection:
            found = read_suspects(connection, self._context)
            row = streams.read_stream(connection, self._context.stream)
        if not found and (row is None or not row.failures_in_a_row):
            return ()
        until = ends()
        if found:  # a topic that was recreated since may be shorter
            return tuple(replace(each, range=_clipped(each.range, until)) for each in found)
        # The driver before ended without a commit. It may have been for an error, and this costs nothing then.
        share = max(1, self._status.sizer.limit // max(1, len(positions)))
        spans = [Range(partition, at, min(until.get(partition, at), at + share)) for partition, at in positions.items()]
        return tuple(Suspect(span) for span in spans if span.until > span.start)

    def _read(self, suspect: Suspect, position: int) -> None:
        span, epoch = suspect.range, self._context.epoch
        if max(span.start, position) >= span.until:
            return
        log.warning("partition %d is read with care from %d to %d", span.partition, span.start, span.until)
        if is_proven(suspect, epoch):
            self._batch(span).quarantine_unread(span, REASON)
            return
        is_narrower = 0 < suspect.epoch < epoch and span.until - span.start > 1
        for part in parts_of(suspect, position, epoch):
            with session(self._settings, Account.STREAM) as connection:
                record_suspect(connection, self._context, part)
                if is_narrower:  # the next driver has less to search: this is progress, and no failure of the stream
                    streams.clear_failures(connection, self._context.stream)
            self._commit(part.range)

    def _commit(self, span: Range) -> None:
        began = time.monotonic()
        self._status.under_way = UnderWay(began, {span.partition: span})
        try:
            batch = self._batch(span)
            batch.commit(span)
        except TASK_ERRORS as error:
            if not (self._status.must_end or is_crash(error)):
                self._spark.conf.get("spark.app.name")  # raises if the JVM is gone: then the range stays suspect
                self._clear(span.partition)  # the error names a cause
            raise
        finally:
            self._status.under_way = None
        now = time.monotonic()
        outcomes: dict[int, PartitionOutcome] = batch.outcomes
        metrics = self._status.metrics
        metrics.note_newest({partition: outcome.newest_us for partition, outcome in outcomes.items()})
        metrics.note(now, span.until - span.start, now - began, [each.latencies for each in outcomes.values()])

    def _batch(self, span: Range) -> NarrowedBatch:
        batch = MicroBatch(
            self._settings, self._pipeline, self._context, self._status.metrics.batches, {span.partition: span}
        )
        return NarrowedBatch(self._spark, batch, lambda: self._status.must_end, one_by_one=True)

    def _clear(self, partition: int) -> None:
        with session(self._settings, Account.STREAM) as connection:
            clear_suspect(connection, self._context, partition)


def _clipped(span: Range, ends: dict[int, int]) -> Range:
    return replace(span, until=min(span.until, ends.get(span.partition, span.start)))


def suspect_batch(settings: Settings, context: WriteContext, under_way: UnderWay) -> None:
    """Record the ranges of a batch that hangs, so that the next driver reads them with care.

    A range that is recorded already, because this driver reads it with care, keeps its attempts.
    """
    with session(settings, Account.STREAM) as connection:
        known = {suspect.range: suspect for suspect in read_suspects(connection, context)}
        for span in under_way.ranges.values():
            record_suspect(connection, context, replace(known.get(span, Suspect(span)), epoch=context.epoch))
