"""The feed against a real broker: what it played is there once, in order, whatever happened meanwhile."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
import sys

import pytest
from confluent_kafka import TopicPartition

from tidemill.config import Settings
from tidemill.demo.chaos import Chaos
from tidemill.demo.feed import Feed, FeedOptions, play
from tidemill.devstack.stack import Stack
from tidemill.errors import SourceError
from tidemill.kafka import clients, topics
from tidemill.spec.schema import Source

PARTITIONS = 3
SMALL = FeedOptions(limit=500, chaos=Chaos(duplicates=0.1, disorder=100, malformed=0.05))
LARGE = FeedOptions(limit=60_000, chaos=SMALL.chaos)
_number = itertools.count(1)


@pytest.fixture
def topic(kafka: Settings) -> str:
    """A new, empty topic."""
    name = f"feed-{next(_number)}"
    source = Source(topic=name, partitions=PARTITIONS, schema="id BIGINT")
    assert topics.create_topic(clients.admin(kafka), source)
    return name


def silent(played: int, total: int) -> None:
    """Progress that nobody looks at."""


def content(settings: Settings, topic: str) -> list[list[tuple[bytes, bytes]]]:
    """Key and value of every record in the topic, per partition in offset order."""
    ends = topics.offsets_at(clients.admin(settings), topic, "latest")
    consumer = clients.consumer(settings, "test")
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
    found: list[list[tuple[bytes, bytes]]] = [[] for _ in ends]
    while sum(map(len, found)) < sum(ends.values()):
        messages = consumer.consume(10_000, timeout=1.0)
        for message in messages:
            assert message.error() is None
            found[message.partition()].append((message.key(), message.value()))
    consumer.close()
    return found


@functools.cache
def sequence(options: FeedOptions) -> list[list[tuple[bytes, bytes]]]:
    """What the topic must hold in the end."""
    feed = Feed(options, PARTITIONS)
    expected: list[list[tuple[bytes, bytes]]] = [[] for _ in range(PARTITIONS)]
    for key, value, partition, _ in feed.messages(feed.remaining([0] * PARTITIONS)):
        expected[partition].append((key, value))
    return expected


def test_it_plays_everything_once(kafka: Settings, topic: str) -> None:
    """The topic holds the sequence, byte for byte; playing again adds nothing, whatever the speed."""
    told: list[tuple[int, int]] = []
    played = play(kafka, topic, SMALL, lambda *now: told.append(now))
    expected = sequence(SMALL)
    assert content(kafka, topic) == expected
    assert played == sum(map(len, expected))
    assert told[-1] == (played, played)
    again = FeedOptions(speed=60.0, limit=SMALL.limit, chaos=SMALL.chaos)
    assert play(kafka, topic, again, silent) == 0
    assert content(kafka, topic) == expected


def test_it_goes_on_after_sigkill(kafka: Settings, topic: str) -> None:
    """A feed killed in the middle is completed by the next one: no record twice, none missing."""
    program = f"""
import os, signal
from tidemill.config import load
from tidemill.demo.feed import Chaos, FeedOptions, play

def die_in_the_middle(played, total):
    if played:
        os.kill(os.getpid(), signal.SIGKILL)

play(load(), {topic!r}, {LARGE!r}, die_in_the_middle)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, timeout=60, env={**os.environ, **kafka.environment()}
    )
    assert ended.returncode == -signal.SIGKILL
    expected = sequence(LARGE)
    there = sum(topics.offsets_at(clients.admin(kafka), topic, "latest").values())
    assert 0 < there < sum(map(len, expected))
    rest = play(kafka, topic, LARGE, silent)
    assert content(kafka, topic) == expected
    assert rest <= sum(map(len, expected)) - there


def test_progress_can_end_it(kafka: Settings, topic: str) -> None:
    """What progress raises ends the feed; the next call completes it."""

    def stop(played: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        play(kafka, topic, LARGE, stop)
    play(kafka, topic, LARGE, silent)
    assert content(kafka, topic) == sequence(LARGE)


def test_it_waits_for_a_broker_that_stands_still(kafka: Settings, stack: Stack, topic: str) -> None:
    """A broker that stops answering in the middle is waited for, and progress goes on being reported."""
    broker = stack.children["kafka"].pid
    assert broker is not None
    reports = itertools.count()

    def halt_a_while(played: int, total: int) -> None:
        report = next(reports)
        if report == 0:
            os.kill(broker, signal.SIGSTOP)
        elif report == 5:
            os.kill(broker, signal.SIGCONT)

    try:
        play(kafka, topic, LARGE, halt_a_while)
    finally:
        os.kill(broker, signal.SIGCONT)
    assert next(reports) > 5
    assert content(kafka, topic) == sequence(LARGE)


def test_other_options_do_not_continue_a_topic(kafka: Settings, topic: str) -> None:
    """A topic begun with other options is refused, both named, and nothing is added to it."""
    play(kafka, topic, SMALL, silent)
    other = FeedOptions(limit=400, chaos=SMALL.chaos)
    with pytest.raises(SourceError, match=r"limit=400.*limit=500"):
        play(kafka, topic, other, silent)
    assert content(kafka, topic) == sequence(SMALL)


def test_a_topic_of_another_producer_is_refused(kafka: Settings, topic: str) -> None:
    """Records that the feed did not write are never taken for its own."""
    producer = clients.producer(kafka)
    producer.produce(topic, b"{}", partition=1)
    assert producer.flush(60) == 0
    with pytest.raises(SourceError, match="another producer"):
        play(kafka, topic, SMALL, silent)


def test_a_missing_topic_is_not_created(kafka: Settings) -> None:
    """Without its topic the feed says how to create it, and does not create it itself."""
    for _ in range(2):
        with pytest.raises(SourceError, match=r"\./tidemill apply"):
            play(kafka, "nowhere", SMALL, silent)
