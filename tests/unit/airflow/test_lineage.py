"""What OpenLineage's provider gets of a refresh: from table to model to scores, and no secret."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.utils.state import TaskInstanceState
from openlineage.client.serde import Serde

from support.paths import TIDES
from tidemill import config
from tidemill.airflow.dags.refresh import refresh_dag
from tidemill.deploy.catalog import CatalogEntry
from tidemill.spec import load_pipeline

SERVER = "db.example:3306"
TABLE, MODEL = f"mysql://{SERVER}/operational.tides", f"tidemill://{SERVER}/tidemill/tides.flood"
SCORES = f"mysql://{SERVER}/operational.tide_scores"


@pytest.fixture
def dag(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The DAG of a model, in an installation with a password."""
    monkeypatch.setenv("TIDEMILL_DB_HOST", "db.example")
    monkeypatch.setenv("TIDEMILL_DB_PORT", "3306")
    monkeypatch.setenv("TIDEMILL_DB_STREAM_PASSWORD", "geheim")
    return refresh_dag(config.load(), CatalogEntry(load_pipeline(TIDES)), "flood")


def lineage(dag: Any, task_id: str) -> Any:
    """What the provider extracts of a task that has succeeded."""
    task, run = dag.get_task(task_id), SimpleNamespace(run_id="a run")
    ti = SimpleNamespace(task_id=task_id, dag_id=dag.dag_id, task=task)
    return ExtractorManager().extract_metadata(run, task, TaskInstanceState.SUCCESS, ti)


def names(datasets: Any) -> set[str]:
    """Namespace and name of each."""
    return {f"{each.namespace}/{each.name}" for each in datasets}


@pytest.mark.parametrize(
    ("task_id", "inputs", "outputs"),
    [
        ("decide", set(), set()),
        ("train", {TABLE}, {MODEL}),
        ("promote", set(), set()),
        ("score", {TABLE, MODEL}, set()),
        ("publish", {TABLE, MODEL}, {SCORES}),
    ],
)
def test_a_task_declares_what_it_reads_and_writes(dag: Any, task_id: str, inputs: set[str], outputs: set[str]) -> None:
    """By the names that other tools use for the same tables."""
    found = lineage(dag, task_id)
    assert (names(found.inputs), names(found.outputs)) == (inputs, outputs)


def test_no_secret_is_in_what_is_sent(dag: Any) -> None:
    """Neither in datasets nor in facets."""
    for task_id in dag.task_ids:
        assert "geheim" not in Serde.to_json(lineage(dag, task_id))
