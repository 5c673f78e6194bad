"""One micro-batch: which offsets it holds, and how each task turns its Kafka partition into commits."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Row

from tidemill.config import Settings
from tidemill.errors import SourceError, StreamError
from tidemill.failpoints import reach
from tidemill.kafka.fetch_records import fetch_records
from tidemill.spec.checks.transform import KEPT
from tidemill.spec.schema import Pipeline
from tidemill.spec.tombstones import deletes_from
from tidemill.store.connection import worker_connection
from tidemill.store.write import ledger_rows
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.ledger_rows import Counts, Rejected
from tidemill.store.write.retract import count_rewritable
from tidemill.store.write.transaction import Batch, write_batch
from tidemill.stream.metrics import latencies
from tidemill.stream.plan.decode import GONE
from tidemill.stream.plan.transform import FAILED, WARNED, column_of

_RESULT = (
    "partition INT, commit_id BIGINT, written BIGINT, duplicate BIGINT, stale BIGINT, filtered BIGINT,"
    " quarantined BIGINT, gap BIGINT, lost BIGINT, unselected BIGINT, warned BIGINT, warnings STRING,"
    " rewritable BIGINT, newest_us BIGINT, latencies STRING"
)


@dataclass(frozen=True)
class Job:
    """What every task of a batch needs to know. Travels to the workers; holds no secret."""

    settings: Settings
    pipeline: Pipeline
    write_context: WriteContext
    batch_id: int
    ranges: dict[int, Range]
    sparse: bool = False
    """Whether a replay asked for single records of the ranges, and not for all."""
    dry_run: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one Kafka partition of a batch."""

    counts: Counts
    warnings: dict[str, int]
    """Check -> records that it warns about."""
    rewritable: int = 0
    """Rows of older pipeline versions that a dry run would rewrite."""
    newest_us: int | None = None
    """Newest Kafka timestamp committed, µs since 1970; None if no record was."""
    latencies: dict[int, int] = field(default_factory=dict)
    """From Kafka timestamp to COMMIT, as :mod:`tidemill.stream.metrics` counts; of a replay none."""

    def plus(self, other: Outcome) -> Outcome:
        """Two commits of one partition and batch added up."""
        return Outcome(
            self.counts.plus(other.counts),
            dict(Counter(self.warnings) + Counter(other.warnings)),
            self.rewritable + other.rewritable,
            max((us for us in (self.newest_us, other.newest_us) if us is not None), default=None),
            dict(Counter(self.latencies) + Counter(other.latencies)),
        )


def end_offsets(checkpoint: Path, batch_id: int, topic: str) -> dict[int, int]:
    """Where a batch ends: partition -> the offset after its last. Spark writes it down before the batch runs.

    Raises:
        SourceError: the checkpoint's offset log does not look as Spark 4 writes it.
    """
    path = checkpoint / "offsets" / str(batch_id)
    try:
        ends = json.loads(path.read_text().splitlines()[2])[topic]
    except (OSError, IndexError, KeyError, json.JSONDecodeError) as error:
        raise SourceError(
            "the batch's offsets cannot be read", value=f"{path}: {error!r}", remedy="is this Spark 4.2?"
        ) from error
    return {int(partition): int(offset) for partition, offset in ends.items()}


def run_batch(rows: DataFrame, job: Job) -> dict[int, Outcome]:
    """Commit a micro-batch, each Kafka partition by the task that reads it.

    Args:
        rows: what :func:`tidemill.stream.plan.transform.transform` returns, one Spark partition per Kafka partition.
        job: with the ranges that are not empty.

    Returns:
        Kafka partition -> what became of its records.
    """
    if job.batch_id == 0:
        _refuse_shuffle(rows)
    found = rows.mapInArrow(_writer(job), _RESULT).collect()
    outcomes = {row.partition: _outcome(row) for row in found}
    for partition, span in job.ranges.items():
        if partition not in outcomes:  # nothing but gaps: no task saw a record that names the partition
            counts = write_batch(
                job.settings, job.pipeline, job.write_context, _nothing(job, span), dry_run=job.dry_run
            )
            outcomes[partition] = Outcome(counts, {})
    return outcomes


def _outcome(row: Row) -> Outcome:
    counts = Counts(**{each.name: row[each.name] for each in fields(Counts)})
    waited = {int(bucket): records for bucket, records in json.loads(row.latencies).items()}
    return Outcome(counts, json.loads(row.warnings), row.rewritable, row.newest_us, waited)


def _nothing(job: Job, span: Range) -> Batch:
    """A range without a record."""
    missing = span.until - span.start
    return Batch(job.batch_id, span, gap=0 if job.sparse else missing, unselected=missing if job.sparse else 0)


_SHUFFLE = re.compile(r"(?<!Broadcast)Exchange ")


def _refuse_shuffle(rows: DataFrame) -> None:
    """A shuffle would scatter a Kafka partition over tasks, and the first of them would commit for all.

    Raises:
        StreamError: the plan has one.
    """
    plan = rows._jdf.queryExecution().executedPlan().toString()
    if _SHUFFLE.search(plan):
        raise StreamError(
            "the transform makes Spark shuffle",
            value=_SHUFFLE.split(plan)[1][:120],
            remedy="join dimensions on equality only",
        )


_batch_here: list[WriteContext | int] = []
"""The last batch that this process committed a partition of: between two of one batch there is a failpoint."""


# Functions of the module, and not of the closure below, whose globals are a copy in every task.
def _reach_between(job: Job) -> None:
    if _batch_here == [job.write_context, job.batch_id]:
        reach("between commits")


def _note_commit(job: Job) -> None:
    _batch_here[:] = [job.write_context, job.batch_id]


def _writer(job: Job) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        _reach_between(job)
        span, outcome = _commit_all(batches, job)
        if span is None or outcome is None:
            return
        _note_commit(job)
        told = {
            "partition": span.partition,
            **asdict(outcome.counts),
            "warnings": json.dumps(outcome.warnings),
            "rewritable": outcome.rewritable,
            "newest_us": outcome.newest_us,
            "latencies": json.dumps(outcome.latencies),
        }
        yield pa.RecordBatch.from_pylist([told], schema=_result_schema())

    return write


def _result_schema() -> pa.Schema:
    kinds = {"INT": pa.int32(), "BIGINT": pa.int64(), "STRING": pa.string()}
    return pa.schema([(name, kinds[kind]) for name, kind in (part.split() for part in _RESULT.split(","))])


def _commit_all(batches: Iterable[pa.RecordBatch], job: Job) -> tuple[Range | None, Outcome | None]:
    """Commit a task's records, one transaction for each of Spark's Arrow batches, which bounds memory and locks.

    An Arrow batch is held back until the next one is there: only the last may close the task's range.
    """
    span: Range | None = None
    outcome: Outcome | None = None
    held: pa.RecordBatch | None = None
    start = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        if span is None:
            span = _range_of(batch, job)
            start, counts = _resume(job, span)
            outcome = None if counts is None else Outcome(counts, {})
        fresh = batch.filter(pc.greater_equal(batch.column("_offset"), start)) if start > span.start else batch
        if not fresh.num_rows:
            continue
        if held is not None:
            until = int(fresh.column("_offset")[0].as_py())
            outcome = _commit(held, Range(span.partition, start, until), job, outcome)
            start = until
        held = fresh
    if span is not None and start < span.until:
        # Without records left, what an earlier attempt saw of the range is gone from Kafka meanwhile.
        outcome = _commit(held, Range(span.partition, start, span.until), job, outcome)
    return span, outcome


def _range_of(batch: pa.RecordBatch, job: Job) -> Range:
    partition = int(batch.column("_partition")[0].as_py())
    if partition not in job.ranges:
        raise StreamError("a task holds records of a Kafka partition that the batch has not", value=partition)
    return job.ranges[partition]


def _resume(job: Job, span: Range) -> tuple[int, Counts | None]:
    if job.dry_run:
        return span.start, None
    return ledger_rows.resume(worker_connection(job.settings), job.write_context, job.batch_id, span)


def _commit(held: pa.RecordBatch | None, span: Range, job: Job, before: Outcome | None) -> Outcome:
    warnings: dict[str, int] = {}
    if held is None:
        batch = _nothing(job, span)
    else:
        batch, warnings = settle(pa.Table.from_batches([held]), span, job)

    def raw(offsets: Iterable[int]) -> dict[int, Rejected]:
        return fetch_records(job.settings, job.write_context.topic, span.partition, offsets)

    counts = write_batch(job.settings, job.pipeline, job.write_context, batch, read_raw=raw, dry_run=job.dry_run)
    rewritable = 0
    if job.dry_run and held is not None:
        rewritable = count_rewritable(job.settings, job.pipeline, job.write_context, span.partition)
    waited: dict[int, int] = {}
    if held is not None and job.write_context.replay_id is None:
        waited = latencies(held.column("_timestamp"), time.time_ns() // 1000)
    outcome = Outcome(counts, warnings, rewritable, batch.newest_us, waited)
    return outcome if before is None else before.plus(outcome)


def settle(records: pa.Table, span: Range, job: Job) -> tuple[Batch, dict[str, int]]:
    """Sort records of one Kafka partition into rows, deletions, filtered and rejected.

    Returns:
        The batch, and how many records each check warns about.

    Raises:
        StreamError: the task holds more than one Kafka partition, or more records than the range has offsets; or a
            check that ends the stream is not met.
    """
    _refuse_strangers(records, span)
    _refuse_failed(records, span, job.pipeline)
    rejected = pc.is_valid(records["_error"])
    taken = pc.fill_null(rejected, False)
    rows = {}
    for name, table in job.pipeline.tables.items():
        kept = pc.and_not(records[column_of(name, KEPT)], rejected)
        found = records.filter(kept)
        taken = pc.or_(taken, kept)
        rows[name] = pa.table({**{c: found[column_of(name, c)] for c in table.columns}, "_offset": found["_offset"]})
    deleted, tombstones = _deleted(records, rejected, job.pipeline)
    bad = records.filter(rejected)
    names = [c.name for c in job.pipeline.checks if column_of(WARNED, c.name) in records.column_names]
    warned = [pc.and_not(records[column_of(WARNED, name)], rejected) for name in names]
    warnings = {name: n for name, column in zip(names, warned, strict=True) if (n := pc.sum(column).as_py() or 0)}
    any_warned = 0
    for column in warned:
        any_warned = column if isinstance(any_warned, int) else pc.or_(any_warned, column)
    wanted = int(pc.sum(taken).as_py() or 0) + tombstones
    missing = span.until - span.start - records.num_rows
    batch = Batch(
        job.batch_id,
        span,
        rows=rows,
        deleted=deleted,
        filtered=records.num_rows - wanted,
        rejected=tuple(_rejected(bad)),
        gap=0 if job.sparse else missing,
        unselected=missing if job.sparse else 0,
        delivered=frozenset(records["_offset"].to_pylist()) if job.write_context.replay_id is not None else frozenset(),
        newest_us=pc.max(records["_timestamp"]).cast(pa.int64()).as_py(),
        warned=0 if isinstance(any_warned, int) else int(pc.sum(any_warned).as_py() or 0),
    )
    return batch, warnings


def _refuse_strangers(records: pa.Table, span: Range) -> None:
    bounds = pc.min_max(records["_partition"]).as_py()
    if bounds["min"] != bounds["max"] or bounds["min"] != span.partition:
        raise StreamError(
            "a task holds records of several Kafka partitions, or of one that the batch has not",
            value=f"{bounds['min']} to {bounds['max']}",
            remedy="the plan must have no shuffle: report it with the transform",
        )
    if pc.count_distinct(records["_offset"]).as_py() != records.num_rows:
        raise StreamError(
            "a record makes several rows", value=f"{records.num_rows} in {span}", remedy="does a join multiply them?"
        )
    if records.num_rows > span.until - span.start:
        raise StreamError(
            "a task holds more records than Kafka has offsets",
            value=f"{records.num_rows} in {span}",
            remedy="does a join multiply them?",
        )


def _refuse_failed(records: pa.Table, span: Range, pipeline: Pipeline) -> None:
    for check in pipeline.checks:
        name = column_of(FAILED, check.name)
        if name in records.column_names and pc.any(records[name]).as_py():
            offset = records["_offset"].filter(records[name])[0].as_py()
            raise StreamError(
                f"check {check.name} is not met, and it is one that ends the stream",
                value=f"partition {span.partition}, offset {offset}: expected {check.expect}",
                remedy="mend the feed, or declare otherwise: quarantine",
            )


def _deleted(records: pa.Table, rejected: pa.ChunkedArray, pipeline: Pipeline) -> tuple[dict[str, pa.Table], int]:
    """The keys that tombstones delete, by table, and how many tombstones there are."""
    tables = deletes_from(pipeline)
    if not tables:
        return {}, 0
    key = pipeline.tables[tables[0]].key
    named = pc.and_not(pc.is_valid(records[column_of(GONE, key[0])]), rejected)
    found = records.filter(named)
    keys = pa.table({**{column: found[column_of(GONE, column)] for column in key}, "_offset": found["_offset"]})
    return (dict.fromkeys(tables, keys) if keys.num_rows else {}), keys.num_rows


def _rejected(bad: pa.Table) -> Iterator[Rejected]:
    columns = ("_offset", "_error", "_timestamp", "_key", "_value", "_headers", "_value_bytes")
    found = bad.select(columns)
    found = found.set_column(2, "_timestamp", found["_timestamp"].cast(pa.int64()))
    for row in found.to_pylist():
        # Spark's JSON has bytes in base64 already, and leaves a NULL out.
        headers = [[each["key"], each.get("value")] for each in json.loads(row["_headers"] or "[]")]
        yield Rejected(
            row["_offset"],
            row["_error"],
            row["_timestamp"],
            row["_key"],
            row["_value"],
            json.dumps(headers) if headers else None,
            row["_value_bytes"],
        )
