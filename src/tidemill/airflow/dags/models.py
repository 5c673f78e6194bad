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


def models_dag(models: Collection[str]) -> DAG:
    """``control_models``: decide, when somebody fills in its form.

    Args:
        models: names, each ``<pipeline>.<model>``.
    """
    with DAG(
        dag_id="control_models",
        schedule=None,
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        # No second try: a rollback whose worker died after its commit would go back one version more.
        default_args={"owner": "tidemill", "retries": 0},
        params=form(models),
        tags=["tidemill", "control", "all-pipelines"],
        description="Approves, rejects or rolls back versions of models",
        doc_md=runbook.MODELS_DOC,
    ) as dag:
        PythonOperator(task_id="decide", python_callable=decide)
    return dag


def form(models: Collection[str]) -> dict[str, Param]:
    """What the DAG's form asks for. Neither model nor action has a default: nobody decides by not reading."""
    return {
        # Where no pipeline has a model, the form names none: an empty list of choices is no valid schema.
        "model": Param(type="string", enum=sorted(models) or ["none"], title="Model"),
        "action": Param(type="string", enum=list(ACTIONS), title="Action"),
        "version": Param(
            None, type=["null", "integer"], title="Version", description="If empty: what waits, or was published before"
        ),
    }


def decide(*, params: Mapping[str, Any], run_id: str, dag_run: Any) -> str:
    """Do what the form asks for; returns what was done.

    Raises:
        AirflowFailException: it cannot be done; another try would not help.
        TidemillError: the database is away.
    """
    by = f"airflow: {dag_run.triggering_user_name or 'somebody'}, {run_id}"
    try:
        with closing(TidemillHook().get_conn()) as connection:
            done = apply_action(connection, config.load(), params["model"], params["action"], params["version"], by)
    except TidemillError as error:
        if isinstance(error, Transient):
            raise
        raise AirflowFailException(str(error)) from error
    log.info("%s", done)
    return done
