"""The DAG of a model: fresh? -> train -> promote -> (approve ->) score -> publish."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, TriggerRule

from tidemill.airflow import assets
from tidemill.airflow.approval import ApproveOperator
from tidemill.airflow.dags import refresh_form, refresh_tasks, runbook
from tidemill.airflow.spark_job import RefreshJob, submission
from tidemill.config import Settings
from tidemill.deploy.catalog import CatalogEntry
from tidemill.spec import Model
from tidemill.spec.schema import Approval

_BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
"""Airflow wants a day on which scheduling may begin; any day in the past does."""
_REFRESH_ID = "{{ ti.xcom_pull(task_ids='fresh', key='refresh_id') }}"


def schedule(pipeline: str, model: Model) -> Any:
    """By the clock, after so many commits, or by whichever comes first."""
    time, number = model.score.schedule, model.score.after_commits
    if number is None:
        return time
    news = assets.commits(pipeline, number)
    if time is None:
        return [news]
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(time, timezone="UTC"), assets=[news])


def refresh_dag(settings: Settings, found: CatalogEntry, name: str) -> DAG:
    """``refresh__<pipeline>__<model>``."""
    pipeline = found.pipeline
    model = pipeline.models[name]
    with DAG(
        dag_id=f"refresh__{pipeline.name}__{name}",
        schedule=schedule(pipeline.name, model),
        start_date=_BEGINNING,
        catchup=False,
        max_active_runs=1,
        on_failure_callback=refresh_tasks.RunFailed(pipeline.name, name),
        default_args={
            "owner": pipeline.owner,
            # One more try for what goes away by itself; the next run of the schedule is the one after that.
            "retries": 1,
            "retry_delay": timedelta(seconds=20),
            "execution_timeout": timedelta(hours=2),
            "on_failure_callback": refresh_tasks.record_failure,
        },
        params=refresh_form.form(),
        tags=["tidemill", "refresh", pipeline.name],
        description=f"Trains, promotes and scores {pipeline.name}.{name}",
        doc_md=runbook.refresh_doc(pipeline, name, model, found.rejection),
    ) as dag:
        _tasks(settings, pipeline.name, name, model)
    return dag


def _tasks(settings: Settings, pipeline: str, name: str, model: Model) -> None:
    this = {"pipeline": pipeline, "model": name}
    table, fitted = assets.table(pipeline, model.table), assets.model(pipeline, name)
    fresh = BranchPythonOperator(
        task_id="fresh",
        python_callable=refresh_tasks.fresh,
        op_kwargs=this,
        # Two minutes for a stream that is catching up; after that it is the stream that needs a look.
        retries=8,
        retry_delay=timedelta(seconds=15),
    )
    train = _job("train", settings, this, inlets=[table], outlets=[fitted])
    promote = BranchPythonOperator(task_id="promote", python_callable=refresh_tasks.promote, op_kwargs=this)
    score = _job("score", settings, this, inlets=[table, fitted], trigger_rule=TriggerRule.NONE_FAILED)
    publish = PythonOperator(
        task_id="publish",
        python_callable=refresh_tasks.publish,
        op_kwargs=this,
        inlets=[table, fitted],
        outlets=[assets.scores(pipeline, model.score.table)],
    )
    fresh >> train >> promote >> score >> publish
    fresh >> score
    if model.promotion.approval is Approval.MANUAL:
        promote >> ApproveOperator(task_id="approve", **this) >> score


def _job(job: str, settings: Settings, this: dict[str, str], **kwargs: Any) -> RefreshJob:
    arguments = ["--pipeline", this["pipeline"], "--model", this["model"], "--refresh", _REFRESH_ID]
    subject = f"{this['pipeline']}.{this['model']}"
    return RefreshJob(
        task_id=job, refresh=_REFRESH_ID, **this, **submission(job, settings, subject, arguments), **kwargs
    )
