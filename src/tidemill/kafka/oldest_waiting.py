"""The oldest records that wait: Kafka's timestamps of the records at the positions of a stream."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tidemill.config import Settings
from tidemill.kafka import clients

_LONGEST_SECONDS = 5.0
"""What is not delivered by then is looked up the next time."""
_FETCH_BYTES = 65_536
"""Of each partition, beyond the one record that is asked for."""


class OldestWaiting:
    """Looks up when the record at a position arrived. Used by one thread; a timestamp is read once for each position.

    Args:
        settings: where Kafka is.
        topic: of the stream.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings, self._topic = settings, topic
        self._consumer: Consumer | None = None
        self._found: dict[int, tuple[int, int]] = {}
        """Partition -> a position, and the timestamp of the record there."""

    def arrived_us(self, positions: Mapping[int, int], partitions: Collection[int]) -> dict[int, int]:
        """Partition -> Kafka's timestamp of the first record at or after its position, µs since 1970.

        Args:
            positions: partition -> next offset.
            partitions: those to look up, in each of which a record waits.

        Returns:
            Without the partitions whose record was not delivered in time, or has no timestamp.
        """
        missing = {p: positions[p] for p in partitions if p in positions and self._known(p, positions[p]) is None}
        if missing:
            self._look_up(missing)
        known = {partition: self._known(partition, positions.get(partition)) for partition in partitions}
        return {partition: us for partition, us in known.items() if us is not None}

    def close(self) -> None:
        """Close the connection to Kafka."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _known(self, partition: int, position: int | None) -> int | None:
        at, us = self._found.get(partition, (None, None))
        return us if at == position else None

    def _look_up(self, positions: Mapping[int, int]) -> None:
        if self._consumer is None:
            limits = {"fetch.message.max.bytes": _FETCH_BYTES, "queued.max.messages.kbytes": _FETCH_BYTES // 1024}
            self._consumer = clients.consumer(self._settings, "oldest-waiting", limits)
        try:
            self._poll(self._consumer, dict(positions))
            self._consumer.unassign()
        except KafkaException:  # the next probe looks them up again
            self.close()

    def _poll(self, consumer: Consumer, positions: dict[int, int]) -> None:
        consumer.assign([TopicPartition(self._topic, partition, at) for partition, at in positions.items()])
        deadline = time.monotonic() + _LONGEST_SECONDS
        while positions and (left := deadline - time.monotonic()) > 0:
            message = consumer.poll(left)
            if message is None:
                return
            partition = message.partition()
            if partition not in positions:  # a further record of a partition that is done
                continue
            at = positions.pop(partition)
            kind, milliseconds = message.timestamp()
            if message.error() is None and kind and milliseconds >= 0:  # an error: retention has removed the record
                self._found[partition] = at, milliseconds * 1000
