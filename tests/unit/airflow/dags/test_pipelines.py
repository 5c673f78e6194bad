"""The pipelines that are read for a DAG."""

from __future__ import annotations

import pytest

from tidemill.airflow.dags.pipelines import contributes_to


@pytest.mark.parametrize(
    ("dag_id", "names"),
    [
        (None, {"tides", "tides__high"}),
        ("maintenance", {"tides", "tides__high"}),
        ("control_streams", {"tides", "tides__high"}),
        ("stream__tides", {"tides"}),
        ("replay__tides__high", {"tides__high"}),
        ("refresh__tides__flood", {"tides"}),
        ("refresh__tides__high__flood", {"tides", "tides__high"}),
        ("stream__ebbs", set()),
    ],
)
def test_a_task_reads_only_the_pipeline_of_its_dag(dag_id: str | None, names: set[str]) -> None:
    """Its start costs the same however many pipelines there are; an ambiguous DAG id reads both candidates."""
    assert {name for name in ("tides", "tides__high") if contributes_to(dag_id, name)} == names
