"""The triggers of a stream's DAG: they watch streams from the triggerer, all with one query every 2 s.

A trigger only resumes its task, as soon as :func:`~tidemill.lifecycle.decide.decide` returns an action other than
waiting; the task reads the row again and decides for itself.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent
from pymysql.connections import Connection

from tidemill.airflow.connections import CONN_ID
from tidemill.airflow.triggers.poller import StreamObservation, subscribe
from tidemill.errors import DatabaseUnavailable
from tidemill.lifecycle.decide import WAITING, ActionType, decide, desired_of
from tidemill.lifecycle.driver_state import DriverState, Observed, last_signal, observe
from tidemill.lifecycle.stream_row import FAILING, StreamRow
from tidemill.store.control.incidents import close_incident
from tidemill.store.control.streams import read_stream
from tidemill.supervisor import freshness
from tidemill.supervisor.launcher import is_gone

RETRY_SECONDS = 300.0
"""After this time a task is resumed again for what it could not do: send a notification, start a version."""


def observe_stream(
    connection: Connection[Any], stream: str, lost_since: datetime | None = None
) -> tuple[StreamRow, Observed] | None:
    """Read a stream's row and observe its newest driver from this host.

    Args:
        connection: autocommit.
        stream: name of the stream.
        lost_since: the driver's last signal, if the poller has declared the driver lost since. A single read cannot
            distinguish a dead driver from a database that was unavailable.

    Returns:
        None if the stream has no row, because no state was ever requested for it.
    """
    row = read_stream(connection, stream)
    if row is None:
        return None
    gone = is_gone(row)
    if gone:
        # What the driver wrote last, it wrote before it ended: only this second read is sure to return it.
        before, row = row, read_stream(connection, stream) or row
        gone = row.epoch == before.epoch
    return row, observe(row, gone=gone, given_up=lost_since)


class _StreamSubscriber(BaseTrigger):
    """A trigger that receives the observations of one stream until it returns an event."""

    def __init__(self, stream: str, conn_id: str = CONN_ID) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no annotations
        self.stream, self.conn_id = stream, conn_id

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event when the stream needs its task."""
        yield await subscribe(self, self.conn_id)

    @abstractmethod
    def on_observation(self, observation: StreamObservation | None) -> TriggerEvent | None:
        """The event to resume the task with; None to go on waiting."""

    def on_unavailable(self, error: DatabaseUnavailable) -> None:
        """Write the outage to the task's log. The driver runs on without its trigger."""
        self.log.warning("waiting for the database: %s", error)


class StartRequestedTrigger(_StreamSubscriber):
    """Ends its task, without a worker, as soon as a stream needs an action.

    Waits while the stream's desired state is stopped, its circuit is open, it backs off after failures, or its last
    driver is still exiting.
    """

    def __init__(self, stream: str, conn_id: str = CONN_ID, freshness_seconds: float | None = None) -> None:
        super().__init__(stream, conn_id)
        self.freshness_seconds = freshness_seconds
        self._has_closed_incident = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as Airflow stores them."""
        names = ("stream", "conn_id", "freshness_seconds")
        return f"{__name__}.StartRequestedTrigger", {name: getattr(self, name) for name in names}

    def on_observation(self, observation: StreamObservation | None) -> TriggerEvent | None:
        """End the task for every action, among them adopting a live driver."""
        if observation is None:
            return None
        row = observation.row
        if self.freshness_seconds is not None:
            freshness.update_freshness_incident(observation.connection, row, self.freshness_seconds)
        action = decide(observation.observed, desired_of(row), row.now)
        is_idle = action.action_type is ActionType.IDLE and row.desired_state != "running"
        if is_idle and not self._has_closed_incident:
            # The stream is meant to be stopped, so its earlier failures need no attention any more.
            close_incident(observation.connection, f"stream {self.stream}", FAILING)
            self._has_closed_incident = True
        if action.action_type in (ActionType.IDLE, ActionType.BACK_OFF, ActionType.AWAIT_EXIT):
            return None
        self.log.info("stream %s: %s", self.stream, action.reason)
        return TaskSuccessEvent()


class StreamTrigger(_StreamSubscriber):
    """Watches the driver of one epoch, and resumes its task when the stream needs an action.

    Args:
        stream: name of the stream.
        epoch: of the driver being watched.
        freshness_seconds: the pipeline's freshness objective; None if it has none.
        pending_notifications: incidents that the task could not notify; more than these resume it.
        conn_id: Airflow connection of the database.
        missing_version: an applied version whose copy was not found; the task is resumed for it only every
            :data:`RETRY_SECONDS`.
        _former: arguments of a trigger that was stored by an older release; ignored.
    """

    def __init__(
        self,
        stream: str,
        epoch: int,
        freshness_seconds: float | None = None,
        pending_notifications: int = 0,
        conn_id: str = CONN_ID,
        missing_version: int | None = None,
        **_former: object,
    ) -> None:
        super().__init__(stream, conn_id)
        self.missing_version = missing_version
        self.epoch, self.freshness_seconds, self.pending_notifications = epoch, freshness_seconds, pending_notifications
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._has_recovered = False
        """Whether the driver of this epoch has committed, which closes the incident of earlier failures."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as Airflow stores them."""
        names = ("stream", "epoch", "freshness_seconds", "pending_notifications", "conn_id", "missing_version")
        return f"{__name__}.StreamTrigger", {name: getattr(self, name) for name in names}

    def on_observation(self, observation: StreamObservation | None) -> TriggerEvent | None:
        """Resume the task if it has to act; incidents that open and close by themselves do so here."""
        if observation is None:
            return self._event("the stream's row was removed")
        row, observed = observation.row, observation.observed
        if row.epoch != self.epoch:
            return self._event(f"another driver acquired the lease: epoch {row.epoch}")
        if self.freshness_seconds is not None:
            freshness.update_freshness_incident(observation.connection, row, self.freshness_seconds)
        retry = time.monotonic() > self._retry_at
        action = decide(observed, desired_of(row), row.now)
        is_blocked = action.action_type is ActionType.ROLL and row.newest_version == self.missing_version and not retry
        if action.action_type not in WAITING and not is_blocked:
            signal = last_signal(row) if observed.driver_state is DriverState.LOST else None
            return self._event(action.reason, lost_since=signal.isoformat() if signal else None)
        if not self._has_recovered and _has_committed(observation):
            close_incident(observation.connection, f"stream {self.stream}", FAILING)
            self._has_recovered = True
        if row.pending_notifications > self.pending_notifications or (row.pending_notifications and retry):
            return self._event("an incident has a pending notification")
        return None

    def _event(self, reason: str, **facts: str | None) -> TriggerEvent:
        payload = {"stream": self.stream, "epoch": self.epoch, "reason": reason, **facts}
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's has no annotations


def _has_committed(observation: StreamObservation) -> bool:
    """Whether the running driver has committed since the last failure."""
    row, state = observation.row, observation.observed.driver_state
    return state is DriverState.RUNNING and row.failures_in_a_row == 0 and bool(row.batches)
