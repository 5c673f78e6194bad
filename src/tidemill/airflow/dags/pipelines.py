"""The pipelines that DAGs are built from, and the error of those whose folder is rejected.

Reads pipeline folders and nothing else: no network, no database, no Spark.
"""

from __future__ import annotations

from airflow.sdk import get_parsing_context

from tidemill.config import Settings
from tidemill.deploy.catalog import CatalogEntry, list_rejections, read_catalog
from tidemill.errors import SpecError


def catalog_entries(settings: Settings) -> list[CatalogEntry]:
    """All pipelines by name; in the process of a task, only the pipeline that its DAG belongs to."""
    dag_id = get_parsing_context().dag_id
    return list(read_catalog(settings, lambda name: contributes_to(dag_id, name)))


def contributes_to(dag_id: str | None, pipeline: str) -> bool:
    """Whether a pipeline is needed to build a DAG: because the DAG is its own, or is built from all pipelines."""
    if dag_id is None or not dag_id.startswith(("stream__", "replay__", "refresh__")):
        return True
    return dag_id in (f"stream__{pipeline}", f"replay__{pipeline}") or dag_id.startswith(f"refresh__{pipeline}__")


def fail_on_rejected_folders(settings: Settings) -> None:
    """Fail, if any pipeline folder is rejected, with a sentence for each of them.

    Raises:
        SpecError: at least one folder is rejected.
    """
    rejected = list_rejections(settings)
    if rejected:
        raise SpecError("TM-AIRFLOW-FOLDERS-REJECTED", value="\n".join(rejected))
