"""The task ``prepare`` of a stream's DAG: checks what a driver needs before one is started."""

from __future__ import annotations

import logging
from contextlib import closing

from airflow.providers.apache.kafka.hooks.client import KafkaAdminClientHook

from tidemill import config
from tidemill.airflow.hook import TidemillHook
from tidemill.airflow.triggers.stream import observe_stream
from tidemill.deploy.snapshots import applied_pipeline, unapplied_changes
from tidemill.errors import SourceError
from tidemill.kafka.topics import TOPIC_MISSING, partitions
from tidemill.lifecycle.decide import desired_of

log = logging.getLogger(__name__)


def prepare(pipeline: str) -> None:
    """Check that a version of the pipeline is applied, and that its topic exists.

    The driver runs the version that was applied last. A folder that has changed since, or is rejected, only causes a
    warning. A live driver needs no check: it is adopted with the version that it was started with.

    Raises:
        StreamError: no version was applied, or the applied version is not available on this host.
        SourceError: Kafka does not have the topic, or does not answer.
    """
    settings = config.load()
    with closing(TidemillHook().get_conn()) as connection:
        observation = observe_stream(connection, pipeline)
        if observation is not None:
            row, observed = observation
            if observed.is_alive:
                log.info("stream %s has a live driver, of pipeline version %s", pipeline, observed.version)
                return
            if not desired_of(row).running:
                # The task ``run`` still has to act on the last driver, for which neither version nor topic is needed.
                log.info("stream %s is not to be started", pipeline)
                return
        spec, version = applied_pipeline(settings, connection, pipeline)
    for warning in unapplied_changes(settings, spec, version):
        log.warning("%s", warning)
    topic = spec.source.topic
    try:
        numbers = partitions(KafkaAdminClientHook().get_conn, topic)
    except SourceError as error:
        if error.code != TOPIC_MISSING:
            raise
        raise SourceError("TM-AIRFLOW-TOPIC-MISSING", topic=topic, pipeline=pipeline) from error
    log.info("pipeline %s has version %d; topic %s has %d partitions", pipeline, version, topic, len(numbers))
