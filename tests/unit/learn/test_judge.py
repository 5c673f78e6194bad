"""Promotion by measure."""

import math

import pytest

from tidemill.learn.judge import judge


@pytest.mark.parametrize(
    ("challenger", "champion", "baseline", "margin", "promote"),
    [
        pytest.param(0.70, None, 0.69, 0.002, True, id="first-better-than-baseline"),
        pytest.param(0.69, None, 0.69, 0.002, False, id="first-equal-to-baseline"),
        pytest.param(0.60, None, 0.69, 0.0, False, id="first-worse-than-baseline"),
        pytest.param(0.75, 0.70, 0.80, 0.002, True, id="the-baseline-is-for-the-first-only"),
        pytest.param(0.701, 0.70, 0.50, 0.002, False, id="less-than-margin"),
        pytest.param(0.702, 0.70, 0.50, 0.002, True, id="exactly-margin"),
        pytest.param(0.902, 0.90, 0.50, 0.002, True, id="exactly-margin-whatever-doubles-say"),
        pytest.param(0.70, 0.70, 0.50, 0.0, False, id="equal-without-margin"),
        pytest.param(math.nan, 0.70, 0.50, 0.0, False, id="challenger-not-measured"),
        pytest.param(0.70, None, math.nan, 0.0, False, id="baseline-not-measured"),
    ],
)
def test_promotes_what_is_better_by_the_margin(
    challenger: float, champion: float | None, baseline: float, margin: float, promote: bool
) -> None:
    """A first model must beat the baseline, any other the champion by the margin; not measured is never better."""
    assert judge(challenger, champion, baseline, margin).promote is promote


def test_the_reason_names_both_measures() -> None:
    """The recorded sentence holds what was compared and what was wanted."""
    assert (
        judge(0.7011, 0.7, 0.5, 0.002).reason
        == "the challenger's 0.7011 against 0.7000 of the champion: a gain of +0.0011 where at least 0.002 is wanted"
    )
    assert (
        judge(0.71, None, 0.7, 0.002).reason
        == "the challenger's 0.7100 against 0.7000 of the baseline: better by 0.0100"
    )
