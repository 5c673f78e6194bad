"""Single records read from Kafka once more, with their original bytes: for the quarantine."""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Iterable, Iterator

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from tidemill.config import Settings
from tidemill.kafka import clients
from tidemill.kafka.clients import REQUEST_SECONDS
from tidemill.store.write.ledger_rows import Rejected

_NEAR = 500
"""Records that are skipped rather than sought: as a rule they are part of the same fetch."""
_QUEUED_KB = 4_096
"""What the consumer reads ahead, in KiB; at 64 MiB, its default, it would hold more than a batch may have."""


def headers_as_json(headers: Iterable[tuple[str, bytes | None]] | None) -> str | None:
    """A record's headers as the quarantine keeps them, a list of name and base64; None without any."""
    if not headers:
        return None
    return json.dumps([[name, None if v is None else base64.b64encode(v).decode()] for name, v in headers])


def fetch_records(settings: Settings, topic: str, partition: int, offsets: Iterable[int]) -> Iterator[Rejected]:
    """The records at these offsets of one partition, in rising order, each without a reason.

    They are read one by one, as the caller asks for them. Records that Kafka no longer has are left out. So are all
    that a broker does not deliver in time: the quarantine has their coordinates, and a stream must not stop for bytes
    that only a person reads.
    """
    consumer = clients.consumer(settings, "quarantine", {"queued.max.messages.kbytes": _QUEUED_KB})
    try:
        yield from _fetch(consumer, TopicPartition(topic, partition), sorted(offsets))
    except KafkaException:
        return
    finally:
        consumer.close()


def _fetch(consumer: Consumer, place: TopicPartition, offsets: list[int]) -> Iterator[Rejected]:
    """The records at these offsets; where the next one is near, what lies between is read and skipped."""
    position: int | None = None
    requested = deque(offsets)
    while requested:
        if position is None or not position <= requested[0] < position + _NEAR:
            consumer.assign([TopicPartition(place.topic, place.partition, requested[0])])
        message = consumer.poll(REQUEST_SECONDS)
        if message is None:
            return
        if message.error() is not None:  # retention has removed it
            requested.popleft()
            position = None
            continue
        at = message.offset() or 0
        position = at + 1
        while requested and requested[0] < at:
            requested.popleft()
        if requested and requested[0] == at:
            requested.popleft()
            yield _rejected(message)


def _rejected(message: Message) -> Rejected:
    kind, milliseconds = message.timestamp()
    key, value = message.key(), message.value()
    return Rejected(
        message.offset() or 0,
        "",
        milliseconds * 1000 if kind else None,
        key.encode() if isinstance(key, str) else key,
        value.encode() if isinstance(value, str) else value,
        headers_as_json(message.headers()),  # type: ignore[arg-type]  # the stubs allow text, the wire has bytes
        None if value is None else len(value),
    )
