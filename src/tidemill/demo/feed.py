"""The feed: writes the flights into a Kafka topic, and continues where it stopped.

The feed keeps no state. Its sequence per partition is fixed, so the end offset of a partition is the number of its
records that were written. The idempotent producer keeps the order within a partition and leaves no gap, so this is
exact after a SIGKILL too. Two things follow: only one feed at a time writes to a topic, and a topic is always continued
with the options it was begun with; only the speed may change. Every ``MARK_EVERY``-th record of a partition carries the
options in a header, and a feed that continues checks the newest of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tidemill.config import Settings
from tidemill.demo.chaos import Chaos
from tidemill.demo.sequence import Clock, Feed, FeedOptions, Message
from tidemill.errors import SourceError
from tidemill.kafka import clients, topics

__all__ = ["Chaos", "Clock", "Feed", "FeedOptions", "Progress", "play"]

MARK = "feed"
MARK_EVERY = 256
REPORT_SECONDS = 0.25

Progress = Callable[[int, int], None]
"""Called with the number of records in the topic and in the feed, about every ``REPORT_SECONDS`` and at the end."""


def play(
    settings: Settings, topic: str, options: FeedOptions, progress: Progress, *, clock: Clock | None = None
) -> int:
    """Write the rest of the feed, and return its number of records once Kafka has acknowledged all of them.

    While no broker answers, the feed waits. An exception raised by ``progress`` ends the feed and is raised from here:
    another thread stops the feed that way. The next call continues.

    Raises:
        SetupError: the flights are not installed.
        SourceError: the topic is missing, or holds records that are not the beginning of this feed; or no broker
            answers at the start, or Kafka rejects a record for good.
    """
    clock = clock or Clock()
    feed = Feed(options, len(topics.partitions(clients.admin(settings), topic)))
    entries = feed.remaining(_ends(settings, topic, feed))
    reported = -math.inf

    def report(acknowledged: int) -> None:
        nonlocal reported
        if clock.now() - reported >= REPORT_SECONDS:
            reported = clock.now()
            progress(len(feed) - len(entries) + acknowledged, len(feed))

    sender = _Sender(settings, topic, options.mark(feed.partitions), report)
    for chunk in feed.chunks(entries, clock):
        sender.send(feed.messages(chunk))
    sender.drain()
    progress(len(feed), len(feed))
    return len(entries)


class _Sender:
    """A producer that waits while its queue is full, and raises what Kafka rejected."""

    def __init__(self, settings: Settings, topic: str, mark: str, report: Callable[[int], None]) -> None:
        self._topic = topic
        self._headers: dict[str, str | bytes | None] = {MARK: mark}
        self._report = report
        self._rejected: KafkaError | None = None
        self._sent = 0
        self._producer = clients.producer(
            settings,
            {
                # No time-out: a message that is dropped would leave a gap in the sequence.
                "message.timeout.ms": 0,
                "compression.type": "lz4",
                "linger.ms": 5,
                "queue.buffering.max.messages": 100_000,
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
            },
        )

    def send(self, messages: Iterator[Message]) -> None:
        """Hand messages to the producer, waiting while its queue is full."""
        produce, topic = self._producer.produce, self._topic
        for key, value, partition, position in messages:
            headers = None if position % MARK_EVERY else self._headers
            while True:
                try:
                    produce(topic, value, key, partition, headers=headers)
                    break
                except BufferError:
                    self._poll(REPORT_SECONDS)
            self._sent += 1
        self._poll(0.0)

    def drain(self) -> None:
        """Wait until every message is acknowledged."""
        while len(self._producer):
            # A poll would wait for events, and acknowledgements are none here; flush waits for the queue.
            self._producer.flush(REPORT_SECONDS)
            self._poll(0.0)

    def _poll(self, wait_seconds: float) -> None:
        self._producer.poll(wait_seconds)
        if self._rejected is not None:
            raise SourceError("TM-DEMO-FEED-REJECTED", value=self._rejected.str())
        self._report(self._sent - len(self._producer))

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        self._rejected = self._rejected or error


def _ends(settings: Settings, topic: str, feed: Feed) -> list[int]:
    """The end offset of each partition, after a check that the topic holds the beginning of this feed.

    It is read after the sequence is made, which takes a second: by then no message of a killed feed is in flight.

    Raises:
        SourceError: the topic holds other records, or no broker answers.
    """
    client = clients.admin(settings)
    try:
        starts, ends = topics.offsets_at(client, topic, "earliest"), topics.offsets_at(client, topic, "latest")
    except KafkaException as error:
        raise SourceError("TM-DEMO-NO-BROKER", value=error.args[0].str()) from error
    own = feed.options.mark(feed.partitions)
    other = next((mark for mark in _marks(settings, topic, starts, ends) if mark != own), None)
    lengths = np.bincount(feed.partition, minlength=feed.partitions)
    if other is None and any(end > lengths[partition] for partition, end in ends.items()):
        other = "more records than this feed has"
    if other is not None:
        raise SourceError("TM-DEMO-OTHER-FEED", value=other, topic=topic, options=own)
    return [ends[partition] for partition in range(feed.partitions)]


def _marks(settings: Settings, topic: str, starts: dict[int, int], ends: dict[int, int]) -> list[str]:
    """The newest mark of each partition that still holds one."""
    newest = {partition: (end - 1) // MARK_EVERY * MARK_EVERY for partition, end in ends.items() if end > 0}
    positions = [TopicPartition(topic, at, offset) for at, offset in newest.items() if offset >= starts[at]]
    # One record of each partition is read: none is fetched in advance.
    consumer = clients.consumer(settings, "feed", {"fetch.wait.max.ms": 10, "queued.min.messages": 1})
    marks: dict[int, str] = {}
    try:
        consumer.assign(positions)
        while len(marks) < len(positions):
            message = consumer.poll(clients.READ_SECONDS)
            if message is None or message.error() is not None:
                raise SourceError("TM-DEMO-TOPIC-UNREADABLE", value=topic)
            mark = dict(message.headers() or []).get(MARK)
            text = mark.decode() if isinstance(mark, bytes) else "records of another producer"
            # The first record of each partition is the one at the assigned offset; later ones are ignored.
            marks.setdefault(int(message.partition() or 0), text)
    finally:
        consumer.close()
    return list(marks.values())
