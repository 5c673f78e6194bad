"""The estimators and metrics that a model may name, and the problems that they fit. Imports no Spark."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from tidemill.spec.schema import Model


class Problem(StrEnum):
    """What an estimator learns."""

    CLASSIFICATION = "classification"
    """A label of 0 or 1; the score is the probability of 1."""
    REGRESSION = "regression"
    """A number; the score is the prediction of it."""
    CLUSTERING = "clustering"
    """No label; the score is the number of the cluster, from 0."""
    RECOMMENDATION = "recommendation"
    """How a user rates an item; the score is the predicted rating."""


ESTIMATORS = {
    "logistic_regression": Problem.CLASSIFICATION,
    "gbt_classifier": Problem.CLASSIFICATION,
    "random_forest_classifier": Problem.CLASSIFICATION,
    "linear_regression": Problem.REGRESSION,
    "gbt_regressor": Problem.REGRESSION,
    "random_forest_regressor": Problem.REGRESSION,
    "kmeans": Problem.CLUSTERING,
    "als": Problem.RECOMMENDATION,
}
"""Estimators of MLlib, by the name that ``estimator:`` takes, with the problem that each solves."""

LIVE = frozenset(ESTIMATORS) - {"als"}
"""Estimators whose fitted models can score inside a stream, because the database holds them in a portable form."""

_CUSTOM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Metric:
    """How a model is measured on held-out rows."""

    problems: frozenset[Problem]
    larger_is_better: bool = True


_NUMBERS = frozenset({Problem.REGRESSION, Problem.RECOMMENDATION})
METRICS = {
    "areaUnderROC": Metric(frozenset({Problem.CLASSIFICATION})),
    "areaUnderPR": Metric(frozenset({Problem.CLASSIFICATION})),
    "logLoss": Metric(frozenset({Problem.CLASSIFICATION}), larger_is_better=False),
    "rmse": Metric(_NUMBERS, larger_is_better=False),
    "mae": Metric(_NUMBERS, larger_is_better=False),
    "r2": Metric(_NUMBERS),
    "silhouette": Metric(frozenset({Problem.CLUSTERING})),
}
"""By the name that ``promotion.metric`` takes. Metrics of MLlib have the names that MLlib uses."""


def is_custom(estimator: str) -> bool:
    """Whether an estimator is custom: the author's function ``module:function``, which returns an MLlib Pipeline."""
    return _CUSTOM.fullmatch(estimator) is not None


def problem_of(model: Model) -> Problem:
    """The problem that a checked model solves: that of its estimator, or ``problem:`` for a custom estimator."""
    return Problem(model.problem) if model.problem else ESTIMATORS[model.estimator]


def metrics_of(problem: Problem) -> tuple[str, ...]:
    """The metrics that can measure a model of this problem."""
    return tuple(name for name, metric in METRICS.items() if problem in metric.problems)
