"""Every Kafka client of the project: the options it is created with, and why they differ from the defaults.

librdkafka's options are for Python (``confluent_kafka``), the Java client's for Spark's Kafka source, which passes on
what follows ``kafka.``. The manuals: librdkafka's ``CONFIGURATION.md``, Kafka's "Consumer Configs", and Spark's
"Structured Streaming + Kafka Integration Guide".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from tidemill.config import Settings

REQUEST_SECONDS = 15.0
"""How long a request for metadata, offsets or a configuration may take."""
PROBE_SECONDS = 3.0
"""How long a driver waits for each answer of its regular probe."""
READINESS_SECONDS = 1.0
"""How long one attempt may take to find out whether a broker that was just started serves requests."""
READ_SECONDS = 30.0
"""How long a consumer that reads a range waits for the next record before it gives up."""
RETRY_SECONDS = 0.1
"""The pause before a request is sent again to a cluster that is electing a leader."""
_RECONNECT_MAX_MS = 1_000
"""librdkafka waits up to 10 s between two attempts to connect; a broker that is back would be found that much later."""


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.kafka_bootstrap,
        "reconnect.backoff.max.ms": _RECONNECT_MAX_MS,
        # Errors reach the caller as exceptions; librdkafka would print them to standard error as well.
        "log_level": 0,
    }


def admin(settings: Settings) -> AdminClient:
    """A client for requests about topics, offsets and configurations."""
    return AdminClient(_common(settings))


def readiness_probe(settings: Settings) -> AdminClient:
    """A client for a broker that is starting: it reconnects at short intervals, and ignores that nothing listens."""
    options: dict[str, Any] = {"reconnect.backoff.max.ms": 250, "error_cb": lambda _error: None}
    return AdminClient(_common(settings) | options)


def consumer(settings: Settings, purpose: str, options: Mapping[str, Any] | None = None) -> Consumer:
    """A consumer of assigned partitions. It commits no offsets, and skips records of aborted transactions.

    Args:
        settings: where Kafka is.
        purpose: names the consumer group ``tidemill-<purpose>``, which Kafka's tools and quotas show.
        options: of librdkafka, beyond the usual. Without one for it, an offset that does not exist is an error.
    """
    return Consumer(
        {
            **_common(settings),
            "group.id": f"tidemill-{purpose}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            **(options or {}),
        }
    )


def producer(settings: Settings, options: Mapping[str, Any] | None = None) -> Producer:
    """An idempotent producer: a partition gets each record once and in order, whatever is sent again.

    Args:
        settings: where Kafka is.
        options: of librdkafka, beyond the usual.
    """
    return Producer({**_common(settings), "enable.idempotence": True, **(options or {})})


def source_options(settings: Settings) -> dict[str, str]:
    """Options of Spark's Kafka source, for a batch query and a streaming query alike."""
    return {
        "kafka.bootstrap.servers": settings.kafka_bootstrap,
        "kafka.isolation.level": "read_committed",
        # The quarantine keeps a record with its headers.
        "includeHeaders": "true",
        # At Kafka's 500 ms every task waits about half a second at the end of its range.
        "kafka.fetch.max.wait.ms": "5",
        # At Kafka's 500 records for each poll, Spark's bookkeeping around a poll costs more than the records.
        "kafka.max.poll.records": "20000",
    }


def stream_source_options(settings: Settings) -> dict[str, str]:
    """Options of Spark's Kafka source for a streaming query: how long an outage may last before the query fails.

    After that the driver waits (:mod:`tidemill.stream.outage`). Within that time the Java clients find a broker that
    is back by themselves: they try to connect at least once a second.
    """
    return {
        **source_options(settings),
        # A task that polls cannot be interrupted: it keeps its core from a stop request and from the next query.
        # Spark's 120 s for a poll, and Kafka's 60 s for the position of a consumer and for a request of the driver
        # (which Spark sends three times), would add up to minutes. A fetch that is only slow takes seconds.
        "kafkaConsumer.pollTimeoutMs": "20000",
        "kafka.default.api.timeout.ms": "15000",
        "kafka.request.timeout.ms": "10000",  # not more than default.api.timeout.ms
        # Connecting to a host that does not answer at all. At Kafka's 30 s, a broker that is back would be found that
        # much later.
        "kafka.socket.connection.setup.timeout.ms": "3000",
        "kafka.socket.connection.setup.timeout.max.ms": "5000",
    }
