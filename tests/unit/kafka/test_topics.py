"""Answers about topics that a broker gives for a moment only, which a test cannot bring about at will."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tidemill.errors import KafkaUnavailable, SourceError
from tidemill.kafka import topics


class Cluster:
    """One topic of one partition, whose end it returns after some errors."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    def list_topics(self, timeout: float) -> Any:
        """The one topic."""
        return SimpleNamespace(topics={"tides": SimpleNamespace(partitions={0: None})})

    def list_offsets(self, request: dict[TopicPartition, Any], request_timeout: float) -> dict[TopicPartition, Any]:
        """The next error, or the end of each partition."""
        future: Future[Any] = Future()
        if self.errors:
            future.set_exception(KafkaException(KafkaError(self.errors.pop(0))))
        else:
            future.set_result(SimpleNamespace(offset=7))
        return dict.fromkeys(request, future)


@pytest.mark.parametrize("code", sorted(topics._LEADER_ELECTION))
def test_a_partition_between_two_leaders_is_asked_again(code: int) -> None:
    """A broker that has just started answers so for some milliseconds."""
    assert topics.offsets_at(Cluster(code, code), "tides", "latest") == {0: 7}  # type: ignore[arg-type]


def test_a_partition_without_a_leader_is_given_up_in_time() -> None:
    """The error's value is what the broker answered."""
    cluster = Cluster(*[KafkaError.LEADER_NOT_AVAILABLE] * 50)
    with pytest.raises(KafkaUnavailable, match="eader") as raised:
        topics.offsets_at(cluster, "tides", "latest", seconds=0.3)  # type: ignore[arg-type]
    assert raised.value.code == "TM-KAFKA-UNAVAILABLE"
    assert 40 < len(cluster.errors) < 50


def test_an_answer_that_does_not_change_is_raised_at_once() -> None:
    """The request is not sent again."""
    cluster = Cluster(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(SourceError) as raised:
        topics.offsets_at(cluster, "tides", "latest")  # type: ignore[arg-type]
    assert raised.value.code == "TM-KAFKA-REFUSED"


def test_a_missing_topic_and_a_wrong_position_have_codes() -> None:
    """Callers compare the code of the first, which they expect."""
    with pytest.raises(SourceError) as raised:
        topics.offsets_at(Cluster(), "ebbs", "latest")  # type: ignore[arg-type]
    assert raised.value.code == topics.TOPIC_MISSING
    with pytest.raises(SourceError) as raised:
        topics.offsets_at(Cluster(), "tides", "noon")  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.value) == ("TM-KAFKA-START-INVALID", "noon")
