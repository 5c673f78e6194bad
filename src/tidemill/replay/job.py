"""A replay: records read again beside the live stream, through the same decoder, transform and transaction.

**Correcting.** A newer pipeline version rewrites the rows that it makes of the same records under the same keys. What
then still carries an older version within the ranges is retracted. Records that such a row kept out, or a row whose
version has fallen since, get their chance in a second pass; among them are those that the stream has read meanwhile.
Afterwards the tables hold what the new version would have made of all these records from the start.
"""

from __future__ import annotations

import base64
import json
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

from tidemill.config import Account, Settings
from tidemill.errors import StreamError, TidemillError
from tidemill.kafka.clients import admin
from tidemill.kafka.fetch_records import fetch_records
from tidemill.kafka.gaps import Gaps
from tidemill.kafka.topics import offsets_at, topic_id
from tidemill.replay.request import Plan, ReplayRequest, Slice, choice_of
from tidemill.spec.schema import Pipeline, TableKind
from tidemill.store.connection import session
from tidemill.store.control import ledger, quarantine, replays
from tidemill.store.control.quarantine import StoredRecord
from tidemill.store.migrations import pipeline_version
from tidemill.store.write.fencing import NO_GENERATION, check_topic_generation, topic_recreated
from tidemill.store.write.ledger_rows import Range, Rejected, WriteContext
from tidemill.store.write.retract import count_outdated, retract_outdated
from tidemill.stream.batch import run_batch
from tidemill.stream.diagnosis import cause
from tidemill.stream.plan.decode import decode
from tidemill.stream.plan.source import read_range
from tidemill.stream.plan.transform import register_dimensions, transform
from tidemill.stream.task import MicroBatch, PartitionOutcome

UNREADABLE = "Kafka does not have them any more, and not all of their bytes were kept"


def run(spark: SparkSession, settings: Settings, pipeline: Pipeline, replay_id: int) -> dict[str, Any]:
    """Do what was asked for; go on where an earlier try was interrupted.

    Returns:
        What became of the records (of the first pass, where there are two), ``retracted`` rows, ``restored`` rows that
        took their place, ``passes``, ``left_out`` and ``warnings``.

    Raises:
        StreamError: the replay is not of this pipeline as it is applied now, or another job works on it.
        Fenced: the stream runs a newer version of the pipeline, or the topic was made again since it was asked for.
        TidemillError: it failed; the reason is in its row.
    """
    with session(settings, Account.STREAM) as connection, replays.locked(connection, replay_id):
        row = replays.read(connection, replay_id)
        if row.stream != pipeline.name or row.pipeline_version != pipeline_version(connection, pipeline):
            raise StreamError(
                "the replay is not of this pipeline as it is applied now",
                value=f"{row.stream}, version {row.pipeline_version}",
                remedy="ask for it again",
            )
        if row.state == "done":
            return dict(row.selection["result"])
        replays.begin(connection, replay_id)
        try:
            result = _Replay(spark, settings, pipeline, connection, row).run()
        except (TidemillError, PySparkException) as error:
            known = cause(error)
            with suppress(TidemillError):  # a database that is away has nowhere to note it
                replays.fail(connection, replay_id, str(known))
            raise known from error
        replays.finish(connection, replay_id, result)
    return result


class _Replay:
    """One try of one replay."""

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        pipeline: Pipeline,
        connection: Connection[Any],
        row: replays.Replay,
    ) -> None:
        self.spark, self.settings, self.pipeline, self.connection, self.row = spark, settings, pipeline, connection, row
        given = row.selection["requested"]
        self.asked = ReplayRequest(**{**given, "ids": tuple(given["ids"])})
        self.plan = Plan.from_json(row.selection["plan"])
        self.slices = self.plan.slices()
        self.batches = range(len(self.slices))
        """Ids of the first pass."""
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
        """Of this try."""
        self.left_out = Counter(self.plan.left_out)

    def run(self) -> dict[str, Any]:
        """All passes; returns the result."""
        register_dimensions(self.spark, self.pipeline)
        self.spark.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(self.pipeline.source.max_bytes_per_batch))
        counts = self._pass(self.slices, self.batches)
        warnings = Counter[str]()
        for _, outcome in self.outcomes:
            warnings.update(outcome.warnings)
        retracted, restored, passes = 0, 0, 1
        if self.plan.ranges and self._corrects():
            retracted = self._retract()
            if not self.asked.dry_run and self._may_have_kept_out(retracted, counts):
                restored, passes = self._pass_again(), 2
        return {
            **counts,
            **{"retracted": retracted, "restored": restored, "passes": passes},
            **{"left_out": dict(self.left_out), "warnings": dict(warnings)},
        }

    def _pass(self, slices: list[Slice], batches: range) -> dict[str, int]:
        """Read and commit every slice that is not committed yet; returns what became of the records of all."""
        done = {} if self.asked.dry_run else replays.committed(self.connection, self.row.id)
        left = [
            (batch_id, each)
            for batch_id, each in zip(batches, slices, strict=True)
            if any(done.get((batch_id, span.partition), 0) < span.until for span in each.ranges)
        ]
        self._refuse_forgotten([each for _, each in left])
        for batch_id, each in left:
            self._refuse_another_topic([each])
            rows, write_context = self._read(each)
            ranges = {span.partition: span for span in each.ranges}
            sparse = bool(self.plan.picked)
            batch = MicroBatch(
                self.settings, self.pipeline, write_context, batch_id, ranges, sparse, self.asked.dry_run
            )
            outcomes = run_batch(rows, batch)
            self.outcomes += [(ranges[partition], outcome) for partition, outcome in outcomes.items()]
            if not self.asked.dry_run:
                replays.progress(self.connection, self.row.id)
        if self.asked.dry_run:
            return self._told()
        return replays.totals(self.connection, self.row.id, batches)

    def _pass_again(self) -> int:
        """The second pass; returns the rows written. Its ranges are settled once, whoever tries again."""
        if not self.plan.again:
            self._refuse_another_topic(self.slices)
            positions = ledger.positions(self.connection, self.row.stream, self.write_context.topic)
            self.plan = self.plan.extended(positions)
            replays.update_plan(self.connection, self.row.id, self.plan.as_json())
        slices, begin = self.plan.slices_again(), len(self.batches)
        return self._pass(slices, range(begin, begin + len(slices)))["written"]

    def _refuse_another_topic(self, slices: Iterable[Slice]) -> None:
        """The offsets of a topic that was made again are those of other records, also where no driver has met it yet.

        Records of the quarantine that were known to be of an earlier incarnation do not come from Kafka.
        """
        if all(each.generation != self.plan.generation for each in slices):
            return
        known, topic = check_topic_generation(self.connection, self.write_context), self.write_context.topic
        if known is not None and (now := topic_id(admin(self.settings), topic)) != known:
            raise topic_recreated(topic, f"its id was {known} and is {now}")

    def _refuse_forgotten(self, left: list[Slice]) -> None:
        """Kafka goes on forgetting while a replay waits."""
        self._refuse_another_topic(left)
        spans = [] if self.plan.picked else [span for each in left for span in each.ranges]
        earliest = offsets_at(admin(self.settings), self.write_context.topic, "earliest") if spans else {}
        for span in spans:
            if span.start < earliest.get(span.partition, 0):
                raise StreamError(
                    "Kafka has forgotten records that were to be replayed",
                    value=f"partition {span.partition} from offset {span.start}",
                    remedy=f"it begins at offset {earliest[span.partition]} now: ask again",
                )

    def _read(self, piece: Slice) -> tuple[DataFrame, WriteContext]:
        if self.plan.picked:
            raw, write_context = self._read_quarantine(piece)
        else:
            starts = {span.partition: span.start for span in piece.ranges}
            ends = {span.partition: span.until for span in piece.ranges}
            raw, write_context = (
                read_range(self.spark, self.settings, self.pipeline.source, starts, ends),
                self.write_context,
            )
        return transform(self.spark, decode(raw, self.pipeline.source), self.pipeline), write_context

    def _read_quarantine(self, piece: Slice) -> tuple[DataFrame, WriteContext]:
        """Records of one partition as they were set aside; read from Kafka again where not all was kept."""
        (span,), write_context = piece.ranges, self.write_context
        place = (write_context.stream, write_context.topic, piece.generation)
        chosen = choice_of(self.asked)
        records = quarantine.read_range(self.connection, place, span, chosen, self.plan.up_to_id)
        if piece.generation != write_context.generation:
            write_context = replace(write_context, generation=piece.generation, since_commit=NO_GENERATION)
        partial = [each.record_offset for each in records if each.partial]
        again = fetch_records(self.settings, write_context.topic, span.partition, partial) if partial else {}
        whole = [_completed(each, again.get(each.record_offset)) for each in records]
        found = [each for each in whole if each is not None]
        if len(found) < len(whole):
            self.left_out[UNREADABLE] += len(whole) - len(found)
        return kafka_rows(self.spark, span.partition, found), write_context

    def _told(self) -> dict[str, int]:
        """Of a dry run, which leaves no ledger: what its tasks said."""
        sums = dict.fromkeys(("records", *replays.COUNTED), 0)
        for span, outcome in self.outcomes:
            counts = asdict(outcome.counts)
            for name in replays.COUNTED:
                sums[name] += counts[name]
            sums["records"] += span.until - span.start - counts["gap"] - counts["unselected"]
        return sums

    def _corrects(self) -> bool:
        """Whether there can be rows of an older version."""
        return self.row.pipeline_version > 1

    def _may_have_kept_out(self, retracted: int, counts: dict[str, int]) -> bool:
        """Whether a record may be missing because of a row that is gone since, or whose version has fallen."""
        entities = any(table.kind is TableKind.ENTITY for table in self.pipeline.tables.values())
        return retracted > 0 or (entities and counts["written"] > 0)

    def _retract(self) -> int:
        """Take out, or count, what no record makes any more; returns how many rows, of all tries."""
        self._refuse_another_topic(self.slices)
        work = (self.connection, self.settings, self.pipeline, self.write_context, self.plan.ranges, self._spare())
        if self.asked.dry_run:
            return max(0, count_outdated(*work) - sum(outcome.rewritable for _, outcome in self.outcomes))
        retract_outdated(*work)
        return replays.read(self.connection, self.row.id).retracted_rows

    def _spare(self) -> Callable[[list[OutdatedRow]], list[OutdatedRow]]:
        """Leaves out rows whose record Kafka does not have any more: nobody knows what the new version makes of it."""
        if self.asked.dry_run:
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
                read = read_range(self.spark, self.settings, source, {at: begin}, {at: span.until})
                offsets = read.select("offset").toArrow()["offset"].to_numpy()
            gaps.add(span, offsets)
        self._refuse_another_topic(self.slices)
        return gaps


def _completed(kept: StoredRecord, again: Rejected | None) -> StoredRecord | None:
    """A record with all its bytes; None if nobody has them."""
    if not kept.partial:
        return kept
    if again is None:
        return None
    return StoredRecord(kept.id, kept.record_offset, again.timestamp_us, again.key, again.value, again.headers, None)


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
    """Records of one Kafka partition, in order, as Spark's Kafka source would give them: in one Spark partition."""
    rows = [
        {
            "key": each.key,
            "value": each.value,
            "partition": partition,
            "offset": each.record_offset,
            "timestamp": each.timestamp_us,
            "headers": _headers(each.headers),
        }
        for each in records
    ]
    return spark.createDataFrame(pa.Table.from_pylist(rows, _KAFKA)).coalesce(1)


def _headers(text: str | None) -> list[dict[str, Any]] | None:
    if text is None:
        return None
    return [{"key": k, "value": None if v is None else base64.b64decode(v)} for k, v in json.loads(text)]
