"""The DAG ``refresh__<pipeline>__<model>``: trains, promotes, scores and publishes a model."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, TriggerRule

from tidemill.airflow import assets
from tidemill.airflow.approval import ApproveOperator
from tidemill.airflow.dags import START_DATE, refresh_form, refresh_tasks, runbook
from tidemill.airflow.spark_job import RefreshJob, submission
from tidemill.config import Settings
from tidemill.deploy.catalog import CatalogEntry
from tidemill.spec import Model
from tidemill.spec.schema import Approval

_REFRESH_ID = "{{ ti.xcom_pull(task_ids='decide', key='refresh_id') }}"


def schedule(pipeline: str, model: Model) -> Any:
    """The model's schedule for Airflow: a cron expression, a number of commits, or whichever of both comes first."""
    cron, number = model.score.schedule, model.score.after_commits
    if number is None:
        return cron
    commits = assets.commits(pipeline, number)
    if cron is None:
        return [commits]
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(cron, timezone="UTC"), assets=[commits])


def refresh_dags(settings: Settings, entry: CatalogEntry) -> list[DAG]:
    """The DAGs of a pipeline's models."""
    return [refresh_dag(settings, entry, name) for name in entry.pipeline.models]


def refresh_dag(settings: Settings, entry: CatalogEntry, name: str) -> DAG:
    """``refresh__<pipeline>__<model>``: decide -> train -> promote -> (approve ->) score -> publish."""
    pipeline = entry.pipeline
    model = pipeline.models[name]
    with DAG(
        dag_id=f"refresh__{pipeline.name}__{name}",
        schedule=schedule(pipeline.name, model),
        start_date=START_DATE,
        catchup=False,
        auto_register=False,  # Airflow would also load a DAG whose declaration failed
        max_active_runs=1,
        on_failure_callback=refresh_tasks.RecordRunFailure(pipeline.name, name),
        default_args={
            "owner": pipeline.owner,
            # One retry for transient errors; the next run of the schedule is the one after that.
            "retries": 1,
            "retry_delay": timedelta(seconds=20),
            "execution_timeout": timedelta(hours=2),
            "on_failure_callback": refresh_tasks.record_failure,
        },
        params=refresh_form.form(),
        tags=["tidemill", "refresh", pipeline.name],
        description=f"Trains, promotes, scores and publishes the model {pipeline.name}.{name}",
        doc_md=runbook.refresh_doc(pipeline, name, model, entry.rejection),
    ) as dag:
        _declare_tasks(settings, pipeline.name, name, model)
    return dag


def _declare_tasks(settings: Settings, pipeline: str, name: str, model: Model) -> None:
    this = {"pipeline": pipeline, "model": name}
    table, fitted = assets.table(pipeline, model.table), assets.model(pipeline, name)
    decide = BranchPythonOperator(
        task_id="decide",
        python_callable=refresh_tasks.decide,
        op_kwargs=this,
        # Twelve minutes in all: as long as a driver may take to start on a cluster, and to measure. A stream whose
        # tables are still behind after that needs attention itself.
        retries=8,
        retry_delay=timedelta(seconds=15),
        retry_exponential_backoff=2,
        max_retry_delay=timedelta(minutes=2),
    )
    train = _spark_job("train", settings, this, inlets=[table], outlets=[fitted])
    promote = BranchPythonOperator(task_id="promote", python_callable=refresh_tasks.promote, op_kwargs=this)
    score = _spark_job("score", settings, this, inlets=[table, fitted], trigger_rule=TriggerRule.NONE_FAILED)
    publish = PythonOperator(
        task_id="publish",
        python_callable=refresh_tasks.publish,
        op_kwargs=this,
        inlets=[table, fitted],
        outlets=[assets.scores(pipeline, model.score.table)],
    )
    decide >> train >> promote >> score >> publish
    decide >> score
    if model.promotion.approval is Approval.MANUAL:
        promote >> ApproveOperator(task_id="approve", **this) >> score


def _spark_job(job: str, settings: Settings, this: dict[str, str], **kwargs: Any) -> RefreshJob:
    arguments = ["--pipeline", this["pipeline"], "--model", this["model"], "--refresh", _REFRESH_ID]
    subject = f"{this['pipeline']}.{this['model']}"
    return RefreshJob(
        task_id=job, refresh=_REFRESH_ID, **this, **submission(job, settings, subject, arguments), **kwargs
    )
