"""Metrics of predictions over numpy arrays, and the bootstrap of their confidence intervals.

The definitions are MLlib's (``BinaryClassificationMetrics`` without down-sampling, ``MulticlassMetrics.logLoss``,
``RegressionMetrics``), and tests compare the values with MLlib's. Every metric takes weights, because a resample with
replacement is a weight for each row; so rows are sorted once, and not once for each resample.

Intervals are percentiles of the bootstrap (Efron, 1979): the middle 95 % of the values on 200 resamples of the held-out
rows. Rows are drawn one by one, as if they were independent. Rows of one day are not quite independent, so the true
interval may be wider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 200
CALIBRATION_BINS = 10
_MIDDLE = (2.5, 97.5)
_LEAST_PROBABILITY = 1e-15
"""As in MLlib: a probability of 0 for the label that occurred would be an infinite loss."""


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Held-out rows as one candidate scored them. The arrays are of equal length."""

    label: Floats
    score: Floats
    probability: Floats | None = None
    """What the loss is computed from where the score is a ranking and no probability."""

    @cached_property
    def _order(self) -> NDArray[np.intp]:
        """Indexes of the rows from the largest score down."""
        return np.argsort(-self.score, kind="stable")

    @cached_property
    def _starts(self) -> NDArray[np.intp]:
        """Where each distinct score begins in that order: equal scores share one threshold."""
        ordered = self.score[self._order]
        return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))

    @cached_property
    def _positive(self) -> Floats:
        return np.asarray(self.label[self._order] == 1.0, dtype=np.float64)

    @cached_property
    def _losses(self) -> Floats:
        """The loss of each row."""
        probability = self.score if self.probability is None else self.probability
        of_label = np.where(self.label == 1.0, probability, 1.0 - probability)
        return np.asarray(-np.log(np.clip(of_label, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)), dtype=np.float64)

    def _curve(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight of true and of false positives above each threshold, from the highest down."""
        ordered = weights[self._order]
        true = np.cumsum(np.add.reduceat(ordered * self._positive, self._starts))
        every = np.cumsum(np.add.reduceat(ordered, self._starts))
        return true, every - true

    def measure(self, metric: str, weights: Floats | None = None) -> float:
        """One metric, by its name in ``tidemill.spec.estimators``; NaN where the rows do not define it."""
        each = np.ones(len(self.label)) if weights is None else weights
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(getattr(self, f"_{metric}")(each))

    def _areaUnderROC(self, weights: Floats) -> float:
        true, false = self._curve(weights)
        return _area(np.concatenate(([0.0], false / false[-1])), np.concatenate(([0.0], true / true[-1])))

    def _areaUnderPR(self, weights: Floats) -> float:
        true, false = self._curve(weights)
        reached = true + false > 0  # the scores of rows that a resample leaves out are no thresholds
        true, false = true[reached], false[reached]
        precision = true / (true + false)
        return _area(np.concatenate(([0.0], true / true[-1])), np.concatenate((precision[:1], precision)))

    def _logLoss(self, weights: Floats) -> float:
        return _mean(self._losses, weights)

    def _rmse(self, weights: Floats) -> float:
        return float(np.sqrt(_mean((self.score - self.label) ** 2, weights)))

    def _mae(self, weights: Floats) -> float:
        return _mean(np.abs(self.score - self.label), weights)

    def _r2(self, weights: Floats) -> float:
        spread = _mean((self.label - _mean(self.label, weights)) ** 2, weights)
        return 1.0 - _mean((self.score - self.label) ** 2, weights) / spread if spread > 0 else float("nan")


def _area(across: Floats, up: Floats) -> float:
    return float(np.trapezoid(up, across))


def _mean(values: Floats, weights: Floats) -> float:
    return float(values @ weights / weights.sum())


def resample(
    candidates: Mapping[int, ScoredRows], metrics: Sequence[str], seed: int, rounds: int = RESAMPLES
) -> dict[int, dict[str, Floats]]:
    """Candidate -> metric -> its values, one for each resample. All candidates have the same resamples, so they pair.

    Args:
        candidates: the same rows in the same order, as each scored them.
        metrics: names.
        seed: the same seed gives the same resamples.
        rounds: how many resamples.
    """
    dice = np.random.default_rng(seed)
    rows = len(next(iter(candidates.values())).label)
    values = {number: {metric: np.empty(rounds) for metric in metrics} for number in candidates}
    for turn in range(rounds):
        weights = np.bincount(dice.integers(0, rows, rows), minlength=rows).astype(np.float64)
        for number, measured in candidates.items():
            for metric in metrics:
                values[number][metric][turn] = measured.measure(metric, weights)
    return values


def interval(values: Floats) -> tuple[float, float] | None:
    """The middle 95 % of resampled values; None where half of the resamples or more do not define the metric."""
    defined = values[np.isfinite(values)]
    if len(defined) * 2 <= len(values):
        return None
    low, high = np.percentile(defined, _MIDDLE)
    return float(low), float(high)


def calibration(label: Floats, probability: Floats, bins: int = CALIBRATION_BINS) -> list[dict[str, float]]:
    """Rows in bins of equal count, from the least likely up: their mean prediction, and the share that came true."""
    order = np.argsort(probability, kind="stable")
    return [
        {"predicted": float(probability[part].mean()), "observed": float(label[part].mean()), "rows": len(part)}
        for part in np.array_split(order, bins)
        if len(part)
    ]
