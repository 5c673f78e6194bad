"""Kafka topics: do they exist, how far do they reach, where does a new stream begin. Knows no Spark."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # not in its __all__

from tidemill.config import Settings
from tidemill.errors import KafkaUnavailable, SourceError
from tidemill.retry import Backoff
from tidemill.spec.schema import Source

_SECONDS = 15.0
_PAUSE_SECONDS = 0.1
MISSING = "topic does not exist"


def admin(settings: Settings) -> AdminClient:
    """A client for questions about topics and offsets."""
    # At librdkafka's 10 s, a broker that is back would be asked again that much later.
    return AdminClient(
        {"bootstrap.servers": settings.kafka_bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 1000}
    )


def partitions(client: AdminClient, topic: str, seconds: float = _SECONDS) -> list[int]:
    """The partitions of a topic, in order.

    Raises:
        SourceError: there is no such topic.
        KafkaUnavailable: no broker answers.
    """
    try:
        found = client.list_topics(timeout=seconds).topics
    except KafkaException as error:
        raise KafkaUnavailable(
            "no Kafka broker answers", value=error.args[0].str(), remedy="is it up? ./tidemill status"
        ) from error
    if topic not in found:
        raise SourceError(MISSING, value=topic, remedy="create it with ./tidemill apply")
    return sorted(found[topic].partitions)


def topic_id(client: AdminClient, topic: str, seconds: float = _SECONDS) -> str:
    """The identifier that Kafka gave this incarnation of a topic: one made again under the same name has another.

    Raises:
        SourceError: there is no such topic.
        KafkaUnavailable: no broker answers within ``seconds``.
    """
    future = client.describe_topics(TopicCollection([topic]), request_timeout=seconds)[topic]
    try:
        described = future.result(seconds)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise SourceError(MISSING, value=topic, remedy="create it with ./tidemill apply") from error
        raise _said(error) from error
    except TimeoutError as error:
        raise _silent(f"no answer in {seconds:g} s") from error
    return str(described.topic_id)


def create_topic(client: AdminClient, source: Source) -> bool:
    """Create a pipeline's topic if it is missing; returns whether it was."""
    try:
        partitions(client, source.topic)
    except SourceError as error:
        if error.what != MISSING:
            raise
    else:
        return False
    _answer(client.create_topics([NewTopic(source.topic, source.partitions, 1)])[source.topic], _SECONDS)
    return True


def _answer(future: Any, seconds: float) -> Any:
    try:
        return future.result(seconds)
    except KafkaException as error:
        raise _said(error) from error
    except TimeoutError as error:
        raise _silent(f"no answer in {seconds:g} s") from error


_REFUSALS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.POLICY_VIOLATION,
}
"""Answers that asking again does not change."""

_PASSING = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
}
"""Answers of a cluster whose partitions have just changed their leader, as after each start of a broker. Kafka's own
client asks again by itself, librdkafka's does not."""


def _passes(error: BaseException) -> bool:
    cause = error.__cause__
    return (
        isinstance(error, KafkaUnavailable) and isinstance(cause, KafkaException) and cause.args[0].code() in _PASSING
    )


def _said(error: KafkaException) -> SourceError:
    if error.args[0].code() in _REFUSALS:
        return SourceError("Kafka refuses", value=error.args[0].str(), remedy="see the broker's log")
    return _silent(error.args[0].str())


def _silent(reason: str) -> KafkaUnavailable:
    return KafkaUnavailable("Kafka does not answer", value=reason, remedy="is it up? ./tidemill status")


def offsets_at(client: AdminClient, topic: str, where: str, seconds: float = _SECONDS) -> dict[int, int]:
    """Partition -> offset at ``earliest``, ``latest`` or an ISO time (UTC if it names no zone).

    Raises:
        SourceError: ``where`` is none of these, or the topic is missing.
        KafkaUnavailable: no broker answers within ``seconds``, or a partition has no leader for as long.
    """
    spec, deadline = _offset_spec(where), time.monotonic() + seconds
    asked = {TopicPartition(topic, number): spec for number in partitions(client, topic, seconds)}

    def attempt() -> dict[int, int]:
        left = max(_PAUSE_SECONDS, deadline - time.monotonic())
        answers = client.list_offsets(asked, request_timeout=left)
        return {place.partition: _answer(future, left).offset for place, future in answers.items()}

    until_deadline = Backoff(_PAUSE_SECONDS, _PAUSE_SECONDS, deadline_seconds=deadline - time.monotonic())
    found = until_deadline.run(attempt, retry_if=_passes)
    if all(offset >= 0 for offset in found.values()):
        return found
    # No record is as new as the time asked for: begin at the end.
    ends = offsets_at(client, topic, "latest", seconds)
    return {partition: offset if offset >= 0 else ends[partition] for partition, offset in found.items()}


def _offset_spec(where: str) -> Any:
    if where == "earliest":
        return OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    if where == "latest":
        return OffsetSpec.latest()  # type: ignore[no-untyped-call]
    try:
        moment = datetime.fromisoformat(where)
    except ValueError:
        raise SourceError(
            "source.start is not understood", value=where, remedy="earliest, latest or an ISO time"
        ) from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return OffsetSpec.for_timestamp(int(aware.timestamp() * 1000))
