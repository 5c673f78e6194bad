"""What the form of a run asks for."""

from __future__ import annotations

import pytest

from tidemill.errors import ModelError
from tidemill.ml.training.options import Options, parse_options


@pytest.mark.parametrize("text", [None, "", "{}", '{"from": null, "until": "", "parameters": null, "train": true}'])
def test_nothing_asked_is_nothing_changed(text: str | None) -> None:
    """Without options, or with empty ones, all rows and the declared parameters count; other keys are not ours."""
    found = parse_options(text)
    assert (found.from_us, found.until_us, dict(found.parameters)) == (None, None, {})


def test_a_range_and_parameters() -> None:
    """Times are UTC unless they say otherwise; the document itself is kept."""
    text = '{"from": "2013-06-01", "until": "2013-06-02T01:00:00+01:00", "parameters": {"maxDepth": 4}}'
    found = parse_options(text)
    assert found == Options(1370044800_000000, 1370131200_000000, {"maxDepth": 4}, found.asked)
    assert found.asked["from"] == "2013-06-01"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("{", r"the options of the run are not JSON: ", id="no-json"),
        pytest.param("[1]", r"are not a JSON object: \[1\]; ", id="no-object"),
        pytest.param('{"parameters": [1]}', r"parameters of the run is not a JSON object: \[1\]; ", id="parameters"),
        pytest.param(
            '{"from": "in June"}', r"from of the run is not a time: in June; write it as 2013-06-01", id="from"
        ),
        pytest.param('{"until": 5}', r"until of the run is not a time: 5; ", id="until"),
        pytest.param(
            '{"from": "2013-06-01", "until": "2013-06-01"}',
            r"from of the run is not before until: ",
            id="no-time-between",
        ),
    ],
)
def test_what_was_asked_wrongly_is_a_sentence(text: str, sentence: str) -> None:
    """Each wrong value is named with its remedy."""
    with pytest.raises(ModelError, match=sentence):
        parse_options(text)
