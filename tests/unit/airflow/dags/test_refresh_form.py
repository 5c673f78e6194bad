"""The form of a refresh: what it requests, and which values are rejected."""

from typing import Any

import pytest

from tidemill.airflow.dags.refresh_form import form, request_of
from tidemill.errors import ModelError


def filled(**fields: Any) -> dict[str, Any]:
    """The form, with some fields filled in."""
    return {name: param.value for name, param in form().items()} | fields


def test_an_untouched_form_requests_nothing() -> None:
    """The schedule decides, as in a scheduled run."""
    request = request_of(filled())
    assert (request.force, request.options) == (False, None)


def test_train_now_requests_training_without_options() -> None:
    """The row of the refresh has no options."""
    request = request_of(filled(force=True))
    assert (request.force, request.options) == (True, None)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"train_from": "2026-01-01"}, {"from": "2026-01-01", "until": None, "parameters": {}}),
        ({"train_until": "2026-02-01T00:00:00+01:00"}, {"until": "2026-02-01T00:00:00+01:00"}),
        ({"parameters": {"maxDepth": 3}}, {"parameters": {"maxDepth": 3}}),
    ],
)
def test_a_range_of_time_or_parameters_imply_training(fields: dict[str, Any], options: dict[str, Any]) -> None:
    """They only apply to a training."""
    request = request_of(filled(**fields))
    assert request.force
    assert request.options is not None
    assert request.options.items() >= options.items()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"train_from": "yesterday"}, "TM-ML-OPTIONS-TIME"),
        ({"train_from": "2026-02-01", "train_until": "2026-01-01"}, "TM-ML-OPTIONS-RANGE"),
        ({"parameters": ["maxDepth"]}, "TM-ML-OPTIONS-PARAMETERS"),
    ],
    ids=["no time", "empty range", "no object"],
)
def test_an_invalid_field_is_rejected(fields: dict[str, Any], code: str) -> None:
    """Each condition has its code."""
    with pytest.raises(ModelError) as caught:
        request_of(filled(**fields))
    assert caught.value.code == code
