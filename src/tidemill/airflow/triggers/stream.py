"""What watches streams from Airflow's triggerer: no worker slot, and one query every 2 s for all of them together.

A trigger decides nothing. It wakes its task when :func:`~tidemill.lifecycle.decide.decide` says something other than
"go on like this"; the task reads the row again and decides for itself.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent
from pymysql.connections import Connection

from tidemill.airflow.hook import CONN_ID
from tidemill.airflow.triggers.poller import StreamObservation, subscribe
from tidemill.errors import DatabaseUnavailable
from tidemill.lifecycle.decide import WAITING, ActionType, decide, desired_of
from tidemill.lifecycle.driver_state import DriverState, Observed, last_signal, observe
from tidemill.lifecycle.stream_row import FAILING, StreamRow
from tidemill.store.control.incidents import close_incident
from tidemill.store.control.streams import read_stream
from tidemill.supervisor import freshness
from tidemill.supervisor.launcher import is_gone

AGAIN_SECONDS = 300.0
"""After this long the task is woken again for what it could not do: tell an incident, start a version."""


def observe_stream(
    connection: Connection[Any], stream: str, given_up: datetime | None = None
) -> tuple[StreamRow, Observed] | None:
    """A stream's row and what it means, as seen from this host at this moment.

    Args:
        connection: autocommit.
        stream: whose.
        given_up: what the watcher took for the driver's last sign of life. One look alone cannot tell a driver that is
            dead from a database that was away.

    Returns:
        None if nothing was ever wished of the stream.
    """
    row = read_stream(connection, stream)
    if row is None:
        return None
    gone = is_gone(row)
    if gone:
        # What the driver wrote last, it wrote before it ended: it stands in the row only now for certain.
        before, row = row, read_stream(connection, stream) or row
        gone = row.epoch == before.epoch
    return row, observe(row, gone=gone, given_up=given_up)


class _StreamSubscriber(BaseTrigger):
    """Listens to what is seen of one stream until something is news."""

    def __init__(self, stream: str, conn_id: str = CONN_ID) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no annotations
        self.stream, self.conn_id = stream, conn_id

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event when there is something to do."""
        yield await subscribe(self, self.conn_id)

    @abstractmethod
    def news(self, seen: StreamObservation | None) -> TriggerEvent | None:
        """What to wake the task with, None while there is nothing."""

    def away(self, error: DatabaseUnavailable) -> None:
        """Say so in the task's log. A driver needs nobody meanwhile."""
        self.log.warning("waiting for the database: %s", error)


class StartRequestedTrigger(_StreamSubscriber):
    """Ends its task, without a worker, as soon as there is something to do about a stream.

    Waits while the stream is not wanted, is halted, backs off after failures, or its last driver still leaves.
    """

    def __init__(self, stream: str, conn_id: str = CONN_ID, freshness_seconds: float | None = None) -> None:
        super().__init__(stream, conn_id)
        self.freshness_seconds = freshness_seconds
        self._rests = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow keeps it."""
        kept = ("stream", "conn_id", "freshness_seconds")
        return f"{__name__}.StartRequestedTrigger", {name: getattr(self, name) for name in kept}

    def news(self, seen: StreamObservation | None) -> TriggerEvent | None:
        """A live driver is something to do, too: adopt it."""
        if seen is None:
            return None
        row = seen.row
        if self.freshness_seconds is not None:
            freshness.update_freshness_incident(seen.connection, row, self.freshness_seconds)
        action = decide(seen.observed, desired_of(row), row.now)
        if action.action_type is ActionType.IDLE and row.desired_state != "running" and not self._rests:
            # Nobody wants it to work: that it did not is over.
            close_incident(seen.connection, f"stream {self.stream}", FAILING)
            self._rests = True
        if action.action_type in (ActionType.IDLE, ActionType.BACK_OFF, ActionType.AWAIT_EXIT):
            return None
        self.log.info("stream %s: %s", self.stream, action.reason)
        return TaskSuccessEvent()


class StreamTrigger(_StreamSubscriber):
    """Watches the driver of one epoch, and wakes its task when the stream needs a hand.

    Args:
        stream: whose.
        epoch: of the driver being watched.
        freshness_seconds: what the pipeline promises; None if nothing.
        pending_notifications: incidents that its task could not tell; more of them wake it.
        conn_id: Airflow connection of the database.
        missing: a version that was applied and could not be found: its task is woken for it now and then only.
        _former: arguments of a trigger that waited while Tidemill was upgraded; of no use any more.
    """

    def __init__(
        self,
        stream: str,
        epoch: int,
        freshness_seconds: float | None = None,
        pending_notifications: int = 0,
        conn_id: str = CONN_ID,
        missing: int | None = None,
        **_former: object,
    ) -> None:
        super().__init__(stream, conn_id)
        self.missing = missing
        self.epoch, self.freshness_seconds, self.pending_notifications = epoch, freshness_seconds, pending_notifications
        self._again_at = time.monotonic() + AGAIN_SECONDS
        self._works = False
        """Whether the driver of this epoch was seen to commit, and what failed before it is over."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow keeps it."""
        kept = ("stream", "epoch", "freshness_seconds", "pending_notifications", "conn_id", "missing")
        return f"{__name__}.StreamTrigger", {name: getattr(self, name) for name in kept}

    def news(self, seen: StreamObservation | None) -> TriggerEvent | None:
        """Anything that its task has to see to; incidents that open and close by themselves do so here."""
        if seen is None:
            return self._event("its row is gone")
        row, observed = seen.row, seen.observed
        if row.epoch != self.epoch:
            return self._event(f"it was taken over: epoch {row.epoch}")
        if self.freshness_seconds is not None:
            freshness.update_freshness_incident(seen.connection, row, self.freshness_seconds)
        again = time.monotonic() > self._again_at
        action = decide(observed, desired_of(row), row.now)
        waits = action.action_type is ActionType.ROLL and row.newest_version == self.missing and not again
        if action.action_type not in WAITING and not waits:
            heard = last_signal(row) if observed.driver_state is DriverState.LOST else None
            return self._event(action.reason, given_up=heard.isoformat() if heard else None)
        if (
            not self._works
            and observed.driver_state is DriverState.RUNNING
            and row.failures_in_a_row == 0
            and row.batches
        ):
            close_incident(seen.connection, f"stream {self.stream}", FAILING)
            self._works = True
        if row.pending_notifications > self.pending_notifications or (row.pending_notifications and again):
            return self._event("an incident is to be told")
        return None

    def _event(self, reason: str, **facts: str | None) -> TriggerEvent:
        payload = {"stream": self.stream, "epoch": self.epoch, "reason": reason, **facts}
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's has no annotations
