"""Counting again: the records that Kafka still delivers, against what the ledger says it delivered."""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]  # not in its __all__

from tidemill.config import Account, Settings
from tidemill.errors import SourceError
from tidemill.kafka.topics import admin, offsets_at
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import session, translated

_SILENCE_SECONDS = 30.0
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
    found: int = 0


@dataclass
class _Partition:
    """The commits of one partition, in order, that Kafka still holds wholly."""

    commits: list[_Commit] = field(default_factory=list)

    def count(self, offset: int) -> None:
        place = bisect.bisect_right(self.commits, offset, key=lambda commit: commit.start) - 1
        if place >= 0 and offset < self.commits[place].until:
            self.commits[place].found += 1


def count_records(settings: Settings, pipeline: Pipeline) -> list[str]:
    """Read what Kafka still has of a pipeline's topic, as far as it was committed, and count it commit by commit.

    Costs as much as reading the topic. Transactions that were aborted are passed over, as the stream does. A compacted
    topic may hold fewer records than it delivered, never more.

    Returns:
        One sentence per commit that differs.

    Raises:
        SourceError: no broker answers, or it falls silent.
    """
    topic = pipeline.source.topic
    with session(settings, Account.READ) as connection, translated(), connection.cursor() as cursor:
        cursor.execute(_COMMITS, (pipeline.name, topic))
        rows = cursor.fetchall()
    partitions: dict[int, _Partition] = {}
    earliest = offsets_at(admin(settings), topic, "earliest")
    for number, *commit in rows:
        if number in earliest and commit[1] >= earliest[number]:
            partitions.setdefault(number, _Partition()).commits.append(_Commit(*map(int, commit)))
    for number, offset in _offsets(settings, topic, partitions):
        partitions[number].count(offset)
    # What retention removed while we read was not there to be counted.
    earliest = offsets_at(admin(settings), topic, "earliest")
    may_be_fewer = _is_compacted(settings, topic)
    return [
        f"partition {number}: commit {commit.id} counts {commit.records} records in offsets {commit.start} to"
        f" {commit.until}, Kafka delivers {commit.found}"
        for number, partition in sorted(partitions.items())
        for commit in partition.commits
        if commit.start >= earliest.get(number, 0)
        and (commit.found > commit.records or (commit.found < commit.records and not may_be_fewer))
    ]


def _offsets(settings: Settings, topic: str, partitions: dict[int, _Partition]) -> Iterator[tuple[int, int]]:
    """Partition and offset of each record that is delivered, from the first of the commits to the last."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "group.id": "tidemill-verify",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            # The end is told by its offset, which lies after transaction markers that are delivered to nobody.
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    ends = {number: partition.commits[-1].until for number, partition in partitions.items()}
    try:
        consumer.assign([TopicPartition(topic, n, p.commits[0].start) for n, p in partitions.items()])
        heard = time.monotonic()
        while ends:
            # It waits for that many records or that long, and not for the first one.
            messages = consumer.consume(_MESSAGES, timeout=0.2)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_SECONDS:
                raise SourceError("Kafka falls silent", value=f"{_SILENCE_SECONDS:g} s", remedy="is it up?")
            for message in messages:
                number, offset, error = message.partition() or 0, message.offset() or 0, message.error()
                if error is None:
                    yield number, offset
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise SourceError("Kafka cannot be read", value=error.str())
                reached = offset if error else offset + 1
                if number in ends and reached >= ends[number]:
                    del ends[number]
                    consumer.incremental_unassign([TopicPartition(topic, number)])
    except KafkaException as error:
        raise SourceError("Kafka cannot be read", value=error.args[0].str()) from error
    finally:
        consumer.close()


def _is_compacted(settings: Settings, topic: str) -> bool:
    client, resource = admin(settings), ConfigResource(ResourceType.TOPIC, topic)
    try:
        found: Any = client.describe_configs([resource])[resource].result(_SILENCE_SECONDS)
    except KafkaException as error:
        raise SourceError("Kafka does not answer", value=error.args[0].str()) from error
    return "compact" in found["cleanup.policy"].value
