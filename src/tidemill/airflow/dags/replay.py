"""The DAG ``replay__<pipeline>``: reads records of the pipeline again."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from tidemill.airflow.dags import START_DATE, replay_tasks, runbook
from tidemill.airflow.spark_job import SparkJob, submission
from tidemill.config import Settings
from tidemill.deploy.catalog import CatalogEntry

_REPLAY_ID = "{{ ti.xcom_pull(task_ids='request') }}"


def replay_dags(settings: Settings, entry: CatalogEntry) -> list[DAG]:
    """The DAG of a pipeline's replays."""
    return [replay_dag(settings, entry)]


def replay_dag(settings: Settings, entry: CatalogEntry) -> DAG:
    """``replay__<pipeline>``: request -> run -> report, triggered by its form."""
    pipeline = entry.pipeline
    with DAG(
        dag_id=f"replay__{pipeline.name}",
        schedule=None,
        start_date=START_DATE,
        catchup=False,
        auto_register=False,  # Airflow would also load a DAG whose declaration failed
        max_active_runs=1,
        default_args={
            "owner": pipeline.owner,
            "retries": 2,
            "retry_delay": timedelta(seconds=20),
            "on_failure_callback": replay_tasks.record_failure,
        },
        params=replay_tasks.form(),
        tags=["tidemill", "replay", pipeline.name],
        description=f"Reads records of {pipeline.name} again",
        doc_md=runbook.replay_doc(pipeline, entry.rejection),
    ) as dag:
        request = PythonOperator(
            task_id="request", python_callable=replay_tasks.request, op_kwargs={"pipeline": pipeline.name}
        )
        # Each retry continues after the last commit of the one before.
        arguments = ["--pipeline", pipeline.name, "--replay", _REPLAY_ID]
        run = SparkJob(task_id="run", **submission("replay", settings, pipeline.name, arguments))
        report = PythonOperator(
            task_id="report", python_callable=replay_tasks.report, op_kwargs={"replay_id": _REPLAY_ID}
        )
        request >> run >> report
    return dag
