"""An audit: the records that Kafka still delivers, compared with those that the ledger counts."""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]  # not in its __all__

from tidemill.config import Account, Settings
from tidemill.errors import KafkaUnavailable, SourceError
from tidemill.kafka import clients
from tidemill.kafka.clients import READ_SECONDS
from tidemill.kafka.topics import offsets_at
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import session, translated

_MESSAGES = 10_000
_COMMITS = """
SELECT c.partition_id, c.id, c.from_offset, c.until_offset, c.until_offset - c.from_offset - c.gap_rows
FROM commits AS c LEFT JOIN topics AS g ON g.stream = c.stream AND g.topic = c.topic
WHERE c.stream = %s AND c.topic = %s AND c.replay_id IS NULL AND c.lost_rows = 0
    AND c.generation = COALESCE(g.generation, 1)
ORDER BY c.partition_id, c.from_offset
"""


@dataclass
class _Commit:
    id: int
    start: int
    until: int
    records: int
    """As the ledger counts them."""
    delivered: int = 0
    """As Kafka delivers them."""


@dataclass
class _Partition:
    """The commits of one partition, in order, whose records Kafka has not removed."""

    commits: list[_Commit] = field(default_factory=list)

    def count(self, offset: int) -> None:
        index = bisect.bisect_right(self.commits, offset, key=lambda commit: commit.start) - 1
        if index >= 0 and offset < self.commits[index].until:
            self.commits[index].delivered += 1


def count_records(settings: Settings, pipeline: Pipeline) -> list[str]:
    """Read what Kafka still has of a pipeline's topic, as far as it was committed, and count it commit by commit.

    It costs as much as reading the topic. Records of aborted transactions are skipped, as the stream does. A compacted
    topic may hold fewer records than it delivered at the time, never more.

    Returns:
        One sentence for each commit that differs.

    Raises:
        KafkaUnavailable: no broker answers, or no record arrives in time.
        SourceError: the topic cannot be read.
    """
    topic = pipeline.source.topic
    with session(settings, Account.READ) as connection, translated(), connection.cursor() as cursor:
        cursor.execute(_COMMITS, (pipeline.name, topic))
        rows = cursor.fetchall()
    partitions: dict[int, _Partition] = {}
    client = clients.admin(settings)
    earliest = offsets_at(client, topic, "earliest")
    for number, *commit in rows:
        if number in earliest and commit[1] >= earliest[number]:
            partitions.setdefault(number, _Partition()).commits.append(_Commit(*map(int, commit)))
    for number, offset in _offsets(settings, topic, partitions):
        partitions[number].count(offset)
    # Retention may have removed records during the audit, before they were counted.
    earliest = offsets_at(client, topic, "earliest")
    may_be_fewer = _is_compacted(settings, topic)
    return [
        f"partition {number}: commit {commit.id} counts {commit.records} records in offsets {commit.start} to"
        f" {commit.until}, Kafka delivers {commit.delivered}"
        for number, partition in sorted(partitions.items())
        for commit in partition.commits
        if commit.start >= earliest.get(number, 0)
        and (commit.delivered > commit.records or (commit.delivered < commit.records and not may_be_fewer))
    ]


def _offsets(settings: Settings, topic: str, partitions: dict[int, _Partition]) -> Iterator[tuple[int, int]]:
    """Partition and offset of each record that is delivered, from the first of the commits to the last."""
    # The last offset of a partition may be that of a transaction marker, which no consumer receives: the end of the
    # partition is recognised by an event.
    consumer = clients.consumer(settings, "verify", {"auto.offset.reset": "earliest", "enable.partition.eof": True})
    ends = {number: partition.commits[-1].until for number, partition in partitions.items()}
    try:
        consumer.assign([TopicPartition(topic, n, p.commits[0].start) for n, p in partitions.items()])
        last_arrival = time.monotonic()
        while ends:
            # consume() returns when it has that many records or when the time is over, not at the first record.
            messages = consumer.consume(_MESSAGES, timeout=0.2)
            if messages:
                last_arrival = time.monotonic()
            elif time.monotonic() - last_arrival > READ_SECONDS:
                raise KafkaUnavailable("TM-KAFKA-UNAVAILABLE", value=f"no record in {READ_SECONDS:g} s")
            for message in messages:
                number, offset, error = message.partition() or 0, message.offset() or 0, message.error()
                if error is None:
                    yield number, offset
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise SourceError("TM-KAFKA-READ-FAILED", value=error.str(), topic=topic)
                reached = offset if error else offset + 1
                if number in ends and reached >= ends[number]:
                    del ends[number]
                    consumer.incremental_unassign([TopicPartition(topic, number)])
    except KafkaException as error:
        raise SourceError("TM-KAFKA-READ-FAILED", value=error.args[0].str(), topic=topic) from error
    finally:
        consumer.close()


def _is_compacted(settings: Settings, topic: str) -> bool:
    client, resource = clients.admin(settings), ConfigResource(ResourceType.TOPIC, topic)
    try:
        configuration = client.describe_configs([resource])[resource].result(READ_SECONDS)
    except KafkaException as error:
        raise KafkaUnavailable("TM-KAFKA-UNAVAILABLE", value=error.args[0].str()) from error
    return "compact" in configuration["cleanup.policy"].value
