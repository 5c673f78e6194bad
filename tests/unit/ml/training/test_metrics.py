"""Metrics against their definitions, and what their intervals promise. MLlib's values: tests/spark/test_metrics.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.ml.training.metrics import ScoredRows, calibration, interval, resample
from tidemill.spec.estimators import METRICS

LABEL = np.array([0.0, 0.0, 1.0, 1.0])
SCORE = np.array([0.1, 0.4, 0.35, 0.8])


def rows(label: list[float], score: list[float]) -> ScoredRows:
    return ScoredRows(np.array(label), np.array(score))


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        # The example of scikit-learn's roc_auc_score and log_loss, whose values are these.
        pytest.param("areaUnderROC", 0.75, id="areaUnderROC"),
        pytest.param("logLoss", 0.4722879, id="logLoss"),
        pytest.param("areaUnderPR", 0.5 * 1 + 0.5 * (1 / 2 + 2 / 3) / 2, id="areaUnderPR"),
        pytest.param("mae", (0.1 + 0.4 + 0.65 + 0.2) / 4, id="mae"),
        pytest.param("rmse", ((0.01 + 0.16 + 0.4225 + 0.04) / 4) ** 0.5, id="rmse"),
        pytest.param("r2", 1 - (0.01 + 0.16 + 0.4225 + 0.04) / 1, id="r2"),
    ],
)
def test_known_values(metric: str, value: float) -> None:
    """Each metric of four rows is what its definition gives."""
    assert ScoredRows(LABEL, SCORE).measure(metric) == pytest.approx(value, abs=1e-7)


def test_a_constant_score_ranks_nothing() -> None:
    """Equal scores are one threshold: half of the area under ROC, the share of 1 under the curve of precision."""
    constant = rows([1.0, 0.0, 0.0, 0.0], [0.3] * 4)
    assert constant.measure("areaUnderROC") == 0.5
    assert constant.measure("areaUnderPR") == 0.25


def test_a_ranking_that_is_no_probability_has_the_loss_of_another() -> None:
    """The loss is of the given probability; the areas are of the score."""
    measured = ScoredRows(LABEL, np.array([-3.0, 40.0, 35.0, 800.0]), np.full(4, 0.5))
    assert measured.measure("areaUnderROC") == 0.75
    assert measured.measure("logLoss") == pytest.approx(np.log(2))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(0, 6), st.integers(0, 3)), min_size=4, max_size=40))
def test_a_weight_is_a_repetition(given_rows: list[tuple[float, int, int]]) -> None:
    """A row of weight n counts as n rows, and one of weight 0 as none: a resample is nothing but weights."""
    label, tenths, times = (np.array(column) for column in zip(*given_rows, strict=True))
    score = tenths / 7 + 0.05
    again = ScoredRows(np.repeat(label, times), np.repeat(score, times))
    if not times.sum():
        return
    for metric in (name for name in METRICS if name != "silhouette"):
        weighted, repeated = ScoredRows(label, score).measure(metric, times.astype(float)), again.measure(metric)
        assert weighted == pytest.approx(repeated, abs=1e-9, nan_ok=True), metric


def test_what_rows_do_not_define_is_no_number() -> None:
    """Of one class there is no area under ROC, and of equal labels no share of their spread."""
    assert np.isnan(rows([1.0, 1.0], [0.2, 0.3]).measure("areaUnderROC"))
    assert np.isnan(rows([2.0, 2.0], [0.2, 0.3]).measure("r2"))
    assert interval(np.array([np.nan, np.nan, 0.5])) is None
    assert interval(np.array([0.4, 0.5, 0.6, np.nan])) is not None


def some_scores(count: int = 400, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(7)
    label = (dice.random(count) < 0.4).astype(float)
    return label, 1 / (1 + np.exp(-(label - 0.5) - noise * dice.normal(size=count)))


def test_the_same_seed_gives_the_same_interval() -> None:
    """Intervals are repeatable; another seed gives others, about as wide."""
    label, score = some_scores()
    ends = [
        interval(resample({1: ScoredRows(label, score)}, ["areaUnderROC"], seed)[1]["areaUnderROC"])
        for seed in (1, 1, 2)
    ]
    assert ends[0] == ends[1] != ends[2]
    assert ends[0] is not None
    assert ends[0][0] < ScoredRows(label, score).measure("areaUnderROC") < ends[0][1]


def test_more_rows_are_surer() -> None:
    """With sixteen times as many rows an interval is about a quarter as wide."""

    def width(count: int) -> float:
        label, score = some_scores(count)
        found = interval(resample({1: ScoredRows(label, score)}, ["areaUnderROC"], 3)[1]["areaUnderROC"])
        assert found is not None
        return found[1] - found[0]

    assert width(8_000) == pytest.approx(width(500) / 4, rel=0.4)


def test_candidates_are_resampled_in_pairs() -> None:
    """The difference of two that are equal but for a little is far surer than either of them."""
    label, score = some_scores()
    better = ScoredRows(label, score + 0.02 * label)
    found = resample({1: ScoredRows(label, score), 2: better}, ["areaUnderROC"], 5)
    alone = interval(found[1]["areaUnderROC"])
    paired = interval(found[2]["areaUnderROC"] - found[1]["areaUnderROC"])
    assert alone is not None
    assert paired is not None
    assert 0 < paired[0] < paired[1]
    assert paired[1] - paired[0] < (alone[1] - alone[0]) / 4


def test_calibration_shows_over_confidence() -> None:
    """Ten bins of equal count: predictions that are right lie on the diagonal, exaggerated ones leave it."""
    dice = np.random.default_rng(11)
    probability = dice.random(20_000)
    label = (dice.random(20_000) < probability).astype(float)
    right = calibration(label, probability)
    assert [each["rows"] for each in right] == [2_000] * 10
    assert all(each["predicted"] == pytest.approx(each["observed"], abs=0.04) for each in right)
    bold = calibration(label, np.clip(probability * 2 - 0.5, 0, 1))
    assert bold[0]["observed"] > bold[0]["predicted"] + 0.03
    assert bold[-1]["observed"] < bold[-1]["predicted"] - 0.03
    assert len(calibration(label[:3], probability[:3])) == 3, "no empty bins"
