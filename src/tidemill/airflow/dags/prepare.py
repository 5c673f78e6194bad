"""What has to be true before a stream's driver is worth starting."""

from __future__ import annotations

import logging
from contextlib import closing

from airflow.providers.apache.kafka.hooks.client import KafkaAdminClientHook

from tidemill import config
from tidemill.airflow.hook import TidemillHook
from tidemill.airflow.triggers.stream import observe_stream
from tidemill.config import Settings
from tidemill.deploy.snapshots import load_deployed
from tidemill.errors import SourceError, SpecError
from tidemill.kafka.topics import TOPIC_MISSING, partitions
from tidemill.lifecycle.decide import desired_of
from tidemill.spec import Pipeline, load_pipeline

log = logging.getLogger(__name__)


def prepare(pipeline: str) -> None:
    """Check that a version of the pipeline is applied, and that its topic is there.

    What runs is the version that was applied last. A folder that is another one by now, or is refused, is only told
    of. A live driver needs neither version nor topic: it goes on with what it was started for, and is adopted.

    Raises:
        StreamError: nothing was applied, or what was applied is not to be found here.
        SourceError: Kafka does not hold the topic, or does not answer.
    """
    settings = config.load()
    with closing(TidemillHook().get_conn()) as connection:
        seen = observe_stream(connection, pipeline)
        if seen is not None and seen[1].is_alive:
            log.info("stream %s has a live driver, of pipeline version %s", pipeline, seen[1].version)
            return
        if seen is not None and not desired_of(seen[0]).running:
            # There is something to settle about its last driver, for which nothing has to be there.
            log.info("stream %s is not wanted", pipeline)
            return
        spec, version = load_deployed(settings, connection, pipeline)
    for warning in unapplied(settings, spec, version):
        log.warning("%s", warning)
    try:
        found = partitions(KafkaAdminClientHook().get_conn, spec.source.topic)
    except SourceError as error:
        if error.code != TOPIC_MISSING:
            raise
        topic = spec.source.topic
        raise SourceError(
            f"topic {topic} does not exist", remedy=f"create it with ./tidemill apply {pipeline}"
        ) from error
    log.info("pipeline %s is version %d; topic %s has %d partitions", pipeline, version, spec.source.topic, len(found))


def unapplied(settings: Settings, spec: Pipeline, version: int) -> list[str]:
    """A sentence if the pipeline's folder is not what was applied last, none if it is."""
    goes_on = f"version {version} of {spec.name}, applied last, goes on"
    try:
        folder = load_pipeline(settings.pipelines / spec.name)
    except (SpecError, OSError, UnicodeDecodeError) as error:
        return [f"{goes_on}, for the folder is refused: {error}"]
    if folder.digest == spec.digest:
        return []
    return [f"{goes_on}: the folder was edited since; ./tidemill apply {spec.name} makes it count"]
