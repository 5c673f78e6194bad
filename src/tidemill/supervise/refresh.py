"""The tasks of a refresh that need no Spark: is there something to do, who is champion, make the scores visible."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

from pymysql.connections import Connection

from tidemill import config
from tidemill.errors import StreamError, TidemillError
from tidemill.learn.judge import judge_refresh
from tidemill.learn.publish import publish as publish_refresh
from tidemill.learn.refresh import Action, begin_refresh, decide_refresh, end_refresh, read_facts
from tidemill.learn.versions import champion
from tidemill.spec import Pipeline
from tidemill.supervise.hook import TidemillHook
from tidemill.supervise.standing import find

log = logging.getLogger(__name__)
REFRESH_ID = "refresh_id"
"""Key of the XCom that ``fresh`` leaves for the tasks after it."""


def fresh(pipeline: str, model: str, *, run_id: str, params: Mapping[str, Any], ti: Any) -> list[str]:
    """Decide what this run does, and open the refresh if it does something.

    Returns:
        The task to go on with: ``train``, ``score``, or none.

    Raises:
        StreamError: the tables are not as fresh as the pipeline promises. Airflow asks again for a while.
    """
    with _at_work(pipeline) as (spec, connection):
        decision = decide_refresh(read_facts(connection, spec, model, force=bool(params["force"])))
        log.info("%s.%s: %s (%s)", pipeline, model, decision.action, decision.reason)
        if decision.action is Action.WAIT:
            raise StreamError(f"stream {pipeline} is not fresh enough", value=decision.reason, remedy="see its DAG")
        if decision.action is Action.SKIP:
            return []
        ti.xcom_push(key=REFRESH_ID, value=begin_refresh(connection, spec, model, run_id))
        return [decision.action.value]


def judge(pipeline: str, model: str, *, ti: Any) -> list[str]:
    """Promote or reject what was trained.

    Returns:
        ``score``, or nothing where there is no champion to score with.
    """
    refresh_id = _refresh_of(ti)
    with _at_work(pipeline) as (spec, connection):
        verdict = judge_refresh(connection, spec, model, refresh_id)
        log.info("%s.%s: %s, %s", pipeline, model, "promoted" if verdict.promote else "rejected", verdict.reason)
        if champion(connection, pipeline, model) is None:
            end_refresh(connection, refresh_id, "skipped", reason=verdict.reason)
            return []
        return ["score"]


def publish(pipeline: str, model: str, *, ti: Any) -> int:
    """Make the scores of a refresh visible; returns how many rows got one."""
    with _at_work(pipeline) as (spec, connection):
        rows = publish_refresh(connection, config.load(), spec, model, _refresh_of(ti))
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


def _refresh_of(ti: Any) -> int:
    """The refresh that ``fresh`` opened."""
    return int(ti.xcom_pull(task_ids="fresh", key=REFRESH_ID))


@contextmanager
def _at_work(pipeline: str) -> Iterator[tuple[Pipeline, Connection[Any]]]:
    spec = find(config.load(), pipeline).pipeline
    with closing(TidemillHook().get_conn()) as connection:
        yield spec, connection
