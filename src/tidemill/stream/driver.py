"""The driver of a stream: it keeps a query running until a stop is requested.

One query after another runs in one Spark session and under one epoch. When a database or a broker becomes unavailable,
the query ends and the driver does not: it waits, reads its positions from the database again, as a new driver would,
and starts the next query. A lasting error ends the driver; the supervisor decides what
follows.
"""

from __future__ import annotations

import gc
import logging
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC
from functools import partial
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from tidemill.config import Account, Settings
from tidemill.errors import StreamError, TidemillError
from tidemill.kafka.clients import PROBE_SECONDS, admin
from tidemill.kafka.topics import offsets_at, partitions
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import heartbeats, streams
from tidemill.store.live_tables import check_tables
from tidemill.store.migrations import pipeline_version
from tidemill.store.ownership import check_ownership
from tidemill.store.write.context import WriteContext
from tidemill.stream.diagnosis import cause
from tidemill.stream.driver_status import DriverStatus
from tidemill.stream.heartbeat import Heartbeat
from tidemill.stream.jvm_end import jvm_end
from tidemill.stream.kafka_probe import KafkaProbe
from tidemill.stream.narrowing import SearchEnded
from tidemill.stream.outage import Recovery, ended_by
from tidemill.stream.plan.dimensions import register_dimensions
from tidemill.stream.query import BatchCommitter, stream_rows
from tidemill.stream.record_faults import TASK_ERRORS
from tidemill.stream.rollup_builder import RollupBuilder
from tidemill.stream.start_offsets import find_start
from tidemill.stream.suspicion import SuspectReader
from tidemill.stream.watchdog import Watchdog

log = logging.getLogger(__name__)
BATCH_SECONDS = 60.0
"""How long a graceful stop waits for the batch that is running. Dropping it loses nothing but its work."""
_STEADY_SECONDS = 300.0
"""A query that ran for so long is not one of a series of failures."""
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class _QueryStart:
    """Where a query begins."""

    write_context: WriteContext
    positions: dict[int, int]
    """Kafka partition -> next offset."""


class Driver:
    """One epoch of one stream, from its first heartbeat to its last."""

    def __init__(self, settings: Settings, pipeline: Pipeline, epoch: int) -> None:
        self.settings, self.pipeline, self.epoch = settings, pipeline, epoch
        self.stream, self.topic = pipeline.name, pipeline.source.topic
        self.status = DriverStatus(pipeline)
        self._heartbeat = Heartbeat(settings, self.stream, epoch, self.status)
        self._probe = KafkaProbe(settings, pipeline, self.status)
        self._recovery = Recovery(settings, pipeline, epoch, self.status, self._heartbeat)
        self._watchdog = Watchdog(settings, self.stream, epoch, self.status)
        self._rollup_builder = RollupBuilder(settings, pipeline, epoch)

    def run(self, spark: SparkSession) -> None:
        """Run queries until a stop or an exit is requested.

        Raises:
            Fenced: another driver has acquired the lease.
            TidemillError: the stream failed; the reason is in its heartbeat row.
        """
        scratch = Path(tempfile.mkdtemp(prefix=f"{self.stream}-{self.epoch}-", dir=_scratch(self.settings)))
        self._heartbeat.start()
        self._probe.start()
        self._watchdog.start()
        try:
            self._run_queries(spark, scratch)
        except TidemillError as error:
            self._heartbeat.close("failed", str(error))
            raise
        except Exception as error:  # the JVM or the disk is gone: the heartbeat row has to have the reason
            self._heartbeat.close("failed", str(jvm_end(spark, self.stream) or cause(error, self.stream)))
            raise
        else:
            self._heartbeat.close("stopped", None)
        finally:
            self.status.finished.set()
            self._rollup_builder.close()
            shutil.rmtree(scratch, ignore_errors=True)

    def _run_queries(self, spark: SparkSession, scratch: Path) -> None:
        gc.freeze()  # what is loaded by now stays: the garbage collection after each batch need not look at it
        start: _QueryStart | None = None
        while not self.status.must_end:
            began, batches = time.monotonic(), self.status.metrics.batches
            try:
                start = self._revalidate(start) if start else self._find_start()
                start = self._run_query(spark, self._read_suspects(spark, start), scratch)
            except SearchEnded:
                start = None  # the driver is to end
            except TASK_ERRORS as error:
                start = None
                self.status.topic_id = None  # whether the topic was recreated, find_start determines
                committed = self.status.metrics.batches > batches
                committer = self.status.committer
                self._recovery.recover(
                    ended_by(error, committer.failure if committer else None),
                    was_steady=committed or time.monotonic() - began > _STEADY_SECONDS,
                )
                self.status.sizer.begin(carefully=True)
        if self.status.final_error:
            raise self.status.final_error

    def _find_start(self) -> _QueryStart:
        """Read where to begin. The lease was acquired before, so that no other driver moves the positions any more."""
        with session(self.settings, Account.STREAM) as connection:
            row = streams.read_stream(connection, self.stream)
            # The version of the lease was checked when it was acquired. A newer one that was applied since is no error.
            has_lease = row is not None and row.epoch == self.epoch
            version = row.pipeline_version if row and has_lease else pipeline_version(connection, self.pipeline)
            if version is None:
                raise StreamError("TM-STREAM-NOT-APPLIED", value=self.stream, stream=self.stream)
            if row is not None and row.newest_at is not None:  # as the previous driver reported it last
                self.status.metrics.resume_from(int(row.newest_at.replace(tzinfo=UTC).timestamp() * 1e6))
            columns = self.status.columns()
            heartbeats.report_heartbeat(
                connection, self.stream, self.epoch, self.status.state, last_error=None, **columns
            )
            check_ownership(connection, self.pipeline)
            check_tables(connection, self.settings, self.pipeline)
            context = WriteContext(self.stream, self.epoch, version, self.topic)
            start = find_start(connection, admin(self.settings), self.settings, self.pipeline, context)
        self.status.topic_id = start.topic_id
        return _QueryStart(
            replace(context, generation=start.generation, since_commit=start.since_commit), start.positions
        )

    def _revalidate(self, start: _QueryStart) -> _QueryStart:
        """The same start, unless partitions were added since, with which Spark would reject it."""
        known = partitions(admin(self.settings), self.topic, PROBE_SECONDS)
        return start if known == sorted(start.positions) else self._find_start()

    def _read_suspects(self, spark: SparkSession, start: _QueryStart) -> _QueryStart:
        """Read with care what an earlier driver, or an earlier query, may have ended at; returns where to go on."""
        status, source = self.status, self.pipeline.source
        if status.committer is not None:
            return start
        register_dimensions(spark, self.pipeline)
        spark.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(source.max_bytes_per_batch))
        status.state = "running"
        self._watchdog.watch(start.write_context, spark)
        reader = SuspectReader(spark, self.settings, self.pipeline, status, start.write_context)
        ends = partial(offsets_at, admin(self.settings), self.topic, "latest")
        return replace(start, positions=reader.run(start.positions, ends))

    def _run_query(self, spark: SparkSession, start: _QueryStart, scratch: Path) -> _QueryStart:
        """Run one query to its end; returns where the next one begins.

        Raises:
            TidemillError, PySparkException: what ended it, if the driver did not.
        """
        status = self.status
        status.committer = committer = BatchCommitter(
            self.settings, self.pipeline, start.write_context, start.positions,
            metrics=status.metrics, sizer=status.sizer,
        )  # fmt: skip
        status.sizer.begin()
        rows = stream_rows(spark, self.settings, self.pipeline, committer.positions, status.sizer.limit)
        with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as checkpoint:
            query = committer.attach(rows, Path(checkpoint)).start()
            self._rollup_builder.start()
            status.state = "running"
            while query.isActive and not status.wait_for_end(_POLL_SECONDS) and not committer.outgrown:
                if committer.paused:
                    status.end()
                if committer.has_committed or status.metrics.lag_records == 0:
                    status.waiting_for = None
            self._end_query(query, committer)
        return replace(start, positions=committer.positions)

    def _end_query(self, query: StreamingQuery, committer: BatchCommitter) -> None:
        """Let the batch that is running finish, then stop the query; raise what ended it, if the driver did not."""
        if self.status.must_end:
            self.status.state = "stopping"
            # A batch that waits for Kafka would not finish.
            committer.close(0 if self.status.final_error or self.status.kafka_error else BATCH_SECONDS)
            query.stop()
        elif committer.outgrown:  # it lets no other batch begin
            query.stop()
            log.info("the next batches take up to %d records", self.status.sizer.limit)
        else:
            raise query.exception() or StreamError("TM-STREAM-QUERY-ENDED", value=self.stream)


def _scratch(settings: Settings) -> Path:
    folder = settings.state / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
