"""The form of ``control_streams``: what it offers, and which requests are rejected."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError

from tidemill.airflow.dags.control_streams import form, write_requests


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (
            {"stream": "fligths", "action": "start"},
            "[TM-AIRFLOW-STREAM-UNKNOWN] no pipeline has a stream of this name: fligths;"
            " use one of flights, tides, all",
        ),
        (
            {"stream": "flights", "action": "pause"},
            "[TM-AIRFLOW-ACTION-UNKNOWN] control_streams has no such action: pause; use one of start, stop, restart",
        ),
    ],
)
def test_an_unknown_stream_or_action_is_rejected_before_anything_is_written(
    params: dict[str, str], sentence: str
) -> None:
    """No database is connected to, and Airflow does not retry the task."""
    with pytest.raises(AirflowFailException) as caught:
        write_requests(["flights", "tides"], params=params, run_id="a run", dag_run=None)
    assert str(caught.value) == sentence


def test_the_form_offers_every_stream_and_preselects_none() -> None:
    """An empty form stops no stream."""
    offered = form(["tides", "flights"])
    assert offered["stream"].schema["enum"] == ["flights", "tides", "all"]
    assert offered["action"].schema["enum"] == ["start", "stop", "restart"]
    assert offered["action"].resolve() == "start"
    with pytest.raises(ParamValidationError):
        offered["stream"].resolve()
    with pytest.raises(ParamValidationError):
        offered["stream"].resolve("fligths")
