"""The Kafka topic as a stream of Spark."""

from __future__ import annotations

import json

from pyspark.sql import DataFrame, SparkSession

from tidemill.config import Settings
from tidemill.kafka import clients
from tidemill.spec.schema import Source


def read_range(
    spark: SparkSession,
    settings: Settings,
    source: Source,
    starts: dict[int, int],
    ends: dict[int, int],
    *,
    one_by_one: bool = False,
) -> DataFrame:
    """The topic's records from ``starts`` to before ``ends`` (partition -> offset), each partition read by one task.

    A consumer unpacks the records of a poll at once, those after the range included; ``one_by_one`` it does not.
    """
    positions = {
        name: json.dumps({source.topic: {str(partition): offset for partition, offset in offsets.items()}})
        for name, offsets in (("startingOffsets", starts), ("endingOffsets", ends))
    }
    return (
        spark.read.format("kafka")
        .options(**clients.source_options(settings))
        .option("assign", json.dumps({source.topic: sorted(starts)}))
        .options(**positions)
        .options(**({"kafka.max.poll.records": "1"} if one_by_one else {}))
        .load()
    )


def read_stream(
    spark: SparkSession, settings: Settings, source: Source, positions: dict[int, int], limit: int | None = None
) -> DataFrame:
    """The topic as a stream from ``positions`` on (partition -> next offset), in batches of ``limit`` records at most.

    Without a limit it is the pipeline's own.
    """
    starting = json.dumps({source.topic: {str(partition): offset for partition, offset in positions.items()}})
    return (
        spark.readStream.format("kafka")
        .options(**clients.stream_source_options(settings))
        .option("subscribe", source.topic)
        .option("startingOffsets", starting)
        .option("maxOffsetsPerTrigger", limit or source.max_records_per_batch)
        .load()
    )
