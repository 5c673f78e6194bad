"""The DAGs of a pipeline. Building them reads the pipeline's folder and nothing else: no network, database or Spark."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, get_parsing_context

from tidemill.airflow.dags import replay, runbook
from tidemill.airflow.dags.prepare import prepare
from tidemill.airflow.operators import StartRequestedOperator, StreamOperator
from tidemill.airflow.spark_job import SparkJob, submission
from tidemill.config import Settings
from tidemill.deploy.catalog import CatalogEntry, list_rejections, read_catalog
from tidemill.errors import SpecError

_BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
"""Airflow wants a day on which scheduling may begin; any day in the past does."""
_REPLAY_ID = "{{ ti.xcom_pull(task_ids='ask') }}"


def catalog_entries(settings: Settings) -> list[CatalogEntry]:
    """The pipelines by name; where a task is about to run, only the one whose DAG it belongs to."""
    asked = get_parsing_context().dag_id
    return list(read_catalog(settings, lambda name: _concerns(asked, name)))


def _concerns(dag_id: str | None, name: str) -> bool:
    """Whether a DAG may be one of a pipeline's, or is made from all pipelines."""
    if dag_id is None or not dag_id.startswith(("stream__", "replay__", "refresh__")):
        return True
    return dag_id in (f"stream__{name}", f"replay__{name}") or dag_id.startswith(f"refresh__{name}__")


def refuse_broken_pipelines(settings: Settings) -> None:
    """Say what is wrong with every pipeline folder that is refused.

    Raises:
        SpecError: one sentence for each.
    """
    refused = list_rejections(settings)
    if refused:
        raise SpecError("\n".join(refused))


def stream_dag(found: CatalogEntry) -> DAG:
    """``stream__<pipeline>``: wanted? -> prepare -> run, for ever."""
    pipeline = found.pipeline
    with DAG(
        dag_id=f"stream__{pipeline.name}",
        schedule="@continuous",
        start_date=_BEGINNING,
        catchup=False,
        max_active_runs=1,
        # A run of this DAG lasts as long as the stream: the next run is the retry of a whole run.
        default_args={"owner": pipeline.owner, "retries": 0},
        tags=["tidemill", "stream", pipeline.name],
        description=f"Keeps the stream {pipeline.name} running while it is wanted",
        doc_md=runbook.stream_doc(pipeline, found.rejection),
    ) as dag:
        wanted = StartRequestedOperator(
            task_id="wanted", stream=pipeline.name, freshness_seconds=pipeline.slo.freshness_seconds
        )
        ready = PythonOperator(
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
        wanted >> ready >> run
    return dag


def replay_dag(settings: Settings, found: CatalogEntry) -> DAG:
    """``replay__<pipeline>``: ask -> run -> tell, when somebody fills in its form."""
    pipeline = found.pipeline
    with DAG(
        dag_id=f"replay__{pipeline.name}",
        schedule=None,
        start_date=_BEGINNING,
        catchup=False,
        max_active_runs=1,
        default_args={
            "owner": pipeline.owner,
            "retries": 2,
            "retry_delay": timedelta(seconds=20),
            "on_failure_callback": replay.record_failure,
        },
        params=replay.form(),
        tags=["tidemill", "replay", pipeline.name],
        description=f"Reads records of {pipeline.name} again",
        doc_md=runbook.replay_doc(pipeline, found.rejection),
    ) as dag:
        ask = PythonOperator(task_id="ask", python_callable=replay.request, op_kwargs={"pipeline": pipeline.name})
        # Every try goes on where the one before it broke.
        arguments = ["--pipeline", pipeline.name, "--replay", _REPLAY_ID]
        run = SparkJob(task_id="run", **submission("replay", settings, pipeline.name, arguments))
        tell = PythonOperator(task_id="tell", python_callable=replay.report, op_kwargs={"replay_id": _REPLAY_ID})
        ask >> run >> tell
    return dag
