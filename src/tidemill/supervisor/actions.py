"""The actions of the supervision on a stream: start its driver, request its exit, end it, record its failure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import Fenced, StreamError
from tidemill.lifecycle.driver_state import DriverState
from tidemill.lifecycle.stream_row import FAILING, StreamRow
from tidemill.spec import Pipeline
from tidemill.store.control import heartbeats, incidents, leases, streams
from tidemill.supervisor.cluster import Cluster
from tidemill.supervisor.launcher import launch, log_file_of, stop_driver
from tidemill.supervisor.log_diagnosis import known_cause, readable_log


class StreamActions:
    """Actions on streams, carried out by one actor. Each changes the row, so that the next decision is another one.

    Each action takes the row that it was decided on. The database accepts it only while the stream still has the epoch
    and the request of that row.
    """

    def __init__(
        self, settings: Settings, connection: Connection[Any], by: str, find_cluster: Callable[[Settings], Cluster]
    ) -> None:
        """Actions of one actor.

        Args:
            settings: of this installation.
            connection: autocommit.
            by: the actor, as it is recorded.
            find_cluster: returns where drivers run; called only when one is started. May raise StreamError.
        """
        self.settings, self.connection, self.by, self.find_cluster = settings, connection, by, find_cluster

    def start(
        self,
        row: StreamRow,
        pipeline: Pipeline,
        version: int,
        conf: dict[str, str],
    ) -> None:
        """Acquire the lease, end what is left of the last driver, and launch the next one.

        Once the lease is acquired the last driver cannot commit any more, and it exits at its next heartbeat.

        Args:
            row: what the decision was made on.
            pipeline: as it was applied.
            version: the version that it was applied as.
            conf: Spark configuration beyond the usual.

        Raises:
            Fenced: another process acquired the lease, or the desired state was changed.
        """
        epoch = leases.acquire_lease(
            self.connection, row.stream, version, self.by, expected=row.epoch, requested_at=row.requested_at
        )
        stop_driver(row)
        try:
            cluster = self.find_cluster(self.settings)
            # Before the driver starts: one that a cluster runs writes itself where it runs and where its log is.
            log_file = str(log_file_of(self.settings, row.stream, epoch))
            leases.record_driver(self.connection, row.stream, epoch, log_file=log_file, master=cluster.master)
            driver = launch(self.settings, pipeline, epoch, conf, cluster)
        except StreamError as error:
            heartbeats.report_heartbeat(self.connection, row.stream, epoch, DriverState.FAILED, last_error=str(error))
            return
        location: dict[str, object] = {"master": driver.master, "submission_id": driver.submission_id}
        if driver.pid is not None:
            location |= {"host": driver.host, "pid": driver.pid}
        leases.record_driver(self.connection, row.stream, epoch, **location)
        incidents.close_incident(self.connection, f"stream {row.stream}", "halted")

    def request_exit(self, row: StreamRow) -> None:
        """Request that the driver finishes its batch and exits; the next one follows it."""
        streams.request_exit(self.connection, row.stream, epoch=row.epoch)

    def kill(self, row: StreamRow) -> None:
        """End a driver that does not exit. A driver on another host is only fenced off.

        Raises:
            Fenced: another process acquired the lease, or the desired state was changed.
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
            self.connection, row.stream, epoch, DriverState.STOPPED, last_error="it did not exit and was ended"
        )

    def record_failure(self, row: StreamRow, state: DriverState, reason: str) -> str:
        """End what is left of a driver that failed, record its failure, and return the sentence on it.

        Args:
            row: what the decision was made on.
            state: ``failed`` or ``lost``.
            reason: as it was observed; the cause that a lost driver's log names is added to it.
        """
        # In this order: if this process ends in between, the failure of a driver that is gone is still recorded later.
        stop_driver(row, grace_seconds=1 if state is DriverState.LOST else 10)
        streams.count_failure(self.connection, row.stream, row.epoch)
        if state is DriverState.LOST:
            reason = self._last_words(row, reason)
        sentence = f"the driver of stream {row.stream}, epoch {row.epoch}, failed: {reason}"
        incidents.open_incident(self.connection, f"stream {row.stream}", FAILING, sentence)
        return sentence

    def _last_words(self, row: StreamRow, reason: str) -> str:
        """The reason why a driver was lost, which its heartbeat row has then, too.

        It is what the driver reported itself while it was ended here: its Python process outlives a killed JVM for a
        moment. Otherwise its log may name the cause, and the row is written on its behalf.
        """
        now = streams.read_stream(self.connection, row.stream)
        if now is not None and (now.heartbeat_epoch, now.state) == (row.epoch, DriverState.FAILED) and now.last_error:
            return now.last_error
        log_file = readable_log(self.settings, row.log_file) if row.log_file else None
        if log_file is not None and (cause := known_cause(log_file)):
            reason += f"; the cause by its log: {cause}"
        with suppress(Fenced):  # another driver has the lease by now, and the row
            heartbeats.report_heartbeat(
                self.connection, row.stream, row.epoch, DriverState.FAILED, last_error=reason, waiting_for=None
            )
        return reason
