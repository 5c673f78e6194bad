"""The tasks of a refresh that need no Spark: decide what to do, promote the challenger, publish the scores."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

from airflow.sdk.exceptions import AirflowFailException
from pymysql.connections import Connection

from tidemill import config
from tidemill.airflow.dags.refresh_form import request_of
from tidemill.airflow.hook import TidemillHook
from tidemill.deploy.snapshots import applied_pipeline, unapplied_changes
from tidemill.errors import ModelError, StreamError, TidemillError
from tidemill.ml.refresh import (
    Action,
    begin_refresh,
    decide_refresh,
    end_refresh,
    fail_run,
    read_refresh_inputs,
    reopen_refresh,
    running_refreshes,
)
from tidemill.ml.registry.promotion import promote_or_reject
from tidemill.ml.registry.versions import read_champion
from tidemill.ml.serving.publish import publish as publish_refresh
from tidemill.spec import Pipeline

log = logging.getLogger(__name__)
REFRESH_ID = "refresh_id"
"""Key of the XCom by which ``decide`` passes the refresh to the other tasks."""


def decide(pipeline: str, model: str, *, run_id: str, params: Mapping[str, Any], ti: Any) -> list[str]:
    """Decide what this run does, and open a refresh if it does anything.

    Returns:
        The task to go on with: ``train``, ``score``, or none.

    Raises:
        AirflowFailException: a field of the form has an invalid value; a retry would not help.
        StreamError: the tables are further behind than the pipeline allows, or that is not measured yet. Airflow
            retries for twelve minutes.
        ModelError: another run is refreshing the model. Airflow retries for twelve minutes.
    """
    try:
        request = request_of(params)
    except ModelError as error:
        raise AirflowFailException(str(error)) from error
    with open_pipeline(pipeline) as (spec, connection):
        decision = decide_refresh(read_refresh_inputs(connection, spec, model, force=request.force))
        log.info("%s.%s: %s (%s)", pipeline, model, decision.action, decision.reason)
        if decision.action is Action.WAIT:
            raise StreamError("TM-AIRFLOW-STREAM-NOT-FRESH", value=decision.reason, stream=pipeline)
        if decision.action is Action.SKIP:
            return []
        _close_abandoned_refreshes(connection, spec, model, ti)
        ti.xcom_push(key=REFRESH_ID, value=begin_refresh(connection, spec, model, run_id, request.options))
        return [decision.action.value]


def _close_abandoned_refreshes(connection: Connection[Any], spec: Pipeline, model: str, ti: Any) -> None:
    """Close refreshes of runs that have ended: a run that a person marked as failed has no task left to do it."""
    for run in running_refreshes(connection, spec.name, model):
        if run != ti.run_id and ti.get_dr_count(dag_id=ti.dag_id, run_ids=[run], states=["failed", "success"]):
            fail_run(connection, spec.name, model, run, f"its run {run} has ended")


def promote(pipeline: str, model: str, *, ti: Any) -> list[str]:
    """Promote or reject the challenger, or leave the decision to a person.

    Returns:
        ``approve``, ``score``, or no task if there is no champion to score with.
    """
    refresh_id = refresh_id_of(ti)
    with open_pipeline(pipeline) as (spec, connection):
        reopen_refresh(connection, spec, model, refresh_id)
        verdict = promote_or_reject(connection, spec, model, refresh_id)
        state = "waits for approval" if verdict.waiting else "promoted" if verdict.promote else "rejected"
        log.info("%s.%s: %s, %s", pipeline, model, state, verdict.reason)
        if verdict.waiting:
            return ["approve"]
        return tasks_after_decision(connection, spec, model, refresh_id, verdict.reason)


def tasks_after_decision(
    connection: Connection[Any], spec: Pipeline, model: str, refresh_id: int, reason: str
) -> list[str]:
    """``score``; without a champion to score with, no task, and the refresh is closed with the reason."""
    if read_champion(connection, spec.name, model) is None:
        end_refresh(connection, refresh_id, "skipped", reason=reason)
        return []
    return ["score"]


def publish(pipeline: str, model: str, *, ti: Any) -> int:
    """Make the scores of a refresh visible to readers; returns how many rows have one."""
    with open_pipeline(pipeline) as (spec, connection):
        reopen_refresh(connection, spec, model, refresh_id_of(ti))
        rows = publish_refresh(connection, config.load(), spec, model, refresh_id_of(ti))
    log.info("%s.%s: published %d scores", pipeline, model, rows)
    return rows


def record_failure(context: Any) -> None:
    """Airflow's callback for a task without retries left: close the refresh as failed."""
    ti = context["ti"]
    refresh_id = ti.xcom_pull(task_ids="decide", key=REFRESH_ID)
    if refresh_id is None:
        return
    reason = f"{ti.task_id}: {context.get('exception')}"
    # Suppressed: the task has failed already, and an unavailable database has no place to note it.
    with suppress(TidemillError), closing(TidemillHook().get_conn()) as connection:
        end_refresh(connection, int(refresh_id), "failed", reason=reason[:1000])


class RecordRunFailure:
    """Airflow's callback for a run that failed without a task's own callback, because its worker was killed.

    Args:
        pipeline: name of the pipeline.
        model: name of its model.
    """

    def __init__(self, pipeline: str, model: str) -> None:
        self.pipeline, self.model = pipeline, model

    def __call__(self, context: Any) -> None:
        """Close the run's refresh as failed. Runs in Airflow's DAG processor or scheduler."""
        run = context.get("run_id") or context["dag_run"].run_id
        # Suppressed as in :func:`record_failure`.
        with suppress(TidemillError), closing(TidemillHook().get_conn()) as connection:
            fail_run(connection, self.pipeline, self.model, run, f"its run failed: {context.get('reason')}")


def refresh_id_of(ti: Any) -> int:
    """The refresh that ``decide`` opened in this run."""
    return int(ti.xcom_pull(task_ids="decide", key=REFRESH_ID))


@contextmanager
def open_pipeline(pipeline: str) -> Iterator[tuple[Pipeline, Connection[Any]]]:
    """The pipeline as it was applied last, and a connection with the stream account."""
    settings = config.load()
    with closing(TidemillHook().get_conn()) as connection:
        spec, version = applied_pipeline(settings, connection, pipeline)
        for warning in unapplied_changes(settings, spec, version):
            log.warning("%s", warning)
        yield spec, connection
