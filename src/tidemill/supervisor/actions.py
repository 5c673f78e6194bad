"""What the supervision does about a stream: start its driver, end it, count its failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import StreamError
from tidemill.lifecycle.driver_state import DriverState
from tidemill.lifecycle.stream_row import FAILING, StreamRow
from tidemill.spec import Pipeline
from tidemill.store.control import heartbeats, incidents, leases, streams
from tidemill.store.migrations import pipeline_version
from tidemill.supervisor.cluster import Cluster
from tidemill.supervisor.launcher import launch, log_file_of, stop_driver
from tidemill.supervisor.log_diagnosis import known_cause


class StreamActions:
    """The acts. Each changes the row, so that the next decision is another one.

    Each is made on a row, and only while the stream is still of that row's epoch, and wished as it says.
    """

    def __init__(
        self, settings: Settings, connection: Connection[Any], by: str, find_cluster: Callable[[Settings], Cluster]
    ) -> None:
        """Actions of one actor.

        Args:
            settings: of this installation.
            connection: autocommit.
            by: the actor, as it is recorded.
            find_cluster: says where drivers run; asked only when one is started. May raise StreamError.
        """
        self.settings, self.connection, self.by, self.find_cluster = settings, connection, by, find_cluster

    def start(
        self,
        row: StreamRow,
        pipeline: Pipeline,
        version: int,
        conf: dict[str, str],
    ) -> None:
        """Raise the epoch, see the last driver off, launch the next.

        From the moment the epoch is raised the last driver cannot commit, and it leaves at its next heartbeat.

        Args:
            row: what the decision was made on.
            pipeline: as it was applied.
            version: it was applied as.
            conf: Spark configuration beyond the usual.

        Raises:
            Fenced: somebody else took the stream over, or wished something else of it.
        """
        epoch = leases.acquire_lease(
            self.connection, row.stream, version, self.by, expected=row.epoch, requested_at=row.requested_at
        )
        stop_driver(row)
        try:
            place = self.find_cluster(self.settings)
            # Before it starts: a driver that a cluster runs says itself where it is and where its log is.
            log_file = str(log_file_of(self.settings, row.stream, epoch))
            leases.record_driver(self.connection, row.stream, epoch, log_file=log_file, master=place.master)
            driver = launch(self.settings, pipeline, epoch, conf, place)
        except StreamError as error:
            heartbeats.report_heartbeat(self.connection, row.stream, epoch, DriverState.FAILED, last_error=str(error))
            return
        where: dict[str, object] = {"master": driver.master, "submission_id": driver.submission_id}
        if driver.pid is not None:
            where |= {"host": driver.host, "pid": driver.pid}
        leases.record_driver(self.connection, row.stream, epoch, **where)
        incidents.close_incident(self.connection, f"stream {row.stream}", "halted")

    def request_exit(self, row: StreamRow) -> None:
        """Ask the driver to finish its batch and leave; the next one follows it."""
        streams.request_exit(self.connection, row.stream, epoch=row.epoch)

    def kill(self, row: StreamRow) -> None:
        """End a driver that does not leave. One on another host is only fenced off.

        Raises:
            Fenced: somebody else took the stream over, or wished something else of it.
        """
        epoch = leases.acquire_lease(
            self.connection,
            row.stream,
            row.pipeline_version or 0,
            self.by,
            expected=row.epoch,
            requested_at=row.requested_at,
        )
        stop_driver(row, grace_seconds=1)
        heartbeats.report_heartbeat(
            self.connection, row.stream, epoch, DriverState.STOPPED, last_error="it did not leave and was ended"
        )

    def count(self, row: StreamRow, life: DriverState, reason: str) -> str:
        """End what is left of a driver that broke, count its failure, and return the sentence on it."""
        # In this order: if we end in between, a process that is gone is still to be counted.
        stop_driver(row, grace_seconds=1 if life is DriverState.LOST else 10)
        streams.count_failure(self.connection, row.stream, row.epoch)
        sentence = f"the driver of stream {row.stream}, epoch {row.epoch}, failed: {reason}"
        cause = known_cause(Path(row.log_file)) if life is DriverState.LOST and row.log_file else None
        if cause:
            sentence += f"; its log says: {cause}"
        incidents.open_incident(self.connection, f"stream {row.stream}", FAILING, sentence)
        return sentence


def applied_version(connection: Connection[Any], pipeline: Pipeline) -> int:
    """The version the folder was applied as.

    Raises:
        StreamError: it was not.
    """
    version = pipeline_version(connection, pipeline)
    if version is None:
        raise StreamError(
            "the pipeline is not applied as it stands",
            value=pipeline.name,
            remedy=f"run ./tidemill apply {pipeline.name}",
        )
    return version
