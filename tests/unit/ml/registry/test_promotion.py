"""Promotion by measure."""

import math

import pytest

from tidemill.ml.registry.promotion import Comparison, PromotionCriteria, Verdict, decide_promotion

SMALLER = PromotionCriteria(0.1, larger_is_better=False)


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
    assert decide_promotion(Comparison(challenger, champion, baseline), PromotionCriteria(margin)).promote is promote


@pytest.mark.parametrize(
    ("challenger", "champion", "promote"),
    [
        pytest.param(10.0, None, True, id="first-below-the-baseline"),
        pytest.param(13.0, None, False, id="first-above-the-baseline"),
        pytest.param(10.0, 10.1, True, id="less-by-the-margin"),
        pytest.param(10.0, 10.05, False, id="not-less-by-the-margin"),
        pytest.param(10.2, 10.0, False, id="more-than-the-champion"),
    ],
)
def test_of_an_error_less_is_better(challenger: float, champion: float | None, promote: bool) -> None:
    """Where a metric is an error or a loss, the challenger must have less of it."""
    assert decide_promotion(Comparison(challenger, champion, 12.0), SMALLER).promote is promote


def reason(compared: Comparison, criteria: PromotionCriteria) -> str:
    """The recorded reason."""
    return decide_promotion(compared, criteria).reason


def test_the_reason_names_both_values() -> None:
    """The recorded reason holds what was compared, the gain, and what was required."""
    assert (
        reason(Comparison(0.7011, 0.7, 0.5), PromotionCriteria(0.002))
        == "challenger 0.7011, champion 0.7000: gain +0.0011, at least 0.002 required"
    )
    assert (
        reason(Comparison(0.71, None, 0.7), PromotionCriteria(0.002))
        == "challenger 0.7100, baseline 0.7000: gain +0.0100, more than 0 required"
    )


def test_the_reason_holds_the_interval_of_the_gain() -> None:
    """Where less is better, the ends of the difference's interval are exchanged."""
    sure = reason(Comparison(0.72, 0.7, 0.5, difference=(0.01, 0.03)), PromotionCriteria(0.002))
    assert sure.endswith("gain +0.0200 (95 %: +0.0100 to +0.0300), at least 0.002 required")
    unsure = reason(Comparison(9.95, 10.0, 12.0, difference=(-0.2, 0.1)), SMALLER)
    assert unsure.endswith("gain +0.0500 (95 %: -0.1000 to +0.2000), at least 0.1 required")
    assert "challenger 1234.50, champion 1300.00" in reason(Comparison(1234.5, 1300.0, 1.0), SMALLER)


def test_the_reason_names_a_champion_that_saw_the_holdout() -> None:
    """A champion that was trained on held-out rows has an advantage."""
    compared = Comparison(0.7, 0.8, 0.5, champion_saw_holdout=True)
    assert "champion 0.8000, which was trained on some of these rows:" in reason(compared, PromotionCriteria(0.0))
    first = Comparison(0.7, None, 0.5, champion_saw_holdout=True)
    assert "trained on" not in reason(first, PromotionCriteria(0.0)), "it is not compared with the champion"


def test_a_person_may_have_the_last_word() -> None:
    """With manual promotion a better challenger waits, with the same reason; a worse one is rejected as ever."""
    better, worse = Comparison(0.72, 0.7, 0.5), Comparison(0.68, 0.7, 0.5)
    manual = PromotionCriteria(0.002, manual=True)
    assert decide_promotion(better, manual) == Verdict(False, reason(better, PromotionCriteria(0.002)), waiting=True)
    assert (
        decide_promotion(worse, manual)
        == decide_promotion(worse, PromotionCriteria(0.002))
        == Verdict(False, reason(worse, manual))
    )
