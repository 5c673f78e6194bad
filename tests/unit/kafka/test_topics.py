"""Kafka's answers about topics that only pass: the moment in which a broker gives them cannot be had at will."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tidemill.errors import KafkaUnavailable, SourceError
from tidemill.kafka import topics


class Cluster:
    """One topic of one partition, whose end it tells after it has answered with some errors."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    def list_topics(self, timeout: float) -> Any:
        """The one topic."""
        return SimpleNamespace(topics={"tides": SimpleNamespace(partitions={0: None})})

    def list_offsets(self, asked: dict[TopicPartition, Any], request_timeout: float) -> dict[TopicPartition, Any]:
        """The next error, or the end of each partition."""
        future: Future[Any] = Future()
        if self.errors:
            future.set_exception(KafkaException(KafkaError(self.errors.pop(0))))
        else:
            future.set_result(SimpleNamespace(offset=7))
        return dict.fromkeys(asked, future)


@pytest.mark.parametrize("code", sorted(topics._PASSING))
def test_a_partition_between_two_leaders_is_asked_again(code: int) -> None:
    """A broker that has just started says so for some milliseconds."""
    assert topics.offsets_at(Cluster(code, code), "tides", "latest") == {0: 7}  # type: ignore[arg-type]


def test_a_partition_without_a_leader_is_given_up_in_time() -> None:
    """And the sentence says what the broker said."""
    cluster = Cluster(*[KafkaError.LEADER_NOT_AVAILABLE] * 50)
    with pytest.raises(KafkaUnavailable, match="eader"):
        topics.offsets_at(cluster, "tides", "latest", seconds=0.3)  # type: ignore[arg-type]
    assert 40 < len(cluster.errors) < 50


def test_what_asking_again_does_not_change_is_said_at_once() -> None:
    """A refusal is none of these."""
    cluster = Cluster(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(SourceError, match="Kafka refuses"):
        topics.offsets_at(cluster, "tides", "latest")  # type: ignore[arg-type]
