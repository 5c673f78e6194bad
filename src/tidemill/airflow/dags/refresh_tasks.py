"""The tasks of a refresh that need no Spark: is there something to do, who is champion, make the scores visible."""

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
from tidemill.deploy.catalog import find_pipeline
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
"""Key of the XCom that ``fresh`` leaves for the tasks after it."""


def fresh(pipeline: str, model: str, *, run_id: str, params: Mapping[str, Any], ti: Any) -> list[str]:
    """Decide what this run does, and open the refresh if it does something.

    Returns:
        The task to go on with: ``train``, ``score``, or none.

    Raises:
        AirflowFailException: the form asks for what there cannot be; another try would not help.
        StreamError: the tables are not as fresh as the pipeline promises. Airflow asks again for a while.
        ModelError: the model is being refreshed by another run. Airflow asks again for a while.
    """
    try:
        asked = request_of(params)
    except ModelError as error:
        raise AirflowFailException(str(error)) from error
    with at_work(pipeline) as (spec, connection):
        decision = decide_refresh(read_refresh_inputs(connection, spec, model, force=asked.force))
        log.info("%s.%s: %s (%s)", pipeline, model, decision.action, decision.reason)
        if decision.action is Action.WAIT:
            raise StreamError(f"stream {pipeline} is not fresh enough", value=decision.reason, remedy="see its DAG")
        if decision.action is Action.SKIP:
            return []
        _close_what_was_left(connection, spec, model, ti)
        ti.xcom_push(key=REFRESH_ID, value=begin_refresh(connection, spec, model, run_id, asked.options))
        return [decision.action.value]


def _close_what_was_left(connection: Connection[Any], spec: Pipeline, model: str, ti: Any) -> None:
    """Close refreshes of runs that have ended: no task of theirs is there to do it once a person marks them failed."""
    for run in running_refreshes(connection, spec.name, model):
        if run != ti.run_id and ti.get_dr_count(dag_id=ti.dag_id, run_ids=[run], states=["failed", "success"]):
            fail_run(connection, spec.name, model, run, f"its run {run} has ended")


def promote(pipeline: str, model: str, *, ti: Any) -> list[str]:
    """Promote or reject what was trained, or leave that to a person.

    Returns:
        ``approve``, ``score``, or nothing where there is no champion to score with.
    """
    refresh_id = refresh_of(ti)
    with at_work(pipeline) as (spec, connection):
        reopen_refresh(connection, spec, model, refresh_id)
        verdict = promote_or_reject(connection, spec, model, refresh_id)
        said = "waits for a person" if verdict.waiting else "promoted" if verdict.promote else "rejected"
        log.info("%s.%s: %s, %s", pipeline, model, said, verdict.reason)
        return ["approve"] if verdict.waiting else score_next(connection, spec, model, refresh_id, verdict.reason)


def score_next(connection: Connection[Any], spec: Pipeline, model: str, refresh_id: int, reason: str) -> list[str]:
    """``score``; or nothing, and the refresh is closed with the reason, where there is no champion to score with."""
    if read_champion(connection, spec.name, model) is None:
        end_refresh(connection, refresh_id, "skipped", reason=reason)
        return []
    return ["score"]


def publish(pipeline: str, model: str, *, ti: Any) -> int:
    """Make the scores of a refresh visible; returns how many rows got one."""
    with at_work(pipeline) as (spec, connection):
        reopen_refresh(connection, spec, model, refresh_of(ti))
        rows = publish_refresh(connection, config.load(), spec, model, refresh_of(ti))
    log.info("%s.%s: %d scores became visible", pipeline, model, rows)
    return rows


def record_failure(context: Any) -> None:
    """Close the refresh of a task that failed for good. A callback of Airflow's."""
    ti = context["ti"]
    refresh_id = ti.xcom_pull(task_ids="fresh", key=REFRESH_ID)
    if refresh_id is None:
        return
    reason = f"{ti.task_id}: {context.get('exception')}"
    with suppress(TidemillError), closing(TidemillHook().get_conn()) as connection:
        # Suppressed: the task is red already, and a database that is away has nowhere to note it.
        end_refresh(connection, int(refresh_id), "failed", reason=reason[:1000])


class RunFailed:
    """Closes the refresh of a run that failed where no task could say so: its worker was killed. A callback.

    Args:
        pipeline: whose model.
        model: which.
    """

    def __init__(self, pipeline: str, model: str) -> None:
        self.pipeline, self.model = pipeline, model

    def __call__(self, context: Any) -> None:
        """Airflow's DAG processor or scheduler calls."""
        run = context.get("run_id") or context["dag_run"].run_id
        with suppress(TidemillError), closing(TidemillHook().get_conn()) as connection:
            # Suppressed, as above.
            fail_run(connection, self.pipeline, self.model, run, f"its run failed: {context.get('reason')}")


def refresh_of(ti: Any) -> int:
    """The refresh that ``fresh`` opened."""
    return int(ti.xcom_pull(task_ids="fresh", key=REFRESH_ID))


@contextmanager
def at_work(pipeline: str) -> Iterator[tuple[Pipeline, Connection[Any]]]:
    """The pipeline, and a connection as the stream account."""
    spec = find_pipeline(config.load(), pipeline).pipeline
    with closing(TidemillHook().get_conn()) as connection:
        yield spec, connection
