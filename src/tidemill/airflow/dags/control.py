"""The DAG ``control_streams``: a form by which a person starts, stops or restarts streams.

One task writes the wish, another one waits, in the triggerer, until the stream is as wished. What is done about the
wish is the affair of ``stream__<pipeline>``, as with every wish.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, BaseOperator, Param
from airflow.sdk.bases.hook import BaseHook
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from tidemill.airflow.dags import runbook
from tidemill.airflow.hook import CONN_ID, ConnectionLike, TidemillHook, open_connection
from tidemill.errors import DatabaseUnavailable, SpecError
from tidemill.lifecycle.driver_state import observe
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.control import streams as stream_rows
from tidemill.supervisor.launcher import is_gone

log = logging.getLogger(__name__)
ALL = "all"
ACTIONS = ("start", "stop", "restart")
WAIT_SECONDS = 300.0
"""Spark needs 15 s to start and a driver 120 s at most to leave; a busy Airflow takes a minute to notice."""
_POLL_SECONDS = 2.0
_BY_LENGTH = 128

Wish = dict[str, Any]
"""``stream``, ``wanted``, ``by``, and ``after``: the epoch that is to be over."""


def control_dag(streams: Collection[str]) -> DAG:
    """``control_streams``: wish -> settle, when somebody fills in its form."""
    with DAG(
        dag_id="control_streams",
        schedule=None,
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        # A wish must not queue behind one that waits for a stream which does not come.
        max_active_runs=16,
        default_args={"owner": "tidemill", "retries": 2, "retry_delay": timedelta(seconds=10)},
        params=form(streams),
        tags=["tidemill", "control", "all-pipelines"],
        description="Starts, stops or restarts streams",
        doc_md=runbook.CONTROL_DOC,
    ) as dag:
        wish = PythonOperator(task_id="wish", python_callable=write_requests, op_kwargs={"streams": sorted(streams)})
        wish >> ConfirmOperator(task_id="settle", retries=0)
    return dag


def form(streams: Collection[str]) -> dict[str, Param]:
    """What the DAG's form asks for. The stream has no default: nobody stops one by not reading."""
    names = [*sorted(streams), ALL]
    return {
        "stream": Param(type="string", enum=names, title="Stream", description="One, or all"),
        "action": Param("start", type="string", enum=list(ACTIONS), title="Action"),
    }


def write_requests(streams: Sequence[str], *, params: Mapping[str, Any], run_id: str, dag_run: Any) -> list[Wish]:
    """Write what the form asks for; returns what is to come true.

    Raises:
        AirflowFailException: it asks for what there is not.
        DatabaseUnavailable: the database cannot be reached. Airflow tries again.
    """
    try:
        names, action = _asked(streams, params)
    except SpecError as error:
        raise AirflowFailException(str(error)) from error
    person = str(dag_run.triggering_user_name or "somebody")
    by = f"airflow: {person[:48]}, {run_id}"[:_BY_LENGTH]
    with closing(TidemillHook().get_conn()) as connection:
        rows = {row.stream: row for row in stream_rows.read_streams(connection)}
        if action == "restart" and params["stream"] == ALL:
            # What a person has stopped is not started by the way.
            names = [name for name in names if name in rows and rows[name].desired_state == "running"]
        for name in names:
            if action == "restart":
                stream_rows.request_exit(connection, name, by)
            else:
                stream_rows.request_state(connection, name, "running" if action == "start" else "stopped", by)
        after = {row.stream: row.exit_epoch or 0 for row in stream_rows.read_streams(connection)}
    log.info("%s is asked to %s", ", ".join(names) or "no stream", action)
    wanted = "stopped" if action == "stop" else "running"
    return [
        {"stream": name, "desired_state": wanted, "by": by, "after": int(after[name]) if action == "restart" else 0}
        for name in names
    ]


def _asked(streams: Sequence[str], params: Mapping[str, Any]) -> tuple[list[str], str]:
    name, action = params["stream"], params["action"]
    if action not in ACTIONS:
        raise SpecError("no such action", value=action, remedy=f"one of: {', '.join(ACTIONS)}")
    if name == ALL:
        return list(streams), action
    if name not in streams:
        raise SpecError("no such stream", value=name, remedy=f"one of: {', '.join([*streams, ALL])}")
    return [str(name)], action


def outcome_of(row: StreamRow | None, wish: Wish, *, gone: bool) -> tuple[bool | None, str]:
    """Whether a wish came true, and why not if not.

    Args:
        row: the stream's, None if it has gone.
        wish: what was wished of it.
        gone: whether its newest driver's process is known to have ended.

    Returns:
        True: it is as wished. False: it will not be. None: not yet.
    """
    if row is None:
        return False, "nothing is known of it any more"
    if hopeless := _why_never(row, wish):
        return False, hopeless
    if wish["desired_state"] == "stopped":
        observed = observe(row, gone=gone)
        settled, why = not observed.is_alive, f"its driver of epoch {row.epoch} is {observed.driver_state}"
    else:
        settled = observe(row, gone=gone).is_running and row.epoch > wish["after"]
        why = _why_not_yet(row, wish, gone)
    return (True, "") if settled else (None, why)


def _why_never(row: StreamRow, wish: Wish) -> str | None:
    if row.desired_state != wish["desired_state"]:
        return f"it was wished {row.desired_state} meanwhile, by {row.requested_by}"
    if wish["desired_state"] == "stopped":
        return None
    if row.newest_version == 0:
        return f"no version of its pipeline is applied; run ./tidemill apply {row.stream}"
    return f"it is halted: {row.halted_reason}" if row.halted_reason else None


def _why_not_yet(row: StreamRow, wish: Wish, gone: bool) -> str:
    if row.epoch <= wish["after"] and observe(row, gone=gone).is_alive:
        return f"its driver of epoch {row.epoch} has not left yet"
    if row.last_error:
        return f"its last driver said: {row.last_error}"
    if row.waiting_for:
        return f"its driver waits for {row.waiting_for}"
    if row.acquired_at is not None and row.acquired_at >= row.requested_at:
        return "its driver is starting"
    return f"no driver was started; is the DAG stream__{row.stream} switched on?"


class ConfirmOperator(BaseOperator):
    """Waits until streams are as wished. Holds no worker while it does.

    Args:
        wait_seconds: how long at most.
        conn_id: Airflow connection of the database.

    Raises:
        AirflowFailException: one is not, or will not be; a sentence for each.
    """

    def __init__(self, *, wait_seconds: float = WAIT_SECONDS, conn_id: str = CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wait_seconds, self.conn_id = wait_seconds, conn_id

    def execute(self, context: Any) -> None:
        """Hand over to the triggerer."""
        wishes: list[Wish] = context["ti"].xcom_pull(task_ids="wish") or []
        if wishes:
            trigger = ConfirmTrigger(wishes, time.time() + self.wait_seconds, self.wait_seconds, self.conn_id)
            self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: dict[str, Any]) -> None:
        """Say how it ended."""
        for sentence in event["settled"]:
            self.log.info("%s", sentence)
        if event["failed"]:
            raise AirflowFailException("; ".join(event["failed"]))


class ConfirmTrigger(BaseTrigger):
    """Fires once, when each wish came true or will not, or the time is over.

    Args:
        wishes: what is to come true.
        until: when the time is over, in seconds since 1970: another triggerer may go on with it.
        seconds: how long that was.
        conn_id: Airflow connection of the database, which is waited for where it is away.
    """

    def __init__(self, wishes: list[Wish], until: float, seconds: float, conn_id: str = CONN_ID) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no annotations
        self.wishes, self.until, self.seconds, self.conn_id = wishes, until, seconds, conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow keeps it."""
        kept = ("wishes", "until", "seconds", "conn_id")
        return f"{__name__}.ConfirmTrigger", {name: getattr(self, name) for name in kept}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: ``settled`` and ``failed``, sentences."""
        target: ConnectionLike = await BaseHook.aget_connection(self.conn_id)
        while True:
            late = time.time() >= self.until
            try:
                found = await asyncio.to_thread(self._look, target)
            except DatabaseUnavailable as error:
                found = {wish["stream"]: (None, str(error)) for wish in self.wishes}
            if late or all(settled is not None for settled, _ in found.values()):
                yield self._event(found)
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _look(self, target: ConnectionLike) -> dict[str, tuple[bool | None, str]]:
        with closing(open_connection(target)) as connection:
            # Whether a process is gone is looked at before the row is read: what it wrote last stands there then.
            before = {row.stream: row for row in stream_rows.read_streams(connection)}
            gone = {name: row.epoch for name, row in before.items() if is_gone(row)}
            rows = {row.stream: row for row in stream_rows.read_streams(connection)}
        return {
            wish["stream"]: outcome_of(
                row := rows.get(wish["stream"]), wish, gone=row is not None and gone.get(row.stream) == row.epoch
            )
            for wish in self.wishes
        }

    def _event(self, found: Mapping[str, tuple[bool | None, str]]) -> TriggerEvent:
        wanted = {wish["stream"]: wish["desired_state"] for wish in self.wishes}
        late = f" after {self.seconds:.0f} s"
        payload = {
            "settled": [f"stream {name} is {wanted[name]}" for name, (settled, _) in found.items() if settled],
            "failed": [
                f"stream {name} is not {wanted[name]}{late if settled is None else ''}: {why}"
                for name, (settled, why) in found.items()
                if not settled
            ],
        }
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's has no annotations
