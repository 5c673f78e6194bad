"""When the oldest record that waits arrived, read from Kafka at the position of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tidemill.config import Settings
from tidemill.kafka import clients, topics
from tidemill.kafka.oldest_waiting import OldestWaiting
from tidemill.spec.schema import Source
from tidemill.testing import wait_until

TOPIC = "oldest_waiting"
FIRST_MS = 1_700_000_000_000


@pytest.fixture
def waiting(kafka: Settings) -> Iterator[OldestWaiting]:
    """Of a topic whose partition 0 has three records a second apart, and partition 1 a large one."""
    topics.create_topic(clients.admin(kafka), Source(topic=TOPIC, partitions=2, schema="id BIGINT"))
    producer = clients.producer(kafka)
    for n in range(3):
        producer.produce(TOPIC, b"{}", partition=0, timestamp=FIRST_MS + 1000 * n)
    producer.produce(TOPIC, bytes(500_000), partition=1, timestamp=FIRST_MS - 5)
    assert producer.flush(60) == 0
    found = OldestWaiting(kafka, TOPIC)
    yield found
    found.close()


def test_the_record_at_a_position_names_its_age(waiting: OldestWaiting) -> None:
    """Whatever its size, and wherever the position moves; of an offset that Kafka does not have there is none."""
    large = (FIRST_MS - 5) * 1000
    for position in (1, 2, 0):
        expected = {0: (FIRST_MS + 1000 * position) * 1000, 1: large}
        look_up = partial(waiting.arrived_us, {0: position, 1: 0}, [0, 1])
        wait_until(lambda: look_up() == expected, 60, "both are delivered")  # noqa: B023 -- called at once
    assert waiting.arrived_us({0: 77}, [0]) == {}
    assert waiting.arrived_us({}, [0]) == {}
