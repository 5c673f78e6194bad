"""The way from a stream's task to its driver's log."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from tidemill.airflow.log_link import DriverLogLink
from tidemill.airflow.operators import StreamOperator


@pytest.mark.parametrize(
    ("base", "address"),
    [("", "/tidemill/logs/tides"), ("https://ops.example/airflow/", "/airflow/tidemill/logs/tides")],
)
def test_the_link_leads_to_the_console_of_the_server_that_shows_it(
    monkeypatch: pytest.MonkeyPatch, base: str, address: str
) -> None:
    """Behind a proxy, too, under whichever name the page was asked for."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    assert DriverLogLink().get_link(StreamOperator(task_id="run", pipeline="tides")) == address


def test_airflow_keeps_the_link_with_the_task() -> None:
    """Its page reads the address from an XCom of this name, and needs no plugin for it."""
    with DAG("tides", schedule=None) as dag:
        StreamOperator(task_id="run", pipeline="tides")
    task = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("run")
    assert task.extra_links == ["Driver log"]
    assert task.operator_extra_link_dict["Driver log"].xcom_key == DriverLogLink().xcom_key
