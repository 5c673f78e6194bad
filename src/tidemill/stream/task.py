"""A task of a micro-batch: how one Kafka partition's records become commits.

Runs in Spark's Python workers, one process for each core; the driver's side is :mod:`tidemill.stream.batch`.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill import logs
from tidemill.config import Settings
from tidemill.errors import StreamError
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
from tidemill.stream.plan.decode import TOMBSTONE_KEY
from tidemill.stream.plan.transform import FAILED, WARNED, column_of

OUTCOME_DDL = (
    "partition INT, commit_id BIGINT, written BIGINT, duplicate BIGINT, stale BIGINT, filtered BIGINT,"
    " quarantined BIGINT, gap BIGINT, lost BIGINT, unselected BIGINT, warned BIGINT, warnings STRING,"
    " rewritable BIGINT, newest_us BIGINT, latencies STRING"
)
"""Columns of the row that a task returns: the partition and its :class:`PartitionOutcome`."""


@dataclass(frozen=True)
class MicroBatch:
    """What every task of a micro-batch needs to know. Travels to the workers; holds no secret."""

    settings: Settings
    pipeline: Pipeline
    write_context: WriteContext
    batch_id: int
    ranges: dict[int, Range]
    """Kafka partition -> its offsets; ranges without offsets are left out."""
    sparse: bool = False
    """Whether a replay selects single records of the ranges, and not all."""
    dry_run: bool = False

    def log_fields(self) -> dict[str, object]:
        """Fields of what is logged about it."""
        context = self.write_context
        by = {"epoch": context.epoch} if context.replay_id is None else {"replay": context.replay_id}
        return {"stream": context.stream, **by, "batch": self.batch_id}


@dataclass(frozen=True)
class PartitionOutcome:
    """What became of one Kafka partition of a micro-batch."""

    counts: Counts
    warnings: dict[str, int]
    """Check -> records that it warns about."""
    rewritable: int = 0
    """Rows of older pipeline versions that a dry run would rewrite."""
    newest_us: int | None = None
    """Newest Kafka timestamp committed, µs since 1970; None if no record was."""
    latencies: dict[int, int] = field(default_factory=dict)
    """From Kafka timestamp to COMMIT, as :mod:`tidemill.stream.metrics` counts; of a replay none."""

    def plus(self, other: PartitionOutcome) -> PartitionOutcome:
        """Two commits of one partition and batch added up."""
        return PartitionOutcome(
            self.counts.plus(other.counts),
            dict(Counter(self.warnings) + Counter(other.warnings)),
            self.rewritable + other.rewritable,
            max((us for us in (self.newest_us, other.newest_us) if us is not None), default=None),
            dict(Counter(self.latencies) + Counter(other.latencies)),
        )


_last_commit: list[WriteContext | int] = []
"""The last batch of which this process committed a partition: between two of one batch there is a failpoint."""


def write_partition(batches: Iterable[pa.RecordBatch], batch: MicroBatch) -> Iterator[pa.RecordBatch]:
    """Commit the records of one Kafka partition.

    Args:
        batches: of rows as :func:`tidemill.stream.plan.transform.transform` makes them, ordered by offset.
        batch: which micro-batch they belong to.

    Yields:
        One row of :data:`OUTCOME_DDL`; none if there was no record.

    Raises:
        StreamError: the task received other records than those of one partition of the batch.
        TidemillError: the database or a check rejected them.
    """
    logs.configure()
    with logs.fields(**batch.log_fields()):
        if _last_commit == [batch.write_context, batch.batch_id]:
            reach("between commits")
        span, outcome = _commit_all(batches, batch)
        if span is None or outcome is None:
            return
        _last_commit[:] = [batch.write_context, batch.batch_id]
    row = {
        "partition": span.partition,
        **asdict(outcome.counts),
        "warnings": json.dumps(outcome.warnings),
        "rewritable": outcome.rewritable,
        "newest_us": outcome.newest_us,
        "latencies": json.dumps(outcome.latencies),
    }
    yield pa.RecordBatch.from_pylist([row], schema=_outcome_schema())


def _outcome_schema() -> pa.Schema:
    types = {"INT": pa.int32(), "BIGINT": pa.int64(), "STRING": pa.string()}
    return pa.schema([(name, types[kind]) for name, kind in (part.split() for part in OUTCOME_DDL.split(","))])


def _commit_all(batches: Iterable[pa.RecordBatch], batch: MicroBatch) -> tuple[Range | None, PartitionOutcome | None]:
    """Commit a task's records, one transaction for each of Spark's Arrow batches, which bounds memory and locks.

    An Arrow batch is held back until the next one has arrived: only the last may close the task's range.
    """
    span: Range | None = None
    outcome: PartitionOutcome | None = None
    held: pa.RecordBatch | None = None
    start = 0
    for records in batches:
        if not records.num_rows:
            continue
        if span is None:
            span = _range_of(records, batch)
            start, counts = _resume(batch, span)
            outcome = None if counts is None else PartitionOutcome(counts, {})
        fresh = records.filter(pc.greater_equal(records.column("_offset"), start)) if start > span.start else records
        if not fresh.num_rows:
            continue
        if held is not None:
            until = int(fresh.column("_offset")[0].as_py())
            outcome = _commit(held, Range(span.partition, start, until), batch, outcome)
            start = until
        held = fresh
    if span is not None and start < span.until:
        # If no records are left, those that an earlier attempt read of the range have been removed from Kafka since.
        outcome = _commit(held, Range(span.partition, start, span.until), batch, outcome)
    return span, outcome


def _range_of(records: pa.RecordBatch, batch: MicroBatch) -> Range:
    partition = int(records.column("_partition")[0].as_py())
    if partition not in batch.ranges:
        raise StreamError("TM-STREAM-UNKNOWN-PARTITION", value=partition)
    return batch.ranges[partition]


def _resume(batch: MicroBatch, span: Range) -> tuple[int, Counts | None]:
    """Where an earlier attempt of the task got to, and what it counted."""
    if batch.dry_run:
        return span.start, None
    return ledger_rows.resume(worker_connection(batch.settings), batch.write_context, batch.batch_id, span)


def _commit(
    held: pa.RecordBatch | None, span: Range, batch: MicroBatch, before: PartitionOutcome | None
) -> PartitionOutcome:
    warnings: dict[str, int] = {}
    if held is None:
        classified = empty_range(batch, span)
    else:
        classified, warnings = classify(pa.Table.from_batches([held]), span, batch)

    def fetch(offsets: Iterable[int]) -> Iterator[Rejected]:
        return fetch_records(batch.settings, batch.write_context.topic, span.partition, offsets)

    context = batch.write_context
    counts = write_batch(batch.settings, batch.pipeline, context, classified, read_raw=fetch, dry_run=batch.dry_run)
    rewritable = 0
    if batch.dry_run and held is not None:
        rewritable = count_rewritable(batch.settings, batch.pipeline, context, span.partition)
    waited: dict[int, int] = {}
    if held is not None and context.replay_id is None:
        waited = latencies(held.column("_timestamp"), time.time_ns() // 1000)
    outcome = PartitionOutcome(counts, warnings, rewritable, classified.newest_us, waited)
    return outcome if before is None else before.plus(outcome)


def empty_range(batch: MicroBatch, span: Range) -> Batch:
    """What is written for a range from which no record arrived."""
    missing = span.until - span.start
    return Batch(batch.batch_id, span, gap=0 if batch.sparse else missing, unselected=missing if batch.sparse else 0)


def classify(records: pa.Table, span: Range, batch: MicroBatch) -> tuple[Batch, dict[str, int]]:
    """Divide records of one Kafka partition into rows, deletions, filtered and rejected ones.

    Returns:
        What is to be written, and how many records each check warns about.

    Raises:
        StreamError: the task received more than one Kafka partition, or more records than the range has offsets; or a
            check that ends the stream is not met.
    """
    _verify_partition(records, span)
    _verify_checks(records, span, batch.pipeline)
    is_rejected = pc.is_valid(records["_error"])
    is_used = pc.fill_null(is_rejected, False)
    rows = {}
    for name, table in batch.pipeline.tables.items():
        kept = pc.and_not(records[column_of(name, KEPT)], is_rejected)
        of_table = records.filter(kept)
        is_used = pc.or_(is_used, kept)
        columns = {column: of_table[column_of(name, column)] for column in table.columns}
        rows[name] = pa.table({**columns, "_offset": of_table["_offset"]})
    deleted, tombstones = _deleted(records, is_rejected, batch.pipeline)
    warned = _warned(records, is_rejected, batch.pipeline)
    used = int(pc.sum(is_used).as_py() or 0) + tombstones
    missing = span.until - span.start - records.num_rows
    is_replay = batch.write_context.replay_id is not None
    classified = Batch(
        batch.batch_id,
        span,
        rows=rows,
        deleted=deleted,
        filtered=records.num_rows - used,
        rejected=RejectedRecords(records.filter(is_rejected)),
        gap=0 if batch.sparse else missing,
        unselected=missing if batch.sparse else 0,
        delivered=frozenset(records["_offset"].to_pylist()) if is_replay else frozenset(),
        newest_us=pc.max(records["_timestamp"]).cast(pa.int64()).as_py(),
        warned=_count_any(list(warned.values())),
    )
    return classified, {name: n for name, column in warned.items() if (n := pc.sum(column).as_py() or 0)}


def _warned(records: pa.Table, is_rejected: pa.ChunkedArray, pipeline: Pipeline) -> dict[str, pa.ChunkedArray]:
    """Check that warns -> for each record, whether it does not meet the check."""
    columns = {check.name: column_of(WARNED, check.name) for check in pipeline.checks}
    return {
        name: pc.and_not(records[column], is_rejected)
        for name, column in columns.items()
        if column in records.column_names
    }


def _count_any(columns: list[pa.ChunkedArray]) -> int:
    """How many records are true in at least one of the columns."""
    if not columns:
        return 0
    any_of_them = columns[0]
    for column in columns[1:]:
        any_of_them = pc.or_(any_of_them, column)
    return int(pc.sum(any_of_them).as_py() or 0)


def _verify_partition(records: pa.Table, span: Range) -> None:
    bounds = pc.min_max(records["_partition"]).as_py()
    if bounds["min"] != bounds["max"] or bounds["min"] != span.partition:
        raise StreamError("TM-STREAM-MIXED-PARTITIONS", value=f"{bounds['min']} to {bounds['max']}")
    is_multiplied = pc.count_distinct(records["_offset"]).as_py() != records.num_rows
    if is_multiplied or records.num_rows > span.until - span.start:
        raise StreamError("TM-STREAM-RECORD-MULTIPLIED", value=f"{records.num_rows} in {span}")


def _verify_checks(records: pa.Table, span: Range, pipeline: Pipeline) -> None:
    for check in pipeline.checks:
        name = column_of(FAILED, check.name)
        if name in records.column_names and pc.any(records[name]).as_py():
            offset = records["_offset"].filter(records[name])[0].as_py()
            raise StreamError(
                "TM-STREAM-CHECK-NOT-MET",
                value=f"partition {span.partition}, offset {offset}: expected {check.expect}",
                check=check.name,
            )


def _deleted(records: pa.Table, is_rejected: pa.ChunkedArray, pipeline: Pipeline) -> tuple[dict[str, pa.Table], int]:
    """The keys that tombstones delete, by table, and how many tombstones there are."""
    tables = deletes_from(pipeline)
    if not tables:
        return {}, 0
    key = pipeline.tables[tables[0]].key
    is_tombstone = pc.and_not(pc.is_valid(records[column_of(TOMBSTONE_KEY, key[0])]), is_rejected)
    tombstones = records.filter(is_tombstone)
    columns = {column: tombstones[column_of(TOMBSTONE_KEY, column)] for column in key}
    keys = pa.table({**columns, "_offset": tombstones["_offset"]})
    return (dict.fromkeys(tables, keys) if keys.num_rows else {}), keys.num_rows


class RejectedRecords(Sequence[Rejected]):
    """The rejected records of a task. They become objects when they are asked for, some bytes of them at a time."""

    _COLUMNS = ("_offset", "_error", "_timestamp", "_key", "_value", "_headers", "_value_bytes")

    def __init__(self, records: pa.Table, *, slice_bytes: int = 2**20) -> None:
        self._slice_bytes = slice_bytes
        selected = records.select(self._COLUMNS)
        self._records = selected.set_column(2, "_timestamp", selected["_timestamp"].cast(pa.int64()))

    def __len__(self) -> int:
        return int(self._records.num_rows)

    @overload
    def __getitem__(self, index: int) -> Rejected: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rejected]: ...
    def __getitem__(self, index: int | slice) -> Rejected | Sequence[Rejected]:
        at = range(len(self))[index]
        return _rejected(self._records.slice(at, 1).to_pylist()[0]) if isinstance(at, int) else [self[i] for i in at]

    def __iter__(self) -> Iterator[Rejected]:
        lengths = (pc.binary_length(self._records[name]) for name in ("_key", "_value", "_headers"))
        sizes = sum(pc.fill_null(length, 0).to_numpy() for length in lengths)
        slices = np.cumsum(sizes) // self._slice_bytes
        starts = [0, *(np.flatnonzero(np.diff(slices)) + 1).tolist(), len(self)] if len(self) else []
        for start, until in itertools.pairwise(starts):
            yield from map(_rejected, self._records.slice(start, until - start).to_pylist())


def _rejected(row: dict[str, Any]) -> Rejected:
    # Spark's JSON has bytes in base64 already, and leaves a NULL out.
    headers = [[each["key"], each.get("value")] for each in json.loads(row["_headers"] or "[]")]
    return Rejected(
        row["_offset"],
        row["_error"],
        row["_timestamp"],
        row["_key"],
        row["_value"],
        json.dumps(headers) if headers else None,
        row["_value_bytes"],
    )
