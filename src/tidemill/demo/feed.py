"""The feed: plays the flights into a Kafka topic, and goes on where it stopped.

The feed keeps no state. Its sequence per partition is fixed, so the end offset of a partition says how much
of it is there. The idempotent producer keeps the order within a partition and leaves no holes, so this is
exact after a SIGKILL too. Two things follow: a topic belongs to one feed at a time, and a topic once begun is
continued with the same options; only the speed may change. Every ``MARK_EVERY``-th record of a partition
carries the options in a header; continuing checks the newest of them.
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
"""Called with the records in the topic and in all, about every ``REPORT_SECONDS`` and at the end."""


def play(
    settings: Settings, topic: str, options: FeedOptions, progress: Progress, *, clock: Clock | None = None
) -> int:
    """Play the rest of the feed and return how many records that were, all of them acknowledged by Kafka.

    A broker that goes away meanwhile is waited for. Whatever ``progress`` raises ends the feed and is raised
    from here: that is the way to stop it from another thread. The next call goes on.

    Raises:
        SetupError: the flights are not installed.
        SourceError: the topic is missing, or holds something else than the beginning of this feed; or Kafka
            cannot be reached at the start, or refuses for good.
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
    """A producer that waits where it must and says what went wrong."""

    def __init__(self, settings: Settings, topic: str, mark: str, report: Callable[[int], None]) -> None:
        self._topic = topic
        self._headers: dict[str, str | bytes | None] = {MARK: mark}
        self._report = report
        self._refused: KafkaError | None = None
        self._sent = 0
        self._producer = clients.producer(
            settings,
            {
                # No time-out: a message given up would be a hole in the sequence.
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
        if self._refused is not None:
            raise SourceError("Kafka refuses the feed", value=self._refused.str(), remedy="start the feed again")
        self._report(self._sent - len(self._producer))

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        self._refused = self._refused or error


def _ends(settings: Settings, topic: str, feed: Feed) -> list[int]:
    """The end offset of each partition, once it is sure that what lies there is the beginning of this feed.

    Asked for after the sequence is made, which takes a second: nothing of a killed feed is on its way any more.

    Raises:
        SourceError: it is not, or no broker answers.
    """
    client = clients.admin(settings)
    try:
        starts, ends = topics.offsets_at(client, topic, "earliest"), topics.offsets_at(client, topic, "latest")
    except KafkaException as error:
        raise SourceError(
            "no Kafka broker answers", value=error.args[0].str(), remedy="start the feed again"
        ) from error
    ours = feed.options.mark(feed.partitions)
    theirs = next((mark for mark in _marks(settings, topic, starts, ends) if mark != ours), None)
    lengths = np.bincount(feed.partition, minlength=feed.partitions)
    if theirs is None and any(end > lengths[partition] for partition, end in ends.items()):
        theirs = "more records than this feed has"
    if theirs is not None:
        raise SourceError(
            f"topic {topic} was not begun by this feed ({ours})",
            value=theirs,
            remedy="play with the options it was begun with, or delete the topic and run ./tidemill apply",
        )
    return [ends[partition] for partition in range(feed.partitions)]


def _marks(settings: Settings, topic: str, starts: dict[int, int], ends: dict[int, int]) -> list[str]:
    """The newest mark of each partition that still holds one."""
    newest = {partition: (end - 1) // MARK_EVERY * MARK_EVERY for partition, end in ends.items() if end > 0}
    wanted = [TopicPartition(topic, at, offset) for at, offset in newest.items() if offset >= starts[at]]
    # One record of each partition is read: none is fetched in advance.
    consumer = clients.consumer(settings, "feed", {"fetch.wait.max.ms": 10, "queued.min.messages": 1})
    marks: dict[int, str] = {}
    try:
        consumer.assign(wanted)
        while len(marks) < len(wanted):
            message = consumer.poll(clients.READ_SECONDS)
            if message is None or message.error() is not None:
                raise SourceError("a topic cannot be read back", value=topic, remedy="look at the log of Kafka")
            mark = dict(message.headers() or []).get(MARK)
            text = mark.decode() if isinstance(mark, bytes) else "records of another producer"
            # The first record of a partition is the one asked for; what comes after it is not looked at.
            marks.setdefault(int(message.partition() or 0), text)
    finally:
        consumer.close()
    return list(marks.values())
