"""What training records about a fitted model for people: parameters, calibration, importance of the features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pyspark.ml.feature import OneHotEncoderModel
from pyspark.ml.stat import Summarizer
from pyspark.sql import DataFrame

from tidemill.ml.data.sample import Sample
from tidemill.ml.data.vectorizer import VECTOR, Preparation
from tidemill.ml.registry.details import VersionDetails
from tidemill.ml.training.evaluate import Evaluation
from tidemill.ml.training.fit import FittedModel
from tidemill.spec.estimators import problem_of
from tidemill.spec.schema import Model


def describe(
    model: Model, sample: Sample, fitted: FittedModel, evaluation: Evaluation, options: Mapping[str, Any]
) -> VersionDetails:
    """The details of a fitted model, without the seconds of the steps."""
    return VersionDetails(
        problem=problem_of(model).value,
        seed=model.seed,
        parameters=dict(fitted.parameters),
        options=dict(options),
        measured_rows=evaluation.rows,
        calibration=tuple(evaluation.calibration or ()),
        importance=importance(fitted, sample.train) or {},
    )


def importance(fitted: FittedModel, train: DataFrame) -> dict[str, float] | None:
    """Feature -> its share in the model's predictions, the largest first; together 1. None for other estimators.

    For trees it is the impurity that their splits remove, for linear models the size of a coefficient times the
    standard deviation of its input in training. The share of a feature is the sum over its inputs.
    """
    if fitted.preparation is None:
        return None
    last: Any = fitted.model.stages[-1]
    if hasattr(last, "featureImportances"):
        slots = last.featureImportances.toArray()
    elif hasattr(last, "coefficients"):
        slots = np.abs(last.coefficients.toArray()) * _deviations(fitted, train)
    else:
        return None
    total = float(slots.sum())
    shares = {
        feature: float(slots[begin:end].sum()) / total if total else 0.0
        for feature, (begin, end) in slots_of(fitted.preparation, fitted).items()
    }
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def slots_of(prepared: Preparation, fitted: FittedModel) -> dict[str, tuple[int, int]]:
    """Feature -> the range of the vector that holds its inputs, ``[begin, end)``."""
    widths = {name: 2 if has_flag else 1 for name, (_, has_flag) in prepared.numbers.items()}
    hot = next((stage for stage in fitted.model.stages if isinstance(stage, OneHotEncoderModel)), None)
    # For n known values and the unseen ones the encoder makes n + 1 columns: it drops the one of invalid values.
    sizes = [1] * len(prepared.texts) if hot is None else [int(size) for size in hot.categorySizes]
    widths |= dict(zip(prepared.texts, sizes, strict=True))
    ranges, begin = {}, 0
    for feature, width in widths.items():
        ranges[feature] = (begin, begin + width)
        begin += width
    return ranges


def _deviations(fitted: FittedModel, train: DataFrame) -> Any:
    prepared = train
    for stage in fitted.model.stages[:-1]:
        prepared = stage.transform(prepared)
    row = prepared.select(Summarizer.std(prepared[VECTOR])).first()
    assert row is not None  # an aggregate without groups is one row
    return row[0].toArray()
