"""The DAG ``maintenance``: once a day it maintains tables, ledger, models and files, and verifies every pipeline."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from airflow.providers.apache.kafka.hooks.client import KafkaAdminClientHook
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param
from airflow.sdk.exceptions import AirflowFailException

from tidemill import config
from tidemill.airflow import notifications
from tidemill.airflow.dags import START_DATE, runbook
from tidemill.config import Account, Settings
from tidemill.deploy.snapshots import applied_pipeline
from tidemill.errors import VerifyError
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.supervisor.maintenance import describe, maintain_files, maintain_pipeline, verify_and_report

log = logging.getLogger(__name__)
SCHEDULE = "23 3 * * *"
"""Once a day, at an hour by which the runs of schedules such as @daily have ended."""


def maintenance_dag(pipelines: Iterable[Pipeline]) -> DAG:
    """``maintenance``: maintain -> verify for each pipeline, and the files of this host."""
    with DAG(
        dag_id="maintenance",
        schedule=SCHEDULE,
        start_date=START_DATE,
        catchup=False,
        max_active_runs=1,
        default_args={
            "owner": "tidemill",
            "retries": 2,
            "retry_delay": timedelta(minutes=1),
            "execution_timeout": timedelta(hours=6),
        },
        params={
            "dry_run": Param(
                False, type="boolean", title="Dry run", description="Report what would be removed, and remove nothing"
            )
        },
        tags=["tidemill", "maintenance", "all-pipelines"],
        description="Maintains ledger, tables, models and files, and verifies every pipeline",
        doc_md=runbook.MAINTENANCE_DOC,
    ) as dag:
        PythonOperator(task_id="maintain_files", python_callable=_maintain_files)
        for pipeline in pipelines:
            this: dict[str, Any] = {"op_kwargs": {"pipeline": pipeline.name}, "owner": pipeline.owner}
            maintain = PythonOperator(task_id=f"maintain__{pipeline.name}", python_callable=_maintain, **this)
            verify = PythonOperator(task_id=f"verify__{pipeline.name}", python_callable=_verify, **this)
            maintain >> verify
    return dag


def _maintain(pipeline: str, *, params: dict[str, bool]) -> None:
    settings = config.load()
    facts = maintain_pipeline(settings, _applied(settings, pipeline), dry_run=params["dry_run"])
    for sentence in describe(facts):
        log.info("%s: %s", pipeline, sentence)


def _applied(settings: Settings, pipeline: str) -> Pipeline:
    with session(settings, Account.READ) as connection:
        return applied_pipeline(settings, connection, pipeline)[0]


def _maintain_files(*, params: dict[str, bool]) -> None:
    for sentence in describe(maintain_files(config.load(), dry_run=params["dry_run"])):
        log.info("%s", sentence)


def _verify(pipeline: str, **context: Any) -> None:
    settings = config.load()
    spec = _applied(settings, pipeline)
    try:
        findings = verify_and_report(settings, spec, KafkaAdminClientHook().get_conn)
    except VerifyError as error:
        # A retry would only find the same difference again.
        raise AirflowFailException(str(error)) from error
    finally:
        with session(settings, Account.STREAM) as connection:
            notifications.notify(connection, f"stream {pipeline}", context, settings)
    for note in findings.notes:
        log.info("%s: %s", pipeline, note)
