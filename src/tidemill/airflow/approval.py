"""The task that asks a person whether a challenger becomes champion. It holds no worker while it waits.

Airflow shows the question under *Required Actions*. The command line and the DAG ``control_models`` answer it as well:
the trigger looks at the version's row, so that the run goes on whoever decided, and wherever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any, NoReturn
from uuid import UUID

from airflow.providers.standard.operators.hitl import HITLBranchOperator
from airflow.sdk.bases.hook import BaseHook
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail, upsert_hitl_detail
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async
from pymysql.connections import Connection

from tidemill.airflow.dags.refresh_tasks import at_work, refresh_of, score_next
from tidemill.airflow.hook import CONN_ID, ConnectionLike, open_connection
from tidemill.errors import DatabaseUnavailable, ModelError
from tidemill.ml.registry.history import ModelHistory, VersionRecord, read_history
from tidemill.ml.registry.promotion import approve, reject
from tidemill.ml.registry.versions import read_version, version_of_refresh
from tidemill.spec import Pipeline

PROMOTE, REJECT = "Promote", "Reject"
WAIT_DAYS = 7
_POLL_SECONDS = 5.0


class ApproveOperator(HITLBranchOperator):
    """Asks whether the version that waits becomes champion, and goes on with ``score`` whatever the answer is.

    Without an answer within :data:`WAIT_DAYS` it is rejected. Where nothing waits, nobody is asked.

    Args:
        pipeline: whose model.
        model: which.
    """

    def __init__(self, *, pipeline: str, model: str, **kwargs: Any) -> None:
        super().__init__(
            subject=f"Promote the challenger of {pipeline}.{model}?",
            options=[PROMOTE, REJECT],
            defaults=REJECT,
            # No time limit for a task that waits for a person; the trigger ends it.
            execution_timeout=None,
            **kwargs,
        )
        self.pipeline, self.model = pipeline, model

    def execute(self, context: Any) -> Any:
        """Write the question, and hand over to the triggerer."""
        with at_work(self.pipeline) as (spec, connection):
            version = self._waiting(context, connection)
            if version is None:
                return self._go_on(context, connection, spec, "nothing waits for a person any more")
            history = read_history(connection, spec.name, self.model, spec.models[self.model].promotion.metric)
        self._ask(context, history, version)

    def _ask(self, context: Any, history: ModelHistory, version: int) -> NoReturn:
        self.subject = f"Promote version {version} of {self.pipeline}.{self.model}?"
        self.body = question(history, version)
        ti_id = context["ti"].id
        upsert_hitl_detail(
            ti_id=ti_id, options=self.options, subject=self.subject, body=self.body, defaults=self.defaults, params={}
        )
        self.log.info("%s", self.subject)
        until = time.time() + WAIT_DAYS * 86_400
        trigger = ApprovalTrigger(str(ti_id), self.pipeline, self.model, version, until)
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: dict[str, Any]) -> Any:
        """Carry the answer out, unless it was carried out already, and go on."""
        chosen = (event.get("chosen_options") or [None])[0]
        person = (event.get("responded_by_user") or {}).get("name")
        by = f"airflow: {person or f'nobody within {WAIT_DAYS} days'}, {context['run_id']}"
        with at_work(self.pipeline) as (spec, connection):
            try:
                version = self._waiting(context, connection)
                if version is None:
                    self.log.info("it was decided meanwhile")
                elif chosen == PROMOTE:
                    approve(connection, spec, self.model, version, by)
                else:
                    said = f"rejected by {person}" if person else f"nobody answered within {WAIT_DAYS} days"
                    reject(connection, spec, self.model, version, by, said)
            except ModelError as error:
                raise AirflowFailException(str(error)) from error
            return self._go_on(context, connection, spec, "the challenger was not promoted")

    def _waiting(self, context: Any, connection: Connection[Any]) -> int | None:
        """The version that this run trained, if it still waits."""
        trained = version_of_refresh(connection, self.pipeline, self.model, refresh_of(context["ti"]))
        return trained.version if trained is not None and trained.state == "waiting" else None

    def _go_on(self, context: Any, connection: Connection[Any], spec: Pipeline, reason: str) -> Any:
        following = score_next(connection, spec, self.model, refresh_of(context["ti"]), reason)
        return self.do_branch(context=context, branches_to_execute=following)


class ApprovalTrigger(BaseTrigger):
    """Fires once, when a person has answered in Airflow, or the version waits no more, or the time is over.

    Args:
        ti_id: of the task instance whose question it is.
        pipeline: whose model.
        model: which.
        version: that waits.
        until: when the time is over, in seconds since 1970: another triggerer may go on with it.
        conn_id: Airflow connection of the database, which is waited for where it is away.
    """

    def __init__(
        self, ti_id: str, pipeline: str, model: str, version: int, until: float, conn_id: str = CONN_ID
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no annotations
        self.ti_id, self.pipeline, self.model, self.version = ti_id, pipeline, model, version
        self.until, self.conn_id = until, conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow keeps it."""
        kept = ("ti_id", "pipeline", "model", "version", "until", "conn_id")
        return f"{__name__}.ApprovalTrigger", {name: getattr(self, name) for name in kept}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, of the shape that Airflow gives a human's task."""
        target: ConnectionLike = await BaseHook.aget_connection(self.conn_id)
        while True:
            late = time.time() >= self.until
            # Airflow's server wakes the task itself, but not for an answer that came before the task was put to sleep.
            answer = await sync_to_async(get_hitl_detail_content_detail)(ti_id=UUID(self.ti_id))
            if answer and answer.response_received and answer.chosen_options:
                user = answer.responded_by_user
                yield _event(list(answer.chosen_options), user.name if user else None)
                return
            try:
                waits = await asyncio.to_thread(self._waits, target)
            except DatabaseUnavailable as error:
                self.log.warning("waiting for the database: %s", error)
                waits = True
            if late or not waits:
                yield _event([REJECT], None)
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _waits(self, target: ConnectionLike) -> bool:
        with closing(open_connection(target)) as connection:
            # Its own state: a later version may be there when a run is cleared.
            return read_version(connection, self.pipeline, self.model, self.version).state == "waiting"


def _event(chosen: list[str], person: str | None) -> TriggerEvent:
    payload = {"chosen_options": chosen, "responded_by_user": {"name": person} if person else None}
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's has no annotations


def question(history: ModelHistory, version: int) -> str:
    """What a person needs to decide, as Markdown."""
    found = next(each for each in history.versions if each.version == version)
    lines = [
        f"{found.reason}.",
        "",
        "| metric | challenger | 95 % | champion | baseline |",
        "| --- | --- | --- | --- | --- |",
        *(_line(found, number) for number in range(len(found.measures))),
        "",
        f"Measured on {found.holdout_rows:,} rows of {found.holdout_from:%Y-%m-%d} to {found.holdout_until:%Y-%m-%d}, "
        f"trained on {found.train_rows:,} before. "
        + ("It would be the first champion." if history.champion_version is None else "")
        + (f"The champion is version {history.champion_version}." if history.champion_version else ""),
    ]
    return "\n".join(lines)


def _line(found: VersionRecord, number: int) -> str:
    each = found.measures[number]
    interval = "–" if each.low is None or each.high is None else f"{each.low:.4g} to {each.high:.4g}"
    name = f"**{each.metric}**" if number == 0 else each.metric
    return f"| {name} | {_said(each.value)} | {interval} | {_said(each.champion)} | {_said(each.baseline)} |"


def _said(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
