"""The trigger of the task ``approve``: waits until a person has decided about a challenger, without a worker slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any
from uuid import UUID

from airflow.sdk.bases.hook import BaseHook
from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from tidemill.airflow.connections import CONN_ID, ConnectionLike, open_connection
from tidemill.errors import DatabaseUnavailable
from tidemill.ml.registry.versions import read_version

POLL_SECONDS = 5.0
PROMOTE, REJECT = "Promote", "Reject"
"""The answers. A version that was decided elsewhere, or by the deadline, counts as rejected."""


class ApprovalTrigger(BaseTrigger):
    """Fires once: when a person has answered in Airflow, when the version was decided elsewhere, or at the deadline.

    Args:
        ti_id: id of the task instance that asked.
        pipeline: name of the pipeline.
        model: name of its model.
        version: the version that waits for approval.
        deadline: in seconds since 1970, so that another triggerer can go on with it.
        conn_id: Airflow connection of the database; the trigger waits while the database is unavailable.
    """

    def __init__(
        self,
        *,
        ti_id: str,
        pipeline: str,
        model: str,
        version: int,
        deadline: float,
        conn_id: str = CONN_ID,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no annotations
        self.ti_id, self.pipeline, self.model, self.version = ti_id, pipeline, model, version
        self.deadline, self.conn_id = deadline, conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as Airflow stores them."""
        names = ("ti_id", "pipeline", "model", "version", "deadline", "conn_id")
        return f"{__name__}.ApprovalTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, of the form that Airflow's own human-in-the-loop triggers have."""
        target: ConnectionLike = await BaseHook.aget_connection(self.conn_id)
        while True:
            is_late = time.time() >= self.deadline
            # Airflow's server resumes the task itself, but not for an answer that came before the task was deferred.
            answer = await sync_to_async(get_hitl_detail_content_detail)(ti_id=UUID(self.ti_id))
            if answer and answer.response_received and answer.chosen_options:
                user = answer.responded_by_user
                yield _event(list(answer.chosen_options), user.name if user else None)
                return
            try:
                is_waiting = await asyncio.to_thread(self._is_waiting, target)
            except DatabaseUnavailable as error:
                self.log.warning("waiting for the database: %s", error)
                is_waiting = True
            if is_late or not is_waiting:
                yield _event([REJECT], None)
                return
            await asyncio.sleep(POLL_SECONDS)

    def _is_waiting(self, target: ConnectionLike) -> bool:
        with closing(open_connection(target)) as connection:
            # The state of this version: a later version may exist when a run is cleared.
            return read_version(connection, self.pipeline, self.model, self.version).state == "waiting"


def _event(chosen: list[str], person: str | None) -> TriggerEvent:
    payload = {"chosen_options": chosen, "responded_by_user": {"name": person} if person else None}
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's has no annotations
