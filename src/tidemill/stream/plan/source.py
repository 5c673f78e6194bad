"""The Kafka topic as a stream of Spark."""

from __future__ import annotations

import json
from typing import TypeVar

from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.sql.streaming.readwriter import DataStreamReader

from tidemill.config import Settings
from tidemill.spec.schema import Source

_Reader = TypeVar("_Reader", DataFrameReader, DataStreamReader)


def read_range(
    spark: SparkSession, settings: Settings, source: Source, starts: dict[int, int], ends: dict[int, int]
) -> DataFrame:
    """The topic's records from ``starts`` to before ``ends`` (partition -> offset), each partition read by one task."""
    places = {
        name: json.dumps({source.topic: {str(partition): offset for partition, offset in offsets.items()}})
        for name, offsets in (("startingOffsets", starts), ("endingOffsets", ends))
    }
    return (
        _reader(spark.read.format("kafka"), settings)
        .option("assign", json.dumps({source.topic: sorted(starts)}))
        .options(**places)
        .load()
    )


_OUTAGE = {
    # How long Kafka may be away before a query fails, and its driver takes over the wait (ingest.driver). Within that
    # time the clients find a broker that is back by themselves: they try to connect every second at most.
    #
    # A task that polls cannot be interrupted, and holds its core against a stop and against the next query. Spark's
    # 120 s, Kafka's 60 s for a consumer's position and for a question of the driver (which Spark asks three times)
    # would make minutes of it; a fetch that is only slow takes seconds.
    "kafkaConsumer.pollTimeoutMs": "20000",
    "kafka.default.api.timeout.ms": "15000",
    "kafka.request.timeout.ms": "10000",  # not more than the line above
    # A host that has vanished, and with it all answers, is tried again that often: at Kafka's 30 s a broker that is
    # back would be found that much later.
    "kafka.socket.connection.setup.timeout.ms": "3000",
    "kafka.socket.connection.setup.timeout.max.ms": "5000",
}


def read_stream(
    spark: SparkSession, settings: Settings, source: Source, positions: dict[int, int], limit: int | None = None
) -> DataFrame:
    """The topic as a stream from ``positions`` on (partition -> next offset), in batches of ``limit`` records at most.

    Without a limit it is the pipeline's own.
    """
    starting = json.dumps({source.topic: {str(partition): offset for partition, offset in positions.items()}})
    return (
        _reader(spark.readStream.format("kafka"), settings)
        .option("subscribe", source.topic)
        .option("startingOffsets", starting)
        .option("maxOffsetsPerTrigger", limit or source.max_records_per_batch)
        .options(**_OUTAGE)
        .load()
    )


def _reader(reader: _Reader, settings: Settings) -> _Reader:
    return (
        reader.option("kafka.bootstrap.servers", settings.kafka_bootstrap)
        .option("kafka.isolation.level", "read_committed")
        # For the quarantine, which keeps a record as it came.
        .option("includeHeaders", "true")
        # At Kafka's 500 ms every task waits about half a second at the end of its range.
        .option("kafka.fetch.max.wait.ms", "5")
        # At Kafka's 500 records a poll, Spark's bookkeeping around each poll costs more than the records.
        .option("kafka.max.poll.records", "20000")
    )
