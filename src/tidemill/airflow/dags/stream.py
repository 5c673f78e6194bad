"""The DAG ``stream__<pipeline>``: keeps the pipeline's stream running while its desired state is running."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from tidemill.airflow.dags import START_DATE, runbook
from tidemill.airflow.dags.prepare import prepare
from tidemill.airflow.operators import StartRequestedOperator, StreamOperator
from tidemill.config import Settings
from tidemill.deploy.catalog import CatalogEntry


def stream_dags(_settings: Settings, entry: CatalogEntry) -> list[DAG]:
    """The DAG of a pipeline's stream."""
    return [stream_dag(entry)]


def stream_dag(entry: CatalogEntry) -> DAG:
    """``stream__<pipeline>``: await_start_request -> prepare -> run, continuously."""
    pipeline = entry.pipeline
    with DAG(
        dag_id=f"stream__{pipeline.name}",
        schedule="@continuous",
        start_date=START_DATE,
        catchup=False,
        auto_register=False,  # Airflow would also load a DAG whose declaration failed
        max_active_runs=1,
        # A run of this DAG lasts as long as the stream: the next run is the retry of a whole run.
        default_args={"owner": pipeline.owner, "retries": 0},
        tags=["tidemill", "stream", pipeline.name],
        description=f"Keeps the stream {pipeline.name} running while its desired state is running",
        doc_md=runbook.stream_doc(pipeline, entry.rejection),
    ) as dag:
        await_start_request = StartRequestedOperator(
            task_id="await_start_request", stream=pipeline.name, freshness_seconds=pipeline.slo.freshness_seconds
        )
        preparation = PythonOperator(
            task_id="prepare",
            python_callable=prepare,
            op_kwargs={"pipeline": pipeline.name},
            # Without retries a missing topic would start a run every few seconds.
            retries=8,
            retry_delay=timedelta(seconds=5),
            retry_exponential_backoff=2,
            max_retry_delay=timedelta(minutes=1),
        )
        run = StreamOperator(task_id="run", pipeline=pipeline.name)
        await_start_request >> preparation >> run
    return dag
