"""What Airflow tells its plugins: that a person marked a task or a run as failed.

Every process of Airflow loads this, so that what it leads to is loaded when it happens.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from airflow.utils.state import TaskInstanceState

PREFIX = "stream__"


@hookimpl
def on_task_instance_failed(
    previous_state: TaskInstanceState | None,
    task_instance: RuntimeTaskInstance | TaskInstance,
    error: str | BaseException | None,
) -> None:
    """A task failed. Only the server, where a person marks one, knows no state before."""
    if previous_state is None:
        _marked(task_instance.dag_id, task_instance.run_id)


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:
    """A run failed. The scheduler has other words for it."""
    if "manually set" in msg:
        _marked(dag_run.dag_id, dag_run.run_id)


def _marked(dag_id: str, run_id: str) -> None:
    if dag_id.startswith(PREFIX):
        importlib.import_module("tidemill.airflow.listeners.mark_failed").heed(
            dag_id.removeprefix(PREFIX), dag_id, run_id
        )
