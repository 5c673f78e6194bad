"""The listener that recognises when a person marks a stream's task or run as failed in Airflow.

Every process of Airflow loads this module, so it imports what it calls only when that happens.
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
    """A task failed. Only the API server, where a person marks a task, reports no previous state."""
    if previous_state is None:
        _request_stop(task_instance.dag_id, task_instance.run_id)


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:
    """A run failed. Only the API server, where a person marks a run, sends this message."""
    if "manually set" in msg:
        _request_stop(dag_run.dag_id, dag_run.run_id)


def _request_stop(dag_id: str, run_id: str) -> None:
    if dag_id.startswith(PREFIX):
        module = importlib.import_module("tidemill.airflow.listeners.stop_request")
        module.request_stop_of_run(dag_id.removeprefix(PREFIX), dag_id, run_id)
