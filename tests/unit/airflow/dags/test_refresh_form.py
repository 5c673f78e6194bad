"""What the form of a refresh asks for, and what it cannot ask for."""

from typing import Any

import pytest

from tidemill.airflow.dags.refresh_form import form, request_of
from tidemill.errors import ModelError


def filled(**given: Any) -> dict[str, Any]:
    """The form, with some fields filled in."""
    return {name: param.value for name, param in form().items()} | given


def test_an_untouched_form_asks_for_nothing() -> None:
    """The schedule decides, as in a run that nobody asked for."""
    asked = request_of(filled())
    assert (asked.force, asked.options) == (False, None)


def test_train_now_asks_for_nothing_but_training() -> None:
    """Nothing stands in the row of the refresh."""
    asked = request_of(filled(force=True))
    assert (asked.force, asked.options) == (True, None)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"train_from": "2026-01-01"}, {"from": "2026-01-01", "until": None, "parameters": {}}),
        ({"train_until": "2026-02-01T00:00:00+01:00"}, {"until": "2026-02-01T00:00:00+01:00"}),
        ({"parameters": {"maxDepth": 3}}, {"parameters": {"maxDepth": 3}}),
    ],
)
def test_a_range_of_time_or_parameters_imply_training(given: dict[str, Any], options: dict[str, Any]) -> None:
    """They would otherwise be asked for nothing."""
    asked = request_of(filled(**given))
    assert asked.force
    assert asked.options is not None
    assert asked.options.items() >= options.items()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train_from": "yesterday"}, "from of the run is not a time: yesterday"),
        ({"train_from": "2026-02-01", "train_until": "2026-01-01"}, "from of the run is not before until"),
        ({"parameters": ["maxDepth"]}, "parameters of the run is not a JSON object"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(given: dict[str, Any], said: str) -> None:
    """The value stands in it, and what to write instead."""
    with pytest.raises(ModelError, match=said):
        request_of(filled(**given))
