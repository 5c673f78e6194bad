"""Single records read from Kafka again, as they came: for the quarantine. Knows no Spark."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from tidemill.config import Settings
from tidemill.store.write.ledger_rows import Rejected

_SECONDS = 15.0


def headers_as_json(headers: Iterable[tuple[str, bytes | None]] | None) -> str | None:
    """A record's headers as the quarantine keeps them; None without any."""
    if not headers:
        return None
    return json.dumps([[name, None if v is None else base64.b64encode(v).decode()] for name, v in headers])


def read_raw(settings: Settings, topic: str, partition: int, offsets: Iterable[int]) -> dict[int, Rejected]:
    """The records at these offsets of one partition, without a reason; those that Kafka no longer has are left out.

    A broker that does not answer in time leaves them out, too: the record's coordinates are known, and a stream must
    not stop for what only a person reads.
    """
    wanted = sorted(offsets)
    found: dict[int, Rejected] = {}
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "group.id": "tidemill-quarantine",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        for offset in wanted:
            if offset not in found:
                # Far apart as a rule: each is sought by itself, and what comes with it is looked at, too.
                consumer.assign([TopicPartition(topic, partition, offset)])
                found |= _fetch(consumer, {*wanted}, offset)
    except KafkaException:
        return found
    finally:
        consumer.close()
    return found


def _fetch(consumer: Consumer, wanted: set[int], offset: int) -> dict[int, Rejected]:
    found: dict[int, Rejected] = {}
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        messages = consumer.consume(500, 1.0)
        for message in messages:
            if message.error() is not None:
                return found
            place = message.offset()
            if place in wanted:
                found[place] = _rejected(message)
        if offset in found or any((message.offset() or 0) > offset for message in messages):
            return found
    return found


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
