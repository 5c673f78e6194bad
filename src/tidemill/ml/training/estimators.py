"""MLlib's estimators that a pipeline may name, their parameters, and the column of the score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.ml.classification import GBTClassifier, LogisticRegression, RandomForestClassifier
from pyspark.ml.clustering import KMeans
from pyspark.ml.feature import StandardScaler
from pyspark.ml.functions import vector_to_array
from pyspark.ml.recommendation import ALS
from pyspark.ml.regression import GBTRegressor, LinearRegression, RandomForestRegressor
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tidemill.errors import ModelError
from tidemill.ml.data.reader import LABEL
from tidemill.ml.data.vectorizer import VECTOR
from tidemill.spec.estimators import ESTIMATORS, Problem

PROBABILITY, PREDICTION, RAW = "_probability", "_prediction", "_raw"
"""Output columns of MLlib's estimators; no feature can have such a name."""
SCALED = "_scaled"
"""Input column of k-means: each input in units of its standard deviation in training."""
USER, ITEM, RATING = "_user", "_item", "_rating"
_CLASSES = {
    "als": ALS,
    "gbt_classifier": GBTClassifier,
    "gbt_regressor": GBTRegressor,
    "kmeans": KMeans,
    "linear_regression": LinearRegression,
    "logistic_regression": LogisticRegression,
    "random_forest_classifier": RandomForestClassifier,
    "random_forest_regressor": RandomForestRegressor,
}
_COLUMNS = {
    "gbt_classifier": {"labelCol": LABEL, "probabilityCol": PROBABILITY, "rawPredictionCol": RAW},
    "als": {"userCol": USER, "itemCol": ITEM, "ratingCol": LABEL, "predictionCol": RATING, "coldStartStrategy": "nan"},
    "kmeans": {"featuresCol": SCALED},
}
"""Parameters that name an estimator's input and output columns, beside features and prediction."""
for _name, _problem in ESTIMATORS.items():
    if _problem is Problem.CLASSIFICATION:
        _COLUMNS[_name] = _COLUMNS["gbt_classifier"]
    elif _problem is Problem.REGRESSION:
        _COLUMNS[_name] = {"labelCol": LABEL}


def needs_one_hot(name: str) -> bool:
    """Whether an estimator treats a category's number as a quantity, so that categories need columns. Trees do not."""
    return name in ("logistic_regression", "linear_regression", "kmeans")


def standardiser() -> StandardScaler:
    """The stage before k-means, which measures distances: without it the input with the largest numbers dominates."""
    return StandardScaler(inputCol=VECTOR, outputCol=SCALED, withStd=True, withMean=False)


def build_estimator(name: str, parameters: Mapping[str, Any], categories: int, seed: int) -> Any:
    """An unfitted estimator.

    Args:
        name: as in pipeline.yaml.
        parameters: MLlib's names and values.
        categories: the largest number of categories of a feature; ``maxBins`` is raised to it where it is less.
        seed: for those that have one.

    Raises:
        ModelError: it has no such parameter, or rejects the value.
    """
    estimator = _CLASSES[name]()
    columns = {"featuresCol": VECTOR, "predictionCol": PREDICTION} | _COLUMNS[name]
    values = ({"seed": seed} if estimator.hasParam("seed") else {}) | dict(parameters)
    if estimator.hasParam("maxBins"):
        values["maxBins"] = _at_least(name, "maxBins", values.get("maxBins", 32), categories)
    for parameter, value in columns.items():
        if estimator.hasParam(parameter):
            estimator.set(estimator.getParam(parameter), value)
    for parameter, value in values.items():
        if parameter in columns or not estimator.hasParam(parameter):
            known = ", ".join(param.name for param in estimator.params if param.name not in columns)
            raise ModelError("TM-ML-PARAMETER-UNKNOWN", value=parameter, estimator=name, known=known)
        try:
            estimator.set(estimator.getParam(parameter), value)
        except (TypeError, ValueError) as error:
            raise _rejected(name, parameter, value, error) from error
    return estimator


def _at_least(name: str, parameter: str, value: object, least: int) -> int:
    try:
        return max(int(str(value)), least)
    except ValueError as error:
        raise _rejected(name, parameter, value, error) from error


def _rejected(name: str, parameter: str, value: object, error: Exception) -> ModelError:
    return ModelError("TM-ML-PARAMETER-REJECTED", value=repr(value), estimator=name, parameter=parameter, reason=error)


def set_parameters(estimator: Any) -> dict[str, Any]:
    """The parameters that were set, by name, without those that name columns."""
    return {
        param.name: value
        for param, value in estimator.extractParamMap().items()
        if estimator.isSet(param) and not param.name.endswith("Col") and param.name != "coldStartStrategy"
    }


def most_categories(prepared: DataFrame) -> int:
    """The largest number of categories among the features of a prepared frame, 2 if none is categorical."""
    attributes = prepared.schema[VECTOR].metadata.get("ml_attr", {}).get("attrs", {})
    return max((len(each.get("vals", ())) for each in attributes.get("nominal", ())), default=2)


def score_column(problem: Problem, frame: DataFrame) -> Column:
    """The score in the output of a fitted model, as a double: a probability of 1, a prediction, or a cluster's number.

    Args:
        problem: what the model learns.
        frame: output of ``transform``; a custom estimator writes MLlib's default columns.

    Raises:
        ModelError: a custom estimator has no such output.
    """
    classifies = problem is Problem.CLASSIFICATION
    ours, default = (PROBABILITY, "probability") if classifies else (PREDICTION, "prediction")
    name = next((each for each in (ours, default) if each in frame.columns), None)
    if name is None:
        raise ModelError("TM-ML-NO-SCORE-COLUMN", value=default, problem=problem.value)
    return F.get(vector_to_array(F.col(name)), F.lit(1)) if classifies else F.col(name).cast("double")
