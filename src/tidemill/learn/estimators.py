"""The estimators a pipeline may name, and their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.ml.classification import GBTClassifier, LogisticRegression, RandomForestClassifier
from pyspark.sql import DataFrame

from tidemill.errors import LearnError
from tidemill.learn.features_frame import LABEL
from tidemill.learn.preparation import VECTOR

SEED = 20130101
"""The same rows give the same model."""
PROBABILITY = "_probability"
RAW = "_raw"
_CLASSES = {
    "gbt_classifier": GBTClassifier,
    "logistic_regression": LogisticRegression,
    "random_forest_classifier": RandomForestClassifier,
}


def wants_one_hot(name: str) -> bool:
    """Whether an estimator would take a category's number for a quantity. Trees do not."""
    return name == "logistic_regression"


def build_estimator(name: str, parameters: Mapping[str, Any], categories: int) -> Any:
    """An unfitted estimator.

    Args:
        name: as in pipeline.yaml.
        parameters: MLlib's names and values.
        categories: the largest number of categories of a feature; ``maxBins`` is raised to it where it is less.

    Raises:
        LearnError: it has no such parameter, or does not take the value.
    """
    # Not as arguments: GBTClassifier has these columns, but its constructor does not know them.
    estimator = (
        _CLASSES[name](featuresCol=VECTOR, labelCol=LABEL).setProbabilityCol(PROBABILITY).setRawPredictionCol(RAW)
    )
    values = {"seed": SEED, **parameters} if estimator.hasParam("seed") else dict(parameters)
    if estimator.hasParam("maxBins"):
        values["maxBins"] = max(int(values.get("maxBins", 32)), categories)
    for parameter, value in values.items():
        if not estimator.hasParam(parameter):
            known = ", ".join(param.name for param in estimator.params)
            raise LearnError(f"{name} has no such parameter", value=parameter, remedy=f"there are: {known}")
        try:
            estimator.set(estimator.getParam(parameter), value)
        except (TypeError, ValueError) as error:
            raise LearnError(f"{name} does not take this {parameter}", value=repr(value), remedy=str(error)) from error
    return estimator


def most_categories(prepared: DataFrame) -> int:
    """The largest number of categories among the features of a prepared frame, 2 if none is categorical."""
    attributes = prepared.schema[VECTOR].metadata.get("ml_attr", {}).get("attrs", {})
    return max((len(found.get("vals", ())) for found in attributes.get("nominal", ())), default=2)
