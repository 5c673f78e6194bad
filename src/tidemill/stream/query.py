"""Batch after batch of one query: where each begins, where it ends, and what is committed by now."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.readwriter import DataStreamWriter

from tidemill.config import Account, Settings
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import incidents, ledger
from tidemill.store.write.context import Range, WriteContext
from tidemill.stream.batch_sizer import BatchSizer, BatchTiming
from tidemill.stream.metrics import StreamMetrics
from tidemill.stream.plan.decode import decode
from tidemill.stream.plan.source import read_stream
from tidemill.stream.plan.transform import transform
from tidemill.stream.task import Job, end_offsets, run_batch


def stream_rows(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, positions: dict[int, int], limit: int | None = None
) -> DataFrame:
    """The pipeline's rows as a stream: source, decode, transform; from ``positions`` on, so many records a batch.

    The dimensions have to be registered.
    """
    # An Arrow batch is what one transaction takes: this bounds a worker's memory, and how long rows are locked.
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
        measures: StreamMetrics | None = None,
        pace: BatchSizer | None = None,
    ) -> None:
        self.settings, self.pipeline, self.write_context = settings, pipeline, write_context
        self.positions = dict(positions)
        """Kafka partition -> next offset, as committed."""
        self.measures = measures or StreamMetrics(time.monotonic())
        self.ends: dict[int, int] = {}
        """Kafka partition -> its end, as it was asked for last."""
        self.failure: BaseException | None = None
        """What ended the query, as it was raised: Spark hands it on as text only."""
        self.outgrown = False
        """Whether the batches to come should have another limit: no further one of this query is committed."""
        self._pace = pace
        """None lets the limit be."""
        self._before = self.measures.batches
        """Batches of the driver's earlier queries: in its ledger rows it goes on counting."""
        self._checkpoint: Path | None = None
        self._at_work = threading.Lock()
        """Held while a batch runs."""
        self._closing = threading.Event()

    def attach(self, rows: DataFrame, checkpoint: Path) -> DataStreamWriter:
        """A writer of ``rows`` that is ready to start."""
        self._checkpoint = checkpoint
        # The checkpoint is scratch: without it the query would begin at the positions in the database all the same.
        # On this machine's disk, where its offsets are read, whatever file system is a cluster's default.
        return rows.writeStream.foreachBatch(self._batch).option("checkpointLocation", f"file://{checkpoint}")

    @property
    def has_committed(self) -> bool:
        """Whether a batch of this query is committed."""
        return self.measures.batches > self._before

    def lags(self, ends: dict[int, int]) -> dict[int, int]:
        """Kafka partition -> records between what is committed and these ends."""
        at = self.positions
        return {partition: max(0, end - at.get(partition, 0)) for partition, end in ends.items()}

    def lag(self, ends: dict[int, int]) -> int:
        """Records between what is committed and these ends."""
        return sum(self.lags(ends).values())

    def _batch(self, batch: DataFrame, batch_id: int) -> None:
        try:
            with self._at_work:
                # A batch that begins while the query is stopped commits nothing; it comes again to the next query.
                if not self._closing.is_set():
                    self._commit(batch, batch_id)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            # A Java object that was asked for anything is part of a cycle: py4j keeps its methods with it. Until Python
            # looks for cycles, the JVM keeps the batch, and what was broadcast to join it: megabytes for each batch.
            gc.collect()

    def close(self, seconds: float) -> None:
        """Wait for the batch under way, for so long at most, and let no other begin."""
        finished = self._at_work.acquire(timeout=seconds)
        self._closing.set()
        if finished:
            self._at_work.release()

    def _commit(self, batch: DataFrame, batch_id: int) -> None:
        assert self._checkpoint is not None  # set before the query starts
        began = time.monotonic()
        ends = end_offsets(self._checkpoint, batch_id, self.write_context.topic)
        self._know(ends)
        ranges = {
            partition: Range(partition, self.positions[partition], until)
            for partition, until in ends.items()
            if until > self.positions[partition]
        }
        job = Job(self.settings, self.pipeline, self.write_context, self._before + batch_id, ranges)
        outcomes = run_batch(batch, job)
        self._tell_warnings({p: found.warnings for p, found in outcomes.items() if found.warnings})
        self.positions |= {partition: span.until for partition, span in ranges.items()}
        now = time.monotonic()
        took = BatchTiming(sum(span.until - span.start for span in ranges.values()), now - began)
        self.measures.note_newest({partition: found.newest_us for partition, found in outcomes.items()})
        self.measures.note(now, took.records, took.seconds, [found.latencies for found in outcomes.values()])
        if self._pace is not None and self._pace.note(took, self.lag(self.ends) if self.ends else None):
            self.outgrown = True
            self._closing.set()

    def _know(self, ends: dict[int, int]) -> None:
        """Give partitions that appeared while the query runs their first position."""
        if new := ends.keys() - self.positions.keys():
            with session(self.settings, Account.STREAM) as connection:
                ledger.begin_at(connection, self.write_context.stream, self.write_context.topic, dict.fromkeys(new, 0))
            self.positions |= dict.fromkeys(new, 0)

    def _tell_warnings(self, warnings: dict[int, dict[str, int]]) -> None:
        """Make an incident of each check that warns: one, as long as it is open."""
        if not warnings:
            return
        sums = Counter[str]()
        for found in warnings.values():
            sums.update(found)
        with session(self.settings, Account.STREAM) as connection:
            for name, records in sums.items():
                expected = next(check.expect for check in self.pipeline.checks if check.name == name)
                sentence = f"check {name}: {records} records of one batch were written though not {expected}"
                incidents.open_incident(connection, f"stream {self.write_context.stream}", f"check {name}", sentence)
