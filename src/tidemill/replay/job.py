"""The job of a replay: it reads the slices of the plan and commits them. :mod:`tidemill.replay` has its invariant."""

from __future__ import annotations

import base64
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pymysql.connections import Connection
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from tidemill import logs
from tidemill.config import Account, Settings
from tidemill.errors import StreamError, TidemillError
from tidemill.kafka.clients import admin
from tidemill.kafka.fetch_records import fetch_records
from tidemill.kafka.gaps import Gaps
from tidemill.kafka.topics import offsets_at, topic_id
from tidemill.replay.plan import ReplayPlan, Slice
from tidemill.replay.request import ReplayRequest
from tidemill.spec.schema import Pipeline, TableKind
from tidemill.store.connection import session
from tidemill.store.control import ledger, quarantine, replays
from tidemill.store.control.quarantine import StoredRecord
from tidemill.store.migrations import pipeline_version
from tidemill.store.ownership import check_ownership
from tidemill.store.write.context import NO_GENERATION, Range, WriteContext
from tidemill.store.write.fencing import check_topic_generation, topic_recreated
from tidemill.store.write.ledger_rows import Rejected
from tidemill.store.write.retract import OutdatedRow, count_outdated, retract_outdated
from tidemill.stream.batch import run_batch
from tidemill.stream.diagnosis import cause
from tidemill.stream.plan.decode import decode
from tidemill.stream.plan.dimensions import register_dimensions
from tidemill.stream.plan.source import read_range
from tidemill.stream.plan.transform import transform
from tidemill.stream.task import MicroBatch, PartitionOutcome

log = logging.getLogger(__name__)
UNREADABLE = "Kafka no longer has them, and not all of their bytes were kept"


def run(spark: SparkSession, settings: Settings, pipeline: Pipeline, replay_id: int) -> dict[str, Any]:
    """Run a replay that was requested; continue it where an earlier attempt was interrupted.

    Returns:
        What became of the records (of the first pass, where there are two), ``retracted`` rows, ``restored`` rows that
        replaced them, ``passes``, ``left_out`` and ``warnings``.

    Raises:
        StreamError: the replay was requested of another version of the pipeline, or another job runs it.
        Fenced: the stream runs a newer version of the pipeline, or the topic was recreated since the request.
        TidemillError: the replay failed; the reason is in its row.
    """
    with session(settings, Account.STREAM) as connection, replays.locked(connection, replay_id):
        row = replays.read(connection, replay_id)
        if row.stream != pipeline.name or row.pipeline_version != pipeline_version(connection, pipeline):
            raise StreamError("TM-REPLAY-OTHER-VERSION", value=f"{row.stream}, version {row.pipeline_version}")
        if row.state == "done":
            return dict(row.selection["result"])
        check_ownership(connection, pipeline)
        replays.begin(connection, replay_id)
        try:
            result = _Attempt(spark, settings, pipeline, connection, row).run()
        except (TidemillError, PySparkException) as error:
            known = cause(error, pipeline.name)
            with suppress(TidemillError):  # an unavailable database cannot record it
                replays.fail(connection, replay_id, str(known))
            raise known from error
        replays.finish(connection, replay_id, result)
    return result


class _Attempt:
    """One attempt to run one replay."""

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        pipeline: Pipeline,
        connection: Connection[Any],
        row: replays.Replay,
    ) -> None:
        self.spark, self.settings, self.pipeline, self.connection, self.row = spark, settings, pipeline, connection, row
        requested = row.selection["requested"]
        self.request = ReplayRequest(**{**requested, "ids": tuple(requested["ids"])})
        self.plan = ReplayPlan.from_json(row.selection["plan"])
        self.slices = self.plan.slices()
        self.batches = range(len(self.slices))
        """Batch ids of the first pass."""
        self.write_context = WriteContext(
            row.stream,
            0,
            row.pipeline_version,
            pipeline.source.topic,
            generation=self.plan.generation,
            since_commit=self.plan.since_commit,
            replay_id=row.id,
        )
        self.outcomes: list[tuple[Range, PartitionOutcome]] = []
        """Of the batches that this attempt ran."""
        self.left_out = Counter(self.plan.left_out)

    def run(self) -> dict[str, Any]:
        """Run all passes; returns the result."""
        register_dimensions(self.spark, self.pipeline)
        self.spark.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(self.pipeline.source.max_bytes_per_batch))
        counts = self._run_pass(self.slices, self.batches)
        warnings = Counter[str]()
        for _, outcome in self.outcomes:
            warnings.update(outcome.warnings)
        retracted, restored, passes = 0, 0, 1
        if self.plan.ranges and self._has_older_versions():
            retracted = self._retract()
            if not self.request.dry_run and self._kept_records_out(retracted, counts):
                restored, passes = self._run_second_pass(), 2
        return {
            **counts,
            **{"retracted": retracted, "restored": restored, "passes": passes},
            **{"left_out": dict(self.left_out), "warnings": dict(warnings)},
        }

    def _run_pass(self, slices: list[Slice], batches: range) -> dict[str, int]:
        """Read and commit every slice that is not committed yet; returns what became of the records of all slices."""
        committed = {} if self.request.dry_run else replays.committed(self.connection, self.row.id)
        left = [
            (batch_id, piece)
            for batch_id, piece in zip(batches, slices, strict=True)
            if any(committed.get((batch_id, span.partition), 0) < span.until for span in piece.ranges)
        ]
        self._verify_records_exist([piece for _, piece in left])
        for batch_id, piece in left:
            self._verify_topic([piece])
            self._run_batch(batch_id, piece)
        if self.request.dry_run:
            return self._sum_outcomes()
        return replays.totals(self.connection, self.row.id, batches)

    def _run_batch(self, batch_id: int, piece: Slice) -> None:
        rows, context = self._read(piece)
        ranges = {span.partition: span for span in piece.ranges}
        batch = MicroBatch(
            self.settings,
            self.pipeline,
            context,
            batch_id,
            ranges,
            sparse=bool(self.plan.quarantined),
            dry_run=self.request.dry_run,
        )
        with logs.fields(batch=batch_id):
            outcomes = run_batch(rows, batch)
            self.outcomes += [(ranges[partition], outcome) for partition, outcome in outcomes.items()]
            if not self.request.dry_run:
                replays.progress(self.connection, self.row.id)
            log.info("%s %d partitions", "tried" if self.request.dry_run else "committed", len(ranges))

    def _run_second_pass(self) -> int:
        """Run the second pass; returns the rows written. Its ranges are fixed once, for all attempts."""
        if not self.plan.second_pass:
            self._verify_topic(self.slices)
            positions = ledger.positions(self.connection, self.row.stream, self.write_context.topic)
            self.plan = self.plan.with_second_pass(positions)
            replays.update_plan(self.connection, self.row.id, self.plan.as_json())
        slices, begin = self.plan.slices_of_second_pass(), len(self.batches)
        return self._run_pass(slices, range(begin, begin + len(slices)))["written"]

    def _verify_topic(self, slices: Iterable[Slice]) -> None:
        """Verify that offsets still name the same records, whether or not a driver has read from a recreated topic.

        Records of the quarantine that are known to be of an earlier topic are not read from Kafka.

        Raises:
            Fenced: the topic was recreated.
        """
        if all(piece.generation != self.plan.generation for piece in slices):
            return
        known_id, topic = check_topic_generation(self.connection, self.write_context), self.write_context.topic
        if known_id is not None and (current_id := topic_id(admin(self.settings), topic)) != known_id:
            raise topic_recreated(topic, f"its id was {known_id} and is {current_id}")

    def _verify_records_exist(self, slices: list[Slice]) -> None:
        """Verify that retention has not removed records since the request.

        Raises:
            StreamError: it has.
            Fenced: the topic was recreated.
        """
        self._verify_topic(slices)
        spans = [] if self.plan.quarantined else [span for piece in slices for span in piece.ranges]
        earliest = offsets_at(admin(self.settings), self.write_context.topic, "earliest") if spans else {}
        for span in spans:
            begin = earliest.get(span.partition, 0)
            if span.start < begin:
                value = f"partition {span.partition} from offset {span.start}"
                raise StreamError("TM-REPLAY-RECORDS-REMOVED", value=value, begin=begin)

    def _read(self, piece: Slice) -> tuple[DataFrame, WriteContext]:
        if self.plan.quarantined:
            raw, context = self._read_quarantine(piece)
        else:
            starts = {span.partition: span.start for span in piece.ranges}
            ends = {span.partition: span.until for span in piece.ranges}
            raw = read_range(self.spark, self.settings, self.pipeline.source, starts, ends)
            context = self.write_context
        return transform(self.spark, decode(raw, self.pipeline.source), self.pipeline), context

    def _read_quarantine(self, piece: Slice) -> tuple[DataFrame, WriteContext]:
        """Records of one partition as they were quarantined; those that were cut are read from Kafka again."""
        (span,), context = piece.ranges, self.write_context
        coordinates = (context.stream, context.topic, piece.generation)
        selected = self.request.quarantine_filter
        records = quarantine.read_range(self.connection, coordinates, span, selected, self.plan.newest_id)
        if piece.generation != context.generation:
            context = replace(context, generation=piece.generation, since_commit=NO_GENERATION)
        partial = [record.record_offset for record in records if record.partial]
        read = fetch_records(self.settings, context.topic, span.partition, partial) if partial else ()
        fetched = {record.offset: record for record in read}
        completed = [_complete(record, fetched.get(record.record_offset)) for record in records]
        readable = [record for record in completed if record is not None]
        if len(readable) < len(completed):
            self.left_out[UNREADABLE] += len(completed) - len(readable)
        return kafka_rows(self.spark, span.partition, readable), context

    def _sum_outcomes(self) -> dict[str, int]:
        """What became of the records of a dry run, which leaves no ledger rows: the sums of its outcomes."""
        sums = dict.fromkeys(("records", *replays.COUNTED), 0)
        for span, outcome in self.outcomes:
            counts = asdict(outcome.counts)
            for name in replays.COUNTED:
                sums[name] += counts[name]
            sums["records"] += span.until - span.start - counts["gap"] - counts["unselected"]
        return sums

    def _has_older_versions(self) -> bool:
        """Whether there can be rows of an older version."""
        return self.row.pipeline_version > 1

    def _kept_records_out(self, retracted: int, counts: dict[str, int]) -> bool:
        """Whether a row that is removed since, or whose version has become lower, may have kept another record out."""
        entities = any(table.kind is TableKind.ENTITY for table in self.pipeline.tables.values())
        return retracted > 0 or (entities and counts["written"] > 0)

    def _retract(self) -> int:
        """Remove, or count, rows that no record makes any more; returns how many rows, of all attempts."""
        self._verify_topic(self.slices)
        work = (self.connection, self.settings, self.pipeline, self.write_context, self.plan.ranges, self._sparer())
        if self.request.dry_run:
            return max(0, count_outdated(*work) - sum(outcome.rewritable for _, outcome in self.outcomes))
        retract_outdated(*work)
        return replays.read(self.connection, self.row.id).retracted_rows

    def _sparer(self) -> Callable[[list[OutdatedRow]], list[OutdatedRow]]:
        """A function that leaves out rows whose record Kafka no longer has: the new version cannot be applied to it."""
        if self.request.dry_run:
            gapped = [span for span, outcome in self.outcomes if outcome.counts.gap]
        else:
            gapped = replays.with_gaps(self.connection, self.row.id, self.batches)
        gaps: Gaps | None = None

        def spare(rows: list[OutdatedRow]) -> list[OutdatedRow]:
            nonlocal gaps
            if not gapped:
                return rows
            if gaps is None:
                gaps = self._find_gaps(gapped)
            return [row for row in rows if not gaps.has(row.partition, row.offset)]

        return spare

    def _find_gaps(self, gapped: Iterable[Range]) -> Gaps:
        """Read the offsets of ranges with gaps again: the ledger counts gaps, and does not name them."""
        gaps = Gaps()
        earliest = offsets_at(admin(self.settings), self.write_context.topic, "earliest")
        for span in gapped:
            begin = min(max(span.start, earliest.get(span.partition, 0)), span.until)
            offsets = np.array([], np.int64)
            if begin < span.until:
                source, at = self.pipeline.source, span.partition
                records = read_range(self.spark, self.settings, source, {at: begin}, {at: span.until})
                offsets = records.select("offset").toArrow()["offset"].to_numpy()
            gaps.add(span, offsets)
        self._verify_topic(self.slices)
        return gaps


def _complete(record: StoredRecord, fetched: Rejected | None) -> StoredRecord | None:
    """The record with all its bytes; None if neither the quarantine nor Kafka has them."""
    if not record.partial:
        return record
    if fetched is None:
        return None
    return StoredRecord(
        record.id, record.record_offset, fetched.timestamp_us, fetched.key, fetched.value, fetched.headers, None
    )


_KAFKA = pa.schema(
    [
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
    ]
)


def kafka_rows(spark: SparkSession, partition: int, records: Iterable[StoredRecord]) -> DataFrame:
    """Records of one Kafka partition, ordered by offset, with the columns of Spark's Kafka source.

    Returns:
        One Spark partition, because a task commits a whole Kafka partition.
    """
    rows = [
        {
            "key": record.key,
            "value": record.value,
            "partition": partition,
            "offset": record.record_offset,
            "timestamp": record.timestamp_us,
            "headers": _headers(record.headers),
        }
        for record in records
    ]
    return spark.createDataFrame(pa.Table.from_pylist(rows, _KAFKA)).coalesce(1)


def _headers(text: str | None) -> list[dict[str, Any]] | None:
    if text is None:
        return None
    return [{"key": k, "value": None if v is None else base64.b64decode(v)} for k, v in json.loads(text)]
