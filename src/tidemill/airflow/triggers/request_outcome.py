"""Whether a requested state of a stream was reached, and the trigger that waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from typing import Any, TypedDict

from airflow.sdk.bases.hook import BaseHook
from airflow.triggers.base import BaseTrigger, TriggerEvent

from tidemill.airflow.connections import CONN_ID, ConnectionLike, open_connection
from tidemill.errors import DatabaseUnavailable
from tidemill.lifecycle.driver_state import Observed, observe
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.control.streams import read_streams
from tidemill.supervisor.launcher import is_gone

POLL_SECONDS = 2.0


class StateRequest(TypedDict):
    """A state that was requested for a stream; an XCom, hence plain data."""

    stream: str
    desired_state: str
    """``running`` or ``stopped``."""
    by: str
    after_epoch: int
    """For a restart: the epoch whose driver has to exit first; 0 otherwise."""


Outcome = tuple[bool | None, str]
"""True: reached; False: will not be reached; None: not reached yet. The text is the reason, empty where reached."""


def outcome_of(row: StreamRow | None, request: StateRequest, *, gone: bool) -> Outcome:
    """Whether a requested state was reached, and if not, why.

    Args:
        row: the stream's row; None if it was removed.
        request: the requested state.
        gone: whether the process of the newest driver is known to have ended.
    """
    if row is None:
        return False, "its row was removed"
    if obstacle := _permanent_obstacle(row, request):
        return False, obstacle
    observed = observe(row, gone=gone)
    if request["desired_state"] == "stopped":
        reached, reason = not observed.is_alive, f"its driver of epoch {row.epoch} is {observed.driver_state}"
    else:
        reached = observed.is_running and row.epoch > request["after_epoch"]
        reason = _pending_reason(row, request, observed)
    return (True, "") if reached else (None, reason)


def _permanent_obstacle(row: StreamRow, request: StateRequest) -> str | None:
    """Why the state will not be reached without another request; None if it may be."""
    if row.desired_state != request["desired_state"]:
        return f"{row.requested_by} has requested the state {row.desired_state} since"
    if request["desired_state"] == "stopped":
        return None
    if row.newest_version == 0:
        return f"no version of its pipeline is applied; run ./tidemill apply {row.stream}"
    return f"it is halted: {row.halted_reason}" if row.halted_reason else None


def _pending_reason(row: StreamRow, request: StateRequest, observed: Observed) -> str:
    """Why the stream is not running yet."""
    if row.epoch <= request["after_epoch"] and observed.is_alive:
        return f"its driver of epoch {row.epoch} has not exited yet"
    if row.last_error:
        return f"its last driver reported: {row.last_error}"
    if row.waiting_for:
        return f"its driver waits for {row.waiting_for}"
    if row.acquired_at is not None and row.acquired_at >= row.requested_at:
        return "its driver is starting"
    return f"no driver was started; check that the DAG stream__{row.stream} is not paused"


class RequestOutcomeTrigger(BaseTrigger):
    """Fires once: when each requested state was reached or will not be, or at the deadline.

    Args:
        requests: the requested states.
        deadline: in seconds since 1970, so that another triggerer can go on with it.
        wait_seconds: from the start of waiting to the deadline, for the message.
        conn_id: Airflow connection of the database; the trigger waits while the database is unavailable.
    """

    def __init__(
        self, requests: list[StateRequest], deadline: float, wait_seconds: float, conn_id: str = CONN_ID
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no annotations
        self.requests, self.deadline, self.wait_seconds, self.conn_id = requests, deadline, wait_seconds, conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as Airflow stores them."""
        names = ("requests", "deadline", "wait_seconds", "conn_id")
        return f"{__name__}.RequestOutcomeTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event with two lists of sentences: ``reached`` and ``failed``."""
        target: ConnectionLike = await BaseHook.aget_connection(self.conn_id)
        while True:
            is_late = time.time() >= self.deadline
            try:
                outcomes = await asyncio.to_thread(self._read_outcomes, target)
            except DatabaseUnavailable as error:
                outcomes = {request["stream"]: (None, str(error)) for request in self.requests}
            if is_late or all(reached is not None for reached, _ in outcomes.values()):
                yield self._event(outcomes)
                return
            await asyncio.sleep(POLL_SECONDS)

    def _read_outcomes(self, target: ConnectionLike) -> dict[str, Outcome]:
        with closing(open_connection(target)) as connection:
            # Processes before rows: only rows read after a process has ended are sure to hold what it wrote last.
            before = {row.stream: row for row in read_streams(connection)}
            gone = {name: row.epoch for name, row in before.items() if is_gone(row)}
            rows = {row.stream: row for row in read_streams(connection)}
        outcomes = {}
        for request in self.requests:
            row = rows.get(request["stream"])
            has_ended = row is not None and gone.get(row.stream) == row.epoch
            outcomes[request["stream"]] = outcome_of(row, request, gone=has_ended)
        return outcomes

    def _event(self, outcomes: Mapping[str, Outcome]) -> TriggerEvent:
        requested = {request["stream"]: request["desired_state"] for request in self.requests}
        late = f" after {self.wait_seconds:.0f} s"
        payload = {
            "reached": [f"stream {name} is {requested[name]}" for name, (reached, _) in outcomes.items() if reached],
            "failed": [
                f"stream {name} is not {requested[name]}{late if reached is None else ''}: {reason}"
                for name, (reached, reason) in outcomes.items()
                if not reached
            ],
        }
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's has no annotations
