"""One query of a driver: where each of its micro-batches begins and ends, and what is committed by now."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import Counter
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.readwriter import DataStreamWriter

from tidemill import logs
from tidemill.config import Account, Settings
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import incidents, ledger
from tidemill.store.write.context import Range, WriteContext
from tidemill.stream.batch import run_batch
from tidemill.stream.batch_sizer import BatchSizer, BatchTiming
from tidemill.stream.driver_status import UnderWay
from tidemill.stream.metrics import StreamMetrics
from tidemill.stream.narrowing import NarrowedBatch, SearchEnded
from tidemill.stream.plan.decode import decode
from tidemill.stream.plan.source import read_stream
from tidemill.stream.plan.transform import transform
from tidemill.stream.record_faults import TASK_ERRORS, is_fault_of_records, reason_of_record
from tidemill.stream.spark_internals import batch_end_offsets
from tidemill.stream.task import MicroBatch, PartitionOutcome

log = logging.getLogger(__name__)


def stream_rows(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, positions: dict[int, int], limit: int | None = None
) -> DataFrame:
    """The rows of a pipeline as a stream: source, decode, transform. Its dimensions have to be registered.

    Args:
        spark: the session.
        settings: where Kafka is.
        pipeline: whose rows.
        positions: Kafka partition -> the offset to begin at.
        limit: records that a micro-batch may have; the pipeline's own limit if None.
    """
    # An Arrow batch becomes one transaction: this bounds the memory of a worker, and for how long rows are locked.
    spark.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(pipeline.source.max_bytes_per_batch))
    raw = read_stream(spark, settings, pipeline.source, positions, limit)
    return transform(spark, decode(raw, pipeline.source), pipeline)


class BatchCommitter:
    """Commits the micro-batches of one query and knows how far they are."""

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        write_context: WriteContext,
        positions: dict[int, int],
        *,
        metrics: StreamMetrics | None = None,
        sizer: BatchSizer | None = None,
    ) -> None:
        """A committer for one query.

        Args:
            settings: where the database is.
            pipeline: whose stream.
            write_context: on whose behalf the batches are committed.
            positions: Kafka partition -> next offset.
            metrics: of the driver; new ones if None.
            sizer: of the driver; None keeps the limit as it is.
        """
        self.settings, self.pipeline, self.write_context = settings, pipeline, write_context
        self.positions = dict(positions)
        """Kafka partition -> next offset, as committed."""
        self.metrics = metrics or StreamMetrics(time.monotonic())
        self.ends: dict[int, int] = {}
        """Kafka partition -> its end, as the last probe found it."""
        self.failure: BaseException | None = None
        """What a batch raised, which ends the query: Spark passes it on as text only."""
        self.outgrown = False
        """Whether the next batches should have another limit: this query commits no further one."""
        self.paused = False
        """Whether the stream was stopped for its share of quarantined records: this query commits no further batch."""
        self.under_way: UnderWay | None = None
        """The batch that is being committed."""
        self._sizer = sizer
        self._batches_before = self.metrics.batches
        """Batches of the driver's earlier queries: the ids in the ledger continue from there."""
        self._checkpoint: Path | None = None
        self._at_work = threading.Lock()
        """Held while a batch runs."""
        self._closing = threading.Event()
        self._leaving = threading.Event()
        """Set while the batch that is running may finish: one that is run in parts ends after the present part."""

    def attach(self, rows: DataFrame, checkpoint: Path) -> DataStreamWriter:
        """A writer of ``rows`` that is ready to start."""
        self._checkpoint = checkpoint
        # The checkpoint is scratch: without it the query would begin at the positions in the database all the same.
        # It is on the disk of this machine, where its offsets are read, whatever file system a cluster has by default.
        return rows.writeStream.foreachBatch(self._batch).option("checkpointLocation", f"file://{checkpoint}")

    @property
    def has_committed(self) -> bool:
        """Whether a batch of this query is committed."""
        return self.metrics.batches > self._batches_before

    def lag(self, ends: dict[int, int]) -> int:
        """Records between what is committed and these ends."""
        return sum(self.lags(ends).values())

    def lags(self, ends: dict[int, int]) -> dict[int, int]:
        """Kafka partition -> records between what is committed and its end."""
        at = self.positions
        return {partition: max(0, end - at.get(partition, 0)) for partition, end in ends.items()}

    def close(self, seconds: float) -> None:
        """Wait for the batch that is running, for so long at most, and let no other begin."""
        self._leaving.set()
        finished = self._at_work.acquire(timeout=seconds)
        self._closing.set()
        if finished:
            self._at_work.release()

    def _batch(self, rows: DataFrame, batch_id: int) -> None:
        try:
            with self._at_work, logs.fields(batch=self._batches_before + batch_id):
                # A batch that begins while the query is stopped commits nothing; the next query reads it again.
                if not self._closing.is_set() and not self._leaving.is_set():
                    self._commit(rows, batch_id)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            # A Java object of which a method was called is part of a cycle: py4j keeps the method with it. Until Python
            # looks for cycles, the JVM keeps the batch, and what was broadcast to join it: megabytes for each batch.
            gc.collect()

    def _commit(self, rows: DataFrame, batch_id: int) -> None:
        assert self._checkpoint is not None  # set before the query starts
        began = time.monotonic()
        ends = batch_end_offsets(self._checkpoint, batch_id, self.write_context.topic)
        self._begin_new_partitions(ends)
        ranges = {
            partition: Range(partition, self.positions[partition], until)
            for partition, until in ends.items()
            if until > self.positions[partition]
        }
        context = self.write_context
        batch = MicroBatch(self.settings, self.pipeline, context, self._batches_before + batch_id, ranges)
        self.under_way = UnderWay(began, ranges)
        try:
            outcomes = self._run(rows, batch)
        finally:
            self.under_way = None
        if outcomes is None:
            return
        self._report_warnings([outcome.warnings for outcome in outcomes.values()])
        self.metrics.quarantine_share.note(outcome.counts for outcome in outcomes.values())
        self.positions |= {partition: span.until for partition, span in ranges.items()}
        now = time.monotonic()
        timing = BatchTiming(sum(span.until - span.start for span in ranges.values()), now - began)
        self.metrics.note_newest({partition: outcome.newest_us for partition, outcome in outcomes.items()})
        self.metrics.note(now, timing.records, timing.seconds, [outcome.latencies for outcome in outcomes.values()])
        log.info("committed %d records of %d partitions in %.3f s", timing.records, len(ranges), timing.seconds)
        if self.metrics.quarantine_share.report(self.settings, self.pipeline):
            self.paused = True
            self._closing.set()
            return
        if self._sizer is not None and self._sizer.note(timing, self.lag(self.ends) if self.ends else None):
            self.outgrown = True
            self._closing.set()

    def _run(self, rows: DataFrame, batch: MicroBatch) -> dict[int, PartitionOutcome] | None:
        """Commit a batch, without the records that a task fails for; None if the query is to end before all of it."""
        try:
            return run_batch(rows, batch)
        except TASK_ERRORS as error:
            if not is_fault_of_records(error):
                raise
            log.warning("a task failed for a record; the batch is run again in parts: %s", reason_of_record(error))
        narrowed = NarrowedBatch(rows.sparkSession, batch, self._leaving.is_set)
        try:
            narrowed.run()
        except SearchEnded:
            return None
        return narrowed.outcomes

    def _begin_new_partitions(self, ends: dict[int, int]) -> None:
        """Give partitions that were added while the query runs their first position."""
        if new := ends.keys() - self.positions.keys():
            context = self.write_context
            with session(self.settings, Account.STREAM) as connection:
                ledger.begin_at(connection, context.stream, context.topic, dict.fromkeys(new, 0))
            self.positions |= dict.fromkeys(new, 0)

    def _report_warnings(self, warnings: list[dict[str, int]]) -> None:
        """Open an incident for each check that warns, unless it is open already."""
        records_of = Counter[str]()
        for of_partition in warnings:
            records_of.update(of_partition)
        if not records_of:
            return
        expected = {check.name: check.expect for check in self.pipeline.checks}
        with session(self.settings, Account.STREAM) as connection:
            for name, records in records_of.items():
                message = f"check {name}: {records} records of one batch were written although not {expected[name]}"
                incidents.open_incident(connection, f"stream {self.write_context.stream}", f"check {name}", message)
