"""The DAG ``control_streams``: a form by which a person starts, stops or restarts streams.

One task writes the requested state, and another one waits, in the triggerer, until the stream has reached it. The DAG
``stream__<pipeline>`` acts on the request, as it does on those of the command line and the console.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, BaseOperator, Param
from airflow.sdk.exceptions import AirflowFailException

from tidemill.airflow.connections import CONN_ID
from tidemill.airflow.dags import runbook
from tidemill.airflow.hook import TidemillHook
from tidemill.airflow.triggers.request_outcome import RequestOutcomeTrigger, StateRequest
from tidemill.errors import SpecError
from tidemill.store.control import streams as stream_rows

log = logging.getLogger(__name__)
ALL = "all"
ACTIONS = ("start", "stop", "restart")
WAIT_SECONDS = 300.0
"""Spark needs 15 s to start, a driver at most 120 s to exit, and a busy Airflow a minute to schedule."""
_BY_LENGTH = 128


def control_streams_dag(streams: Collection[str]) -> DAG:
    """``control_streams``: request -> await_outcome, triggered by its form."""
    with DAG(
        dag_id="control_streams",
        schedule=None,
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        # A request must not queue behind one that waits for a stream which does not start.
        max_active_runs=16,
        default_args={"owner": "tidemill", "retries": 2, "retry_delay": timedelta(seconds=10)},
        params=form(streams),
        tags=["tidemill", "control", "all-pipelines"],
        description="Starts, stops or restarts streams",
        doc_md=runbook.CONTROL_STREAMS_DOC,
    ) as dag:
        request = PythonOperator(
            task_id="request", python_callable=write_requests, op_kwargs={"streams": sorted(streams)}
        )
        request >> AwaitOutcomeOperator(task_id="await_outcome", retries=0)
    return dag


def form(streams: Collection[str]) -> dict[str, Param]:
    """The fields of the DAG's form. The stream has no default, so that an untouched form stops no stream."""
    names = [*sorted(streams), ALL]
    return {
        "stream": Param(type="string", enum=names, title="Stream", description="One stream, or all"),
        "action": Param("start", type="string", enum=list(ACTIONS), title="Action"),
    }


def write_requests(
    streams: Sequence[str], *, params: Mapping[str, Any], run_id: str, dag_run: Any
) -> list[StateRequest]:
    """Write the states that the form requests; returns them for the task that waits.

    Raises:
        AirflowFailException: the form names an unknown stream or action.
        DatabaseUnavailable: the database cannot be reached. Airflow retries the task.
    """
    try:
        names, action = _selected(streams, params)
    except SpecError as error:
        raise AirflowFailException(str(error)) from error
    person = str(dag_run.triggering_user_name or "unknown user")
    by = f"airflow: {person[:48]}, {run_id}"[:_BY_LENGTH]
    with closing(TidemillHook().get_conn()) as connection:
        rows = {row.stream: row for row in stream_rows.read_streams(connection)}
        if action == "restart" and params["stream"] == ALL:
            # Streams that a person has stopped stay stopped.
            names = [name for name in names if name in rows and rows[name].desired_state == "running"]
        for name in names:
            if action == "restart":
                stream_rows.request_exit(connection, name, by)
            else:
                stream_rows.request_state(connection, name, "running" if action == "start" else "stopped", by)
        exit_epochs = {row.stream: row.exit_epoch or 0 for row in stream_rows.read_streams(connection)}
    log.info("requested %s of: %s", action, ", ".join(names) or "no stream")
    return [
        StateRequest(
            stream=name,
            desired_state="stopped" if action == "stop" else "running",
            by=by,
            after_epoch=int(exit_epochs[name]) if action == "restart" else 0,
        )
        for name in names
    ]


def _selected(streams: Sequence[str], params: Mapping[str, Any]) -> tuple[list[str], str]:
    name, action = params["stream"], params["action"]
    if action not in ACTIONS:
        raise SpecError("TM-AIRFLOW-ACTION-UNKNOWN", value=action, known=", ".join(ACTIONS))
    if name == ALL:
        return list(streams), action
    if name not in streams:
        raise SpecError("TM-AIRFLOW-STREAM-UNKNOWN", value=name, known=", ".join([*streams, ALL]))
    return [str(name)], action


class AwaitOutcomeOperator(BaseOperator):
    """Waits, without a worker slot, until streams have reached their requested states.

    Args:
        wait_seconds: how long at most.
        conn_id: Airflow connection of the database.

    Raises:
        AirflowFailException: a stream did not reach its state in time, or will not; one sentence for each.
    """

    def __init__(self, *, wait_seconds: float = WAIT_SECONDS, conn_id: str = CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wait_seconds, self.conn_id = wait_seconds, conn_id

    def execute(self, context: Any) -> None:
        """Defer to the triggerer."""
        requests: list[StateRequest] = context["ti"].xcom_pull(task_ids="request") or []
        if requests:
            trigger = RequestOutcomeTrigger(requests, time.time() + self.wait_seconds, self.wait_seconds, self.conn_id)
            self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: dict[str, Any]) -> None:
        """Log what was reached, and fail with what was not."""
        for sentence in event["reached"]:
            self.log.info("%s", sentence)
        if event["failed"]:
            raise AirflowFailException("; ".join(event["failed"]))
