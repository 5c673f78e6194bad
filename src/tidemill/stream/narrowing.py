"""Finds the records that a task fails for, and commits the others.

Spark reports that a task failed, and not for which record. So ranges of offsets are tried: at first only evaluated,
which needs no Python worker and writes nothing; what can be evaluated is committed. A single offset that fails by
itself is quarantined by its coordinates. The search is pure; :class:`NarrowedBatch` runs it.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from tidemill.config import Account
from tidemill.kafka.fetch_records import fetch_records
from tidemill.store.connection import session
from tidemill.store.control import ledger
from tidemill.store.write.context import Range
from tidemill.store.write.ledger_rows import Rejected
from tidemill.store.write.transaction import Batch, write_batch
from tidemill.stream.batch import run_batch
from tidemill.stream.plan.decode import decode
from tidemill.stream.plan.source import read_range
from tidemill.stream.plan.transform import transform
from tidemill.stream.record_faults import (
    TASK_ERRORS,
    is_crash,
    is_data_exception,
    is_fault_of_records,
    reason_of_record,
)
from tidemill.stream.task import MicroBatch, PartitionOutcome

log = logging.getLogger(__name__)
GROWTH = 4
"""By how much the next range is longer than one that succeeded."""

_UNREADABLE = 1_000
"""How many records one commit may quarantine because Spark fails to read them."""

Attempt = Callable[[Range], Exception | None]
"""Tries a range; returns why it failed, if its records are at fault. Other errors are raised."""


class SearchEnded(Exception):
    """The search ended early, because the driver is to end."""


def first_failure(span: Range, length: int, attempt: Attempt) -> tuple[int, Exception | None]:
    """The first offset of a range that fails by itself, and why; its end and None if there is none.

    Ranges are tried from the left, each longer than the one before; one that fails is halved. Among n records it takes
    about 2 log2(n) attempts.

    Args:
        span: where to search.
        length: of the first range, in offsets.
        attempt: tries a range; everything before the range has succeeded, or was passed over.
    """
    at = span.start
    while at < span.until:
        until = min(span.until, at + length)
        error = attempt(Range(span.partition, at, until))
        if error is None:
            at, length = until, length * GROWTH
            continue
        while until - at > 1:
            middle = (at + until) // 2
            if (left := attempt(Range(span.partition, at, middle))) is None:
                at = middle
                if until - at == 1:  # it failed only together with others: by itself it may succeed
                    error = attempt(Range(span.partition, at, until))
            else:
                until, error = middle, left
        if error is not None:
            return at, error
        at, length = until, 1
    return span.until, None


def _echo(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches


def _is_out_of_time(record: Rejected) -> bool:
    """Whether Spark's Kafka source fails for the record: it has timestamps of 64 bits in µs, and Kafka's are in ms."""
    return record.timestamp_us is not None and not -(2**63) <= record.timestamp_us < 2**63


def _because_of_time(record: Rejected) -> Rejected:
    milliseconds = (record.timestamp_us or 0) // 1000
    return record.because(f"the Kafka timestamp {milliseconds} is no time in milliseconds that Spark can read")


class NarrowedBatch:
    """A micro-batch that failed for a record: what is left of it is committed without the records at fault."""

    def __init__(
        self, spark: SparkSession, batch: MicroBatch, must_end: Callable[[], bool], *, one_by_one: bool = False
    ) -> None:
        """A batch in a session in which its dimensions are registered.

        Args:
            spark: the session.
            batch: what is to be committed.
            must_end: whether to end between two ranges, because the driver is to end.
            one_by_one: read no record beyond the range that is tried: it may be the one that ends the JVM.
        """
        self._one_by_one = one_by_one
        self._spark, self._batch, self._must_end = spark, batch, must_end
        self.outcomes: dict[int, PartitionOutcome] = {}
        """Kafka partition -> what became of its records, as far as this object committed them."""

    def run(self) -> None:
        """Commit what no earlier attempt has committed, partition by partition.

        Raises:
            SearchEnded: the driver is to end.
            TidemillError, PySparkException, Py4JJavaError: a range failed for another reason than its records.
        """
        for partition, span in self._batch.ranges.items():
            at = max(span.start, self._position(partition))
            if at < span.until:
                self._search(Range(partition, at, span.until))

    def commit(self, span: Range) -> None:
        """Commit a range that is not known to have a record at fault. Raises what :meth:`run` does."""
        if self._commit(span) is not None:
            self.run()

    def quarantine_unread(self, span: Range, reason: str) -> None:
        """Commit a single offset as a record in quarantine of which only the coordinates are known."""
        self._verify_workers()
        self._write(span, [Rejected(span.start, reason)])

    def _search(self, span: Range) -> None:
        at, length = span.start, span.until - span.start
        while at < span.until:
            good, error = first_failure(Range(span.partition, at, span.until), length, self._evaluate)
            if good > at:
                self._commit_searching(Range(span.partition, at, good))
            # Where bad records are dense, the next one is at about the same distance.
            length = max(1, good - at)
            at = good if error is None else self._quarantine(span.partition, good, error)

    def _commit_searching(self, span: Range) -> None:
        """Commit a range that can be evaluated. A record at fault all the same is one that the worker fails for."""
        at, length = span.start, span.until - span.start
        while at < span.until:
            good, error = first_failure(Range(span.partition, at, span.until), length, self._commit)
            length = max(1, good - at)
            at = good if error is None else self._quarantine(span.partition, good, error)

    def _position(self, partition: int) -> int:
        context = self._batch.write_context
        with session(self._batch.settings, Account.STREAM) as connection:
            return ledger.positions(connection, context.stream, context.topic)[partition]

    def _rows(self, span: Range) -> DataFrame:
        batch, source = self._batch, self._batch.pipeline.source
        starts, ends = {span.partition: span.start}, {span.partition: span.until}
        raw = read_range(self._spark, batch.settings, source, starts, ends, one_by_one=self._one_by_one)
        return transform(self._spark, decode(raw, source), batch.pipeline)

    def _evaluate(self, span: Range) -> Exception | None:
        """Evaluate all columns of a range, and write nothing."""
        return self._attempt(lambda: self._rows(span).write.format("noop").mode("overwrite").save())

    def _commit(self, span: Range) -> Exception | None:
        """Commit a range, as far as a task that failed has not committed it already."""
        at = max(span.start, self._position(span.partition))
        if at >= span.until:
            return None
        left = Range(span.partition, at, span.until)

        def commit() -> None:
            outcomes = run_batch(self._rows(left), replace(self._batch, ranges={left.partition: left}))
            self._add(left.partition, outcomes[left.partition])

        return self._attempt(commit)

    def _attempt(self, action: Callable[[], None]) -> Exception | None:
        if self._must_end():
            raise SearchEnded
        try:
            action()
        except TASK_ERRORS as error:
            if not is_fault_of_records(error):
                raise
            return error
        return None

    def _quarantine(self, partition: int, offset: int, error: Exception) -> int:
        """Quarantine a record that fails by itself, and those after it that Spark fails to read.

        Returns:
            The offset after them.
        """
        if not is_data_exception(error):
            self._verify_workers()
        if is_crash(error):  # its bytes may have been too many, and would be here as well
            return self._write(Range(partition, offset, offset + 1), [Rejected(offset, reason_of_record(error))])
        batch = self._batch
        until = min(batch.ranges[partition].until, offset + _UNREADABLE)
        found = fetch_records(batch.settings, batch.write_context.topic, partition, range(offset, until))
        records = [_because_of_time(record) for record in itertools.takewhile(_is_out_of_time, found)]
        if not records:
            found = fetch_records(batch.settings, batch.write_context.topic, partition, [offset])
            records = [next(iter(found), Rejected(offset, "")).because(reason_of_record(error))]
        return self._write(Range(partition, offset, records[-1].offset + 1), records)

    def _verify_workers(self) -> None:
        """If workers fail for whatever they are given, this raises, and no record is blamed for it."""
        self._spark.range(1).mapInArrow(_echo, "id BIGINT").collect()

    def _write(self, span: Range, records: list[Rejected]) -> int:
        """Commit a range of nothing but records in quarantine, and gaps; returns its end."""
        batch = self._batch
        newest_us = max((each.timestamp_us for each in records if each.timestamp_us is not None), default=None)
        gap = span.until - span.start - len(records)
        single = Batch(batch.batch_id, span, rejected=records, newest_us=newest_us, gap=gap)
        counts = write_batch(batch.settings, batch.pipeline, batch.write_context, single)
        self._add(span.partition, PartitionOutcome(counts, {}, newest_us=newest_us))
        where, reason = f"partition {span.partition}, offset {span.start}", records[0].reason
        log.warning("%s: %d records are quarantined: %s", where, len(records), reason)
        return span.until

    def _add(self, partition: int, outcome: PartitionOutcome) -> None:
        before = self.outcomes.get(partition)
        self.outcomes[partition] = outcome if before is None else before.plus(outcome)
