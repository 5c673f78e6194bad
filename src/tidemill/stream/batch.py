"""A micro-batch in the driver: run its tasks, and collect what became of each Kafka partition.

Runs in the driver; the tasks themselves are :mod:`tidemill.stream.task`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields

import pyarrow as pa
from pyspark.sql import DataFrame, Row

from tidemill.errors import StreamError
from tidemill.store.write.ledger_rows import Counts
from tidemill.store.write.transaction import write_batch
from tidemill.stream.spark_internals import find_shuffle
from tidemill.stream.task import OUTCOME_DDL, MicroBatch, PartitionOutcome, empty_range, write_partition


def run_batch(rows: DataFrame, batch: MicroBatch) -> dict[int, PartitionOutcome]:
    """Commit a micro-batch, each Kafka partition by the task that reads it.

    Args:
        rows: what :func:`tidemill.stream.plan.transform.transform` returns, one Spark partition per Kafka partition.
        batch: with the ranges that are not empty.

    Returns:
        Kafka partition -> what became of its records.

    Raises:
        StreamError: the plan has a shuffle, which would scatter a Kafka partition over tasks; the first of them would
            commit for all.
    """
    if batch.batch_id == 0 and (shuffle := find_shuffle(rows)):
        raise StreamError("TM-STREAM-SHUFFLE", value=shuffle)
    collected = rows.mapInArrow(_task(batch), OUTCOME_DDL).collect()
    outcomes = {row.partition: _outcome(row) for row in collected}
    for partition, span in batch.ranges.items():
        if partition not in outcomes:  # nothing but gaps: no task received a record that names the partition
            counts = write_batch(
                batch.settings, batch.pipeline, batch.write_context, empty_range(batch, span), dry_run=batch.dry_run
            )
            outcomes[partition] = PartitionOutcome(counts, {})
    return outcomes


def _task(batch: MicroBatch) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    # A closure has a copy of its module's globals in every task; the function it calls is imported, and has its own.
    return lambda batches: write_partition(batches, batch)


def _outcome(row: Row) -> PartitionOutcome:
    counts = Counts(**{each.name: row[each.name] for each in fields(Counts)})
    latencies = {int(bucket): records for bucket, records in json.loads(row.latencies).items()}
    return PartitionOutcome(counts, json.loads(row.warnings), row.rewritable, row.newest_us, latencies)
