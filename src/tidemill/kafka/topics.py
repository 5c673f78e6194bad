"""Topics: whether they exist, which partitions and offsets they have, and creating them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # not in its __all__

from tidemill.errors import KafkaUnavailable, SourceError
from tidemill.kafka.clients import REQUEST_SECONDS, RETRY_SECONDS
from tidemill.retry import Backoff
from tidemill.spec.schema import Source

TOPIC_MISSING = "TM-KAFKA-TOPIC-MISSING"
"""Code of the error for a topic that does not exist, for callers that expect it."""

_FINAL = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.POLICY_VIOLATION,
}
"""Answers that do not change when the request is sent again."""

_LEADER_ELECTION = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
}
"""Answers of a cluster whose partitions have just changed their leader, as after each start of a broker. Kafka's Java
client sends the request again by itself; librdkafka does not."""


def partitions(client: AdminClient, topic: str, seconds: float = REQUEST_SECONDS) -> list[int]:
    """The partitions of a topic, in order.

    Raises:
        SourceError: the topic does not exist.
        KafkaUnavailable: no broker answers within ``seconds``.
    """
    try:
        topics = client.list_topics(timeout=seconds).topics
    except KafkaException as error:
        raise KafkaUnavailable("TM-KAFKA-UNAVAILABLE", value=error.args[0].str()) from error
    if topic not in topics:
        raise SourceError("TM-KAFKA-TOPIC-MISSING", topic=topic)
    return sorted(topics[topic].partitions)


def topic_id(client: AdminClient, topic: str, seconds: float = REQUEST_SECONDS) -> str:
    """The identifier that Kafka gave to this topic. A topic that is recreated under the same name gets another one.

    Raises:
        SourceError: the topic does not exist.
        KafkaUnavailable: no broker answers within ``seconds``.
    """
    future = client.describe_topics(TopicCollection([topic]), request_timeout=seconds)[topic]
    try:
        described = _result(future, seconds)
    except KafkaUnavailable as error:
        if _kafka_code(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise SourceError("TM-KAFKA-TOPIC-MISSING", topic=topic) from error
        raise
    return str(described.topic_id)


def create_topic(client: AdminClient, source: Source) -> bool:
    """Create the topic of a pipeline if it does not exist; returns whether it was created.

    Raises:
        SourceError: Kafka refused to create it.
        KafkaUnavailable: no broker answers.
    """
    try:
        partitions(client, source.topic)
    except SourceError as error:
        if error.code != TOPIC_MISSING:
            raise
    else:
        return False
    _result(client.create_topics([NewTopic(source.topic, source.partitions, 1)])[source.topic], REQUEST_SECONDS)
    return True


def offsets_at(client: AdminClient, topic: str, position: str, seconds: float = REQUEST_SECONDS) -> dict[int, int]:
    """Partition -> offset at a position.

    Args:
        client: of the cluster that has the topic.
        topic: its name.
        position: ``earliest``, ``latest`` or an ISO 8601 time (UTC if it names no zone). If no record is as new as
            that time, it is the end of the partition.
        seconds: how long Kafka may take.

    Raises:
        SourceError: the position is none of these, or the topic does not exist.
        KafkaUnavailable: no broker answers in time, or a partition has no leader for as long.
    """
    spec, deadline = _offset_spec(position), time.monotonic() + seconds
    request = {TopicPartition(topic, number): spec for number in partitions(client, topic, seconds)}

    def attempt() -> dict[int, int]:
        left = max(RETRY_SECONDS, deadline - time.monotonic())
        futures = client.list_offsets(request, request_timeout=left)
        return {at.partition: _result(future, left).offset for at, future in futures.items()}

    until_deadline = Backoff(RETRY_SECONDS, RETRY_SECONDS, deadline_seconds=deadline - time.monotonic())
    offsets = until_deadline.run(attempt, retry_if=lambda error: _kafka_code(error) in _LEADER_ELECTION)
    if all(offset >= 0 for offset in offsets.values()):
        return offsets
    ends = offsets_at(client, topic, "latest", seconds)
    return {partition: offset if offset >= 0 else ends[partition] for partition, offset in offsets.items()}


def _offset_spec(position: str) -> Any:
    if position == "earliest":
        return OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    if position == "latest":
        return OffsetSpec.latest()  # type: ignore[no-untyped-call]
    try:
        moment = datetime.fromisoformat(position)
    except ValueError:
        raise SourceError("TM-KAFKA-START-INVALID", value=position) from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return OffsetSpec.for_timestamp(int(aware.timestamp() * 1000))


def _result(future: Any, seconds: float) -> Any:
    try:
        return future.result(seconds)
    except KafkaException as error:
        if error.args[0].code() in _FINAL:
            raise SourceError("TM-KAFKA-REFUSED", value=error.args[0].str()) from error
        raise KafkaUnavailable("TM-KAFKA-UNAVAILABLE", value=error.args[0].str()) from error
    except TimeoutError as error:
        raise KafkaUnavailable("TM-KAFKA-UNAVAILABLE", value=f"no answer in {seconds:g} s") from error


def _kafka_code(error: BaseException) -> object:
    """Kafka's code of what an error was made from; None if it was a time-out."""
    return error.__cause__.args[0].code() if isinstance(error.__cause__, KafkaException) else None
