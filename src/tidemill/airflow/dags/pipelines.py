"""The DAGs of each pipeline, and the error of those that have none.

Reads pipeline folders and nothing else: no network, no database, no Spark.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from airflow.sdk import DAG, get_parsing_context

from tidemill.config import Settings
from tidemill.deploy.catalog import CatalogEntry, list_rejections, read_catalog
from tidemill.errors import SpecError

log = logging.getLogger(__name__)
Build = Callable[[Settings, CatalogEntry], Iterable[DAG]]
"""Makes the DAGs of one kind of a pipeline."""


def catalog_entries(settings: Settings) -> list[CatalogEntry]:
    """All pipelines by name; in the process of a task, only the pipeline that its DAG belongs to."""
    dag_id = get_parsing_context().dag_id
    return list(read_catalog(settings, lambda name: contributes_to(dag_id, name)))


def contributes_to(dag_id: str | None, pipeline: str) -> bool:
    """Whether a pipeline is needed to build a DAG: because the DAG is its own, or is built from all pipelines."""
    if dag_id is None or not dag_id.startswith(("stream__", "replay__", "refresh__")):
        return True
    return dag_id in (f"stream__{pipeline}", f"replay__{pipeline}") or dag_id.startswith(f"refresh__{pipeline}__")


def build_dags(settings: Settings, build: Build) -> dict[str, DAG]:
    """The DAGs of one kind of all pipelines, by id.

    A pipeline whose DAGs cannot be built has none of this kind: an error of a DAG file would remove those of all
    pipelines. :func:`fail_on_rejected_pipelines` reports it.
    """
    return {dag.dag_id: dag for entry in catalog_entries(settings) for dag in _build(settings, entry, build)[0]}


def fail_on_rejected_pipelines(settings: Settings, builds: Iterable[Build]) -> None:
    """Fail, if any pipeline is rejected or has no DAGs of a kind, with a sentence for each of them.

    Raises:
        SpecError: there is at least one.
    """
    rejected = list_rejections(settings)
    for build in builds:
        for entry in read_catalog(settings):
            failure = _build(settings, entry, build)[1]
            if failure is not None:
                file = entry.pipeline.folder / "pipeline.yaml"
                rejected.append(f"pipeline {entry.pipeline.name}: {file}: {type(failure).__name__}: {failure}")
    if rejected:
        raise SpecError("TM-AIRFLOW-FOLDERS-REJECTED", value="\n".join(rejected))


def _build(settings: Settings, entry: CatalogEntry, build: Build) -> tuple[list[DAG], Exception | None]:
    """The DAGs, as valid as Airflow requires them of a DAG file, or why there are none."""
    try:
        dags = list(build(settings, entry))
        for dag in dags:
            dag.validate()  # type: ignore[no-untyped-call]  # Airflow declares no types for it
            dag.check_cycle()
    except Exception as failure:  # noqa: BLE001 -- whatever it is, it must not touch other pipelines; it is reported
        log.error("pipeline %s has no DAGs of a kind: %s", entry.pipeline.name, failure)
        return [], failure
    return dags, None
