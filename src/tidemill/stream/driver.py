"""A stream's driver: keeps queries running while it is wanted, and says every 2 s how it is.

One query after another runs in one Spark session and under one epoch. A database or a broker that is away ends a query
and not the driver: it waits, reads its positions anew, as a new driver would, and goes on. What does not go away by
itself ends the driver; somebody else decides what follows.
"""

from __future__ import annotations

import gc
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient
from pymysql.connections import Connection
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from tidemill.config import Account, Settings
from tidemill.errors import (
    Contention,
    DatabaseFull,
    DatabaseUnavailable,
    Fenced,
    KafkaUnavailable,
    SourceError,
    StreamError,
    TidemillError,
    Transient,
)
from tidemill.kafka.clients import admin
from tidemill.kafka.topics import offsets_at, partitions, topic_id
from tidemill.retry import Backoff
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import connect, session
from tidemill.store.control import heartbeats, streams
from tidemill.store.migrations import pipeline_version
from tidemill.store.write.context import WriteContext
from tidemill.stream.batch_sizer import BatchSizer, goal_of
from tidemill.stream.diagnosis import FROM_WORKER, RESUMED, cause
from tidemill.stream.log_rotation import LogRotator
from tidemill.stream.metrics import StreamMetrics
from tidemill.stream.plan.transform import register_dimensions
from tidemill.stream.query import BatchCommitter, stream_rows
from tidemill.stream.rollup_builder import RollupBuilder
from tidemill.stream.start_offsets import explain_failure, find_start, topic_recreated

log = logging.getLogger(__name__)
BEAT_SECONDS = 2.0
RECONNECT_SECONDS = 0.5
"""Between two beats while the database is away: the sooner the first one after, the fewer take the driver for dead."""
LAG_SECONDS = 3.0
BATCH_SECONDS = 60.0
"""How long a graceful stop waits for the batch under way; dropping it loses nothing but its work."""
QUESTION_BACKOFF = Backoff(first_seconds=0.25, longest_seconds=5.0)
_STEADY_SECONDS = 300.0
"""A query that lived for so long is not one of a series of failures."""
_PATIENCE = 5
"""How many queries in a row may fail as if a server were away, although all answer, before the driver gives up: what
does not fit the server would be tried without end, and nobody told."""


@dataclass(frozen=True)
class _Place:
    """From where the next query reads."""

    write_context: WriteContext
    positions: dict[int, int]


class Driver:
    """One epoch of one stream, from its first heartbeat to its last."""

    def __init__(self, settings: Settings, pipeline: Pipeline, epoch: int) -> None:
        self.settings, self.pipeline, self.epoch = settings, pipeline, epoch
        self.stream, self.topic = pipeline.name, pipeline.source.topic
        self._called_off = threading.Event()
        """The stream is not wanted any more, or there is a verdict."""
        self._verdict: TidemillError | None = None
        """What ends the stream although its query goes on: it was taken over, or its topic was made again."""
        self._topic_id: str | None = None
        self._finished = threading.Event()
        self._state = "starting"
        self._waiting_for: str | None = None
        """What ended the last query, until it is over."""
        self._silent: str | None = None
        """What Kafka's silence looks like, while it lasts."""
        self._committer: BatchCommitter | None = None
        self._measures = StreamMetrics(time.monotonic())
        self._pace = BatchSizer(goal_of(pipeline.source))
        self._builder = RollupBuilder(settings, pipeline, epoch)
        self._beating = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)
        self._asking = threading.Thread(target=self._keep_asking_kafka, name="kafka", daemon=True)

    def run(self, spark: SparkSession) -> None:
        """Stream until it is no longer wanted.

        Raises:
            Fenced: another driver took the stream over.
            TidemillError: the stream failed; the reason is in its heartbeat row.
        """
        scratch = Path(tempfile.mkdtemp(prefix=f"{self.stream}-{self.epoch}-", dir=_scratch(self.settings)))
        self._beating.start()
        self._asking.start()
        try:
            self._keep_streaming(spark, scratch)
        except TidemillError as error:
            self._say_last("failed", str(error))
            raise
        except Exception as error:  # Spark's gateway or the disk is gone: whoever looks at the row has to know, too
            self._say_last("failed", str(cause(error, self.stream)))
            raise
        else:
            self._say_last("stopped", None)
        finally:
            self._finished.set()
            self._builder.close()
            shutil.rmtree(scratch, ignore_errors=True)

    # Query after query

    def _keep_streaming(self, spark: SparkSession, scratch: Path) -> None:
        gc.freeze()  # what is loaded by now stays: the collection after each batch need not go through it
        place: _Place | None = None
        failures = 0
        while not self._called_off.is_set():
            began, batches = time.monotonic(), self._measures.batches
            try:
                place = self._still_whole(place) if place else self._prepare()
                place = self._stream(spark, place, scratch)
            except (TidemillError, PySparkException) as error:
                found, place = self._verdict or self._explain(error), None
                self._topic_id = None  # a topic that was made again meanwhile is what find_start settles
                if not isinstance(found, Transient):
                    raise found from error
                lasted = time.monotonic() - began > _STEADY_SECONDS or self._measures.batches > batches
                failures = 1 if lasted else failures + 1
                if self._wait_out(found, failures):
                    failures = 0
                elif failures >= _PATIENCE and not isinstance(found, DatabaseFull | Contention):
                    raise found from error
                self._pace.begin(carefully=True)
        if self._verdict:
            raise self._verdict

    def _prepare(self) -> _Place:
        """Find where to begin. After the epoch was raised: from here on only we can move the positions."""
        with session(self.settings, Account.STREAM) as connection:
            before = streams.read_stream(connection, self.stream)
            # The lease's version was proven when the epoch was taken; a newer one that is applied since is no error.
            ours = before is not None and before.epoch == self.epoch
            version = before.pipeline_version if ours and before else pipeline_version(connection, self.pipeline)
            if version is None:
                raise StreamError(
                    "the pipeline is not applied as it stands",
                    value=self.stream,
                    remedy=f"run ./tidemill apply {self.stream}",
                )
            if before is not None and before.newest_at is not None:  # the last word of the driver before us
                self._measures.resume_from(int(before.newest_at.replace(tzinfo=UTC).timestamp() * 1e6))
            heartbeats.report_heartbeat(
                connection, self.stream, self.epoch, self._state, last_error=None, **self._facts()
            )
            write_context = WriteContext(self.stream, self.epoch, version, self.topic)
            start = find_start(connection, admin(self.settings), self.settings, self.pipeline, write_context)
        self._topic_id = start.topic_id
        return _Place(
            replace(write_context, generation=start.generation, since_commit=start.since_commit), start.positions
        )

    def _still_whole(self, place: _Place) -> _Place:
        """The place itself; with partitions that were added meanwhile, Spark would refuse it."""
        known = partitions(admin(self.settings), self.topic, LAG_SECONDS)
        return place if known == sorted(place.positions) else self._prepare()

    def _stream(self, spark: SparkSession, place: _Place, scratch: Path) -> _Place:
        """Run one query to its end; returns where the next one begins.

        Raises:
            TidemillError, PySparkException: what ended it, if we did not.
        """
        if self._committer is None:
            register_dimensions(spark, self.pipeline)
        self._committer = committer = BatchCommitter(
            self.settings, self.pipeline, place.write_context, place.positions, measures=self._measures, pace=self._pace
        )
        self._pace.begin()
        rows = stream_rows(spark, self.settings, self.pipeline, committer.positions, self._pace.limit)
        with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as checkpoint:
            query = committer.attach(rows, Path(checkpoint)).start()
            self._builder.start()
            self._state = "running"
            while query.isActive and not self._called_off.wait(0.2) and not committer.outgrown:
                if committer.has_committed or self._measures.lag_records == 0:
                    self._waiting_for = None
            self._end(query, committer)
        return replace(place, positions=committer.positions)

    def _end(self, query: StreamingQuery, committer: BatchCommitter) -> None:
        """Let the batch under way finish, then stop; raise what ended the query if we did not."""
        if self._called_off.is_set():
            self._state = "stopping"
            # A batch that waits for Kafka would not finish.
            committer.close(0 if self._verdict or self._silent else BATCH_SECONDS)
            query.stop()
        elif committer.outgrown:  # it lets no other batch begin
            query.stop()
            log.info("the next batches take up to %d records", self._pace.limit)
        else:
            error = query.exception()
            raise (
                error
                if error
                else StreamError("the query ended by itself", value=self.stream, remedy="see the driver's log")
            )

    # What ended a query, and whether it is over

    def _explain(self, error: TidemillError | PySparkException) -> TidemillError:
        """What ended the query: an error of ours, or what Kafka has lost, or else what Spark says."""
        committer = None if isinstance(error, TidemillError) else self._committer
        failure = (committer.failure if committer else None) or error
        found = cause(failure, self.stream)
        if isinstance(found, Fenced):
            return self._own_straggler() or found
        if isinstance(found, Transient) or isinstance(failure, TidemillError) or FROM_WORKER.search(str(failure)):
            return found
        try:
            with session(self.settings, Account.STREAM) as connection:
                lost = explain_failure(connection, admin(self.settings), self.pipeline)
            if lost is None and isinstance(found, SourceError):
                # The topic is there and whole: while leaders are elected, brokers deny what they have.
                return KafkaUnavailable(found.what, value=found.value, remedy=found.remedy)
            return lost or found
        except TidemillError as silence:
            # Nobody can tell now; if it was not the silence, the next query says so.
            return silence if isinstance(silence, Transient) else found

    def _own_straggler(self) -> TidemillError | None:
        """Whether the position was moved under our own epoch, which nobody else has.

        A task of an earlier query may have outlived it, and committed after the positions were read. All is well then:
        of the two that wanted to move the position one was refused, and the next query begins where it stands now.
        """
        try:
            with session(self.settings, Account.STREAM) as connection:
                row = streams.read_stream(connection, self.stream)
        except TidemillError as away:
            return away if isinstance(away, Transient) else None
        if row is None or row.epoch != self.epoch:
            return None
        return Contention("a task of an earlier query of this driver moved the position", value=f"epoch {self.epoch}")

    def _wait_out(self, found: TidemillError, failures: int) -> bool:
        """Wait until database and Kafka answer, or the stream is called off; returns whether one of them did not.

        Raises:
            TidemillError: the answer is one that does not go away.
        """
        began, silence = time.monotonic(), False
        self._waiting_for = str(found)
        log.warning("waiting: %s", found)
        for pause in _pauses(failures):
            if self._called_off.wait(pause):
                return silence
            try:
                self._ask_servers()
            except TidemillError as error:
                if not isinstance(error, Transient):
                    raise
                silence, self._waiting_for = True, str(error)
            else:
                break
        log.info("%s; the stream resumes after %.1f s", RESUMED, time.monotonic() - began)
        return silence

    def _ask_servers(self) -> None:
        """Raises what a server that is away makes of a question. The heartbeat is a write, and reads the wish."""
        with session(self.settings, Account.STREAM) as connection:
            self._beat(connection)
        topic_id(admin(self.settings), self.topic, LAG_SECONDS)

    # The heartbeat

    def _keep_beating(self) -> None:
        """The heartbeat thread. A database that is away is not its affair: commits decide about that."""
        connection: Connection[Any] | None = None
        rotator = LogRotator.of_process(self.settings.log_bytes)
        pause = BEAT_SECONDS
        while not self._finished.wait(pause):
            pause = BEAT_SECONDS
            if rotator is not None:
                rotator.look()
            try:
                connection = connection or connect(self.settings, Account.STREAM)
                self._beat(connection)
                if self._measures.batches:
                    streams.clear_failures(connection, self.stream)
            except Fenced as error:
                self._end_with(error)
                return
            except DatabaseUnavailable:
                connection, pause = None, min(RECONNECT_SECONDS, BEAT_SECONDS)
            except TidemillError as error:  # said in the log; the query itself fails if it matters
                log.warning("the heartbeat failed: %s", error)

    def _beat(self, connection: Connection[Any]) -> None:
        if not heartbeats.report_heartbeat(connection, self.stream, self.epoch, self._state, **self._facts()):
            self._called_off.set()

    def _keep_asking_kafka(self) -> None:
        """A thread of its own: waiting for a broker that does not answer must not make the driver look dead."""
        client = admin(self.settings)
        while not self._finished.wait(BEAT_SECONDS):
            try:
                self._ask_kafka(client)
            except KafkaUnavailable as error:
                self._measures.note_lag(None)  # not known; from now on the time that the tables may be behind grows
                if self._silent is None:
                    log.warning("the probe of Kafka failed: %s", error)
                self._silent = str(error)
            except TidemillError as error:  # the query itself fails if it matters
                log.warning("the probe of Kafka failed: %s", error)
            else:
                if self._silent is not None:
                    log.info("the probe of Kafka succeeds again")
                self._silent = None

    def _ask_kafka(self, client: AdminClient) -> None:
        """How far the topic reaches, and whether it is still the one that is read."""
        ends = offsets_at(client, self.topic, "latest", LAG_SECONDS)
        if (committer := self._committer) is not None:
            committer.ends = ends
            self._measures.note_lag(committer.lags(ends))
        # Spark reads on in a topic that was made again, as if its first records had been read.
        if self._topic_id and (verdict := topic_recreated(client, self.pipeline, self._topic_id, LAG_SECONDS)):
            self._end_with(verdict)

    def _end_with(self, verdict: TidemillError) -> None:
        self._verdict = self._verdict or verdict
        self._called_off.set()

    def _facts(self) -> dict[str, object]:
        facts = self._measures.facts(time.monotonic(), datetime.now(UTC))
        limit = min(self._pace.limit, 2**32 - 1)  # what the column holds
        return facts | {"batch_limit": limit, "waiting_for": (self._waiting_for or self._silent or "")[:2000] or None}

    def _say_last(self, state: str, error: str | None) -> None:
        self._finished.set()
        # The last word must not be followed by another beat.
        self._beating.join(timeout=20)
        last = {**self._facts(), "waiting_for": None, "last_error": error}
        with suppress(TidemillError), session(self.settings, Account.STREAM) as connection:
            # Suppressed: a driver that was fenced, or whose database is away, has nowhere to say it.
            heartbeats.report_heartbeat(connection, self.stream, self.epoch, state, **last)


def _pauses(failures: int) -> Iterator[float]:
    """Seconds between two questions: ever longer, the more so the more queries failed in a row, and never the same."""
    return (QUESTION_BACKOFF.pause_seconds(failures + further) for further in count(1))


def _scratch(settings: Settings) -> Path:
    folder = settings.state / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
