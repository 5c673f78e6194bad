"""The probe of Kafka: how many records wait in the topic, and whether it is still the topic that the query reads.

It has a thread of its own, because a broker that does not answer must not delay the heartbeat.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from datetime import UTC, datetime

from confluent_kafka.admin import AdminClient

from tidemill.config import Settings
from tidemill.errors import KafkaUnavailable, TidemillError
from tidemill.kafka.clients import PROBE_SECONDS, admin
from tidemill.kafka.oldest_waiting import OldestWaiting
from tidemill.kafka.topics import offsets_at
from tidemill.spec.schema import Pipeline
from tidemill.stream.driver_status import DriverStatus
from tidemill.stream.start_offsets import topic_recreated

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 2.0


class KafkaProbe:
    """A thread of one driver, from its start to its end."""

    def __init__(self, settings: Settings, pipeline: Pipeline, status: DriverStatus) -> None:
        self.settings, self.pipeline, self.status = settings, pipeline, status
        self._thread = threading.Thread(target=self._run, name="kafka-probe", daemon=True)

    def start(self) -> None:
        """Begin to probe every :data:`INTERVAL_SECONDS`, until the status is finished."""
        self._thread.start()

    def _run(self) -> None:
        client = admin(self.settings)
        with closing(OldestWaiting(self.settings, self.pipeline.source.topic)) as waiting:
            self._probe_until_finished(client, waiting)

    def _probe_until_finished(self, client: AdminClient, waiting: OldestWaiting) -> None:
        while not self.status.finished.wait(INTERVAL_SECONDS):
            try:
                self._probe(client, waiting)
            except KafkaUnavailable as error:
                # The lag is unknown; the control plane lets the time that the tables are behind grow from now on.
                self.status.metrics.note_lag(time.monotonic(), None)
                if self.status.kafka_error is None:
                    log.warning("the probe of Kafka failed: %s", error)
                self.status.kafka_error = str(error)
            except TidemillError as error:  # if it concerns the stream as well, the query fails by itself
                log.warning("the probe of Kafka failed: %s", error)
            else:
                if self.status.kafka_error is not None:
                    log.info("the probe of Kafka succeeds again")
                self.status.kafka_error = None

    def _probe(self, client: AdminClient, waiting: OldestWaiting) -> None:
        ends = offsets_at(client, self.pipeline.source.topic, "latest", PROBE_SECONDS)
        if (committer := self.status.committer) is not None:
            committer.ends = ends
            positions, metrics = dict(committer.positions), self.status.metrics
            lags = {partition: max(0, end - positions.get(partition, 0)) for partition, end in ends.items()}
            arrived_us = waiting.arrived_us(positions, metrics.uncertain(lags, datetime.now(UTC)))
            metrics.note_lag(time.monotonic(), lags, arrived_us)
        # Spark would read on in a recreated topic at the old offsets, as if the first records had been read.
        topic_id = self.status.topic_id
        if topic_id and (error := topic_recreated(client, self.pipeline, topic_id, PROBE_SECONDS)):
            self.status.end(error)
