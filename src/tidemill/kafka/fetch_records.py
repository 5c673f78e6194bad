"""Single records read from Kafka once more, with their original bytes: for the quarantine."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from tidemill.config import Settings
from tidemill.kafka import clients
from tidemill.kafka.clients import REQUEST_SECONDS
from tidemill.store.write.ledger_rows import Rejected


def headers_as_json(headers: Iterable[tuple[str, bytes | None]] | None) -> str | None:
    """A record's headers as the quarantine keeps them, a list of name and base64; None without any."""
    if not headers:
        return None
    return json.dumps([[name, None if v is None else base64.b64encode(v).decode()] for name, v in headers])


def fetch_records(settings: Settings, topic: str, partition: int, offsets: Iterable[int]) -> dict[int, Rejected]:
    """The records at these offsets of one partition, each without a reason.

    Returns:
        Offset -> record. Records that Kafka no longer has are left out. So are all that a broker does not deliver in
        time: the quarantine has their coordinates, and a stream must not stop for bytes that only a person reads.
    """
    requested = sorted(offsets)
    records: dict[int, Rejected] = {}
    consumer = clients.consumer(settings, "quarantine")
    try:
        for offset in requested:
            if offset not in records:
                # As a rule the offsets are far apart: the consumer seeks each of them. What comes along in the same
                # fetch is used as well.
                consumer.assign([TopicPartition(topic, partition, offset)])
                records |= _fetch(consumer, {*requested}, offset)
    except KafkaException:
        return records
    finally:
        consumer.close()
    return records


def _fetch(consumer: Consumer, requested: set[int], offset: int) -> dict[int, Rejected]:
    records: dict[int, Rejected] = {}
    deadline = time.monotonic() + REQUEST_SECONDS
    while time.monotonic() < deadline:
        messages = consumer.consume(500, 1.0)
        for message in messages:
            if message.error() is not None:
                return records
            at = message.offset()
            if at in requested:
                records[at] = _rejected(message)
        if offset in records or any((message.offset() or 0) > offset for message in messages):
            return records
    return records


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
