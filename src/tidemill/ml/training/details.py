"""What else is known of a fitted model: the JSON document in ``model_versions.details``.

Keys:

``problem``       what it learns
``seed``          of the estimator and of the resamples
``parameters``    those that the estimator was given, by MLlib's names
``options``       what the form of the run asked for (``tidemill.ml.training.options``)
``seconds``       ``{"read": …, "check": …, "fit": …, "measure": …}``; the check is for features that look ahead
``measured_rows`` held-out rows behind the measures
``differences``   ``{version: {metric: [low, high]}}``: the middle 95 % of the challenger's value minus the version's
                  on the same resamples; version 0 is the baseline
``champion_saw``  whether the champion was trained on rows that are held out here
``calibration``   ``[{"predicted": …, "observed": …, "rows": …}, …]``, from the least likely tenth of the rows up;
                  null unless it classifies
``importance``    ``{feature: share}``, the largest first; null where the estimator does not say
``drift``         the distribution of each feature in training (``tidemill.ml.serving.drift``)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pyspark.ml.feature import OneHotEncoderModel
from pyspark.ml.stat import Summarizer
from pyspark.sql import DataFrame

from tidemill.ml.data.sample import Sample
from tidemill.ml.data.vectorizer import VECTOR, Preparation
from tidemill.ml.serving import drift
from tidemill.ml.training.evaluate import Evaluation
from tidemill.ml.training.fit import FittedModel
from tidemill.spec.estimators import problem_of
from tidemill.spec.schema import Model


def describe(
    model: Model, features: Sequence[str], sample: Sample, fitted: FittedModel, evaluation: Evaluation
) -> dict[str, Any]:
    """The document, but for what only the training knows: ``options``, ``seconds`` and ``champion_saw``."""
    return {
        "problem": problem_of(model).value,
        "seed": model.seed,
        "parameters": dict(fitted.parameters),
        "measured_rows": evaluation.rows,
        "differences": {
            str(version): {metric: list(ends) for metric, ends in by_metric.items()}
            for version, by_metric in evaluation.differences.items()
        },
        "calibration": evaluation.calibration,
        "importance": importance(fitted, sample.train),
        "drift": drift.reference(sample.train, features),
    }


def as_text(details: Mapping[str, Any]) -> str:
    """The document as it is kept. What JSON does not know becomes its text."""
    return json.dumps(details, default=str)


def importance(fitted: FittedModel, train: DataFrame) -> dict[str, float] | None:
    """Feature -> its part in what the model says, the largest first; together 1.

    Trees say it by the impurity that their splits remove, linear models by the size of a coefficient times the
    standard deviation of its input in training. A feature has what all of its inputs have together.
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
    """Feature -> the places of the vector that are its inputs, ``[begin, end)``."""
    widths = {name: 2 if has_flag else 1 for name, (_, has_flag) in prepared.numbers.items()}
    hot = next((stage for stage in fitted.model.stages if isinstance(stage, OneHotEncoderModel)), None)
    # Of n known values and the unseen ones the encoder makes n + 1 columns: the one that it drops is the invalid one.
    sizes = [1] * len(prepared.texts) if hot is None else [int(size) for size in hot.categorySizes]
    widths |= dict(zip(prepared.texts, sizes, strict=True))
    places, begin = {}, 0
    for feature, width in widths.items():
        places[feature] = (begin, begin + width)
        begin += width
    return places


def _deviations(fitted: FittedModel, train: DataFrame) -> Any:
    prepared = train
    for stage in fitted.model.stages[:-1]:
        prepared = stage.transform(prepared)
    row = prepared.select(Summarizer.std(prepared[VECTOR])).first()
    assert row is not None  # an aggregate without groups is one row
    return row[0].toArray()
