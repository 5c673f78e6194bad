"""The DAG ``control_models``: a form by which a person approves, rejects or rolls back a version of a model."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param
from airflow.sdk.exceptions import AirflowFailException

from tidemill import config
from tidemill.airflow.dags import runbook
from tidemill.airflow.hook import TidemillHook
from tidemill.errors import TidemillError, Transient
from tidemill.ml.registry.review import ACTIONS, apply_action

log = logging.getLogger(__name__)


def control_models_dag(models: Collection[str]) -> DAG:
    """``control_models``: one task, apply_decision, triggered by its form.

    Args:
        models: names, each ``<pipeline>.<model>``.
    """
    with DAG(
        dag_id="control_models",
        schedule=None,
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        # No retry: after a rollback whose worker died past its commit, a retry would go back one version more.
        default_args={"owner": "tidemill", "retries": 0},
        params=form(models),
        tags=["tidemill", "control", "all-pipelines"],
        description="Approves, rejects or rolls back versions of models",
        doc_md=runbook.CONTROL_MODELS_DOC,
    ) as dag:
        PythonOperator(task_id="apply_decision", python_callable=apply_decision)
    return dag


def form(models: Collection[str]) -> dict[str, Param]:
    """The fields of the DAG's form. Model and action have no default, so that an untouched form decides nothing."""
    return {
        # Where no pipeline has a model, the form offers "none": an empty list of choices is no valid schema.
        "model": Param(type="string", enum=sorted(models) or ["none"], title="Model"),
        "action": Param(type="string", enum=list(ACTIONS), title="Action"),
        "version": Param(
            None,
            type=["null", "integer"],
            title="Version",
            description="If empty: the version that waits for approval, or for a rollback the one published before",
        ),
    }


def apply_decision(*, params: Mapping[str, Any], run_id: str, dag_run: Any) -> str:
    """Carry out what the form requests; returns what was done, as a sentence.

    Raises:
        AirflowFailException: the request cannot be carried out, and a retry would not help.
        TidemillError: the database is unavailable.
    """
    by = f"airflow: {dag_run.triggering_user_name or 'unknown user'}, {run_id}"
    try:
        with closing(TidemillHook().get_conn()) as connection:
            done = apply_action(connection, config.load(), params["model"], params["action"], params["version"], by)
    except TidemillError as error:
        if isinstance(error, Transient):
            raise
        raise AirflowFailException(str(error)) from error
    log.info("%s", done)
    return done
