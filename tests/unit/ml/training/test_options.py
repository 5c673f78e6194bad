"""The options that the form of a run requests."""

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
    """Times are UTC unless they carry an offset; the document itself is kept."""
    text = '{"from": "2013-06-01", "until": "2013-06-02T01:00:00+01:00", "parameters": {"maxDepth": 4}}'
    found = parse_options(text)
    assert found == Options(1370044800_000000, 1370131200_000000, {"maxDepth": 4}, found.document)
    assert found.document["from"] == "2013-06-01"


@pytest.mark.parametrize(
    ("text", "code", "value"),
    [
        pytest.param("[1]", "TM-ML-OPTIONS-NOT-OBJECT", "[1]", id="no-object"),
        pytest.param('{"parameters": [1]}', "TM-ML-OPTIONS-PARAMETERS", "[1]", id="parameters"),
        pytest.param('{"from": "in June"}', "TM-ML-OPTIONS-TIME", "in June", id="from"),
        pytest.param('{"until": 5}', "TM-ML-OPTIONS-TIME", 5, id="until"),
        pytest.param(
            '{"from": "2013-06-01", "until": "2013-06-01"}',
            "TM-ML-OPTIONS-RANGE",
            "2013-06-01 to 2013-06-01",
            id="no-time-between",
        ),
    ],
)
def test_a_wrong_option_is_an_error(text: str, code: str, value: object) -> None:
    """Each condition has its code, and the error names the wrong value."""
    with pytest.raises(ModelError) as raised:
        parse_options(text)
    assert (raised.value.code, raised.value.value) == (code, value)


def test_text_that_is_no_json_is_an_error() -> None:
    """The error holds what the parser reports."""
    with pytest.raises(ModelError) as raised:
        parse_options("{")
    assert raised.value.code == "TM-ML-OPTIONS-NOT-JSON"
    assert "line 1" in str(raised.value.value)
