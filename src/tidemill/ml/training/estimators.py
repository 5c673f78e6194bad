"""MLlib's estimators that a pipeline may name, their parameters, and where a fitted one says its score."""

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
"""Output columns of MLlib's estimators as we set them: no feature of the author's has such a name."""
SCALED = "_scaled"
"""What k-means sees: each input in units of its standard deviation in training."""
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
"""What connects an estimator with the columns around it, beside features and prediction."""
for _name, _problem in ESTIMATORS.items():
    if _problem is Problem.CLASSIFICATION:
        _COLUMNS[_name] = _COLUMNS["gbt_classifier"]
    elif _problem is Problem.REGRESSION:
        _COLUMNS[_name] = {"labelCol": LABEL}


def wants_one_hot(name: str) -> bool:
    """Whether an estimator would take a category's number for a quantity. Trees do not."""
    return name in ("logistic_regression", "linear_regression", "kmeans")


def standardiser() -> StandardScaler:
    """The stage before k-means, which measures distances: without it the input of the largest unit decides alone."""
    return StandardScaler(inputCol=VECTOR, outputCol=SCALED, withStd=True, withMean=False)


def build_estimator(name: str, parameters: Mapping[str, Any], categories: int, seed: int) -> Any:
    """An unfitted estimator.

    Args:
        name: as in pipeline.yaml.
        parameters: MLlib's names and values.
        categories: the largest number of categories of a feature; ``maxBins`` is raised to it where it is less.
        seed: for those that have one.

    Raises:
        ModelError: it has no such parameter, or does not take the value.
    """
    estimator = _CLASSES[name]()
    columns = {"featuresCol": VECTOR, "predictionCol": PREDICTION} | _COLUMNS[name]
    values = ({"seed": seed} if estimator.hasParam("seed") else {}) | dict(parameters)
    if estimator.hasParam("maxBins"):
        values["maxBins"] = _whole(name, "maxBins", values.get("maxBins", 32), categories)
    for parameter, value in columns.items():
        if estimator.hasParam(parameter):
            estimator.set(estimator.getParam(parameter), value)
    for parameter, value in values.items():
        if parameter in columns or not estimator.hasParam(parameter):
            known = ", ".join(param.name for param in estimator.params if param.name not in columns)
            raise ModelError(f"{name} has no such parameter", value=parameter, remedy=f"there are: {known}")
        try:
            estimator.set(estimator.getParam(parameter), value)
        except (TypeError, ValueError) as error:
            raise _refused(name, parameter, value, error) from error
    return estimator


def _whole(name: str, parameter: str, value: object, least: int) -> int:
    try:
        return max(int(str(value)), least)
    except ValueError as error:
        raise _refused(name, parameter, value, error) from error


def _refused(name: str, parameter: str, value: object, error: Exception) -> ModelError:
    return ModelError(f"{name} does not take this {parameter}", value=repr(value), remedy=str(error))


def set_parameters(estimator: Any) -> dict[str, Any]:
    """The parameters that were set, by name, beside the columns: what a fitted model came of."""
    return {
        param.name: value
        for param, value in estimator.extractParamMap().items()
        if estimator.isSet(param) and not param.name.endswith("Col") and param.name != "coldStartStrategy"
    }


def most_categories(prepared: DataFrame) -> int:
    """The largest number of categories among the features of a prepared frame, 2 if none is categorical."""
    attributes = prepared.schema[VECTOR].metadata.get("ml_attr", {}).get("attrs", {})
    return max((len(found.get("vals", ())) for found in attributes.get("nominal", ())), default=2)


def score_column(problem: Problem, frame: DataFrame) -> Column:
    """The score in what a fitted model has made of rows, as a double.

    Args:
        problem: what the model learns: a probability of 1, a prediction or the number of a cluster.
        frame: after ``transform``; the output of one's own estimator has MLlib's default names.

    Raises:
        ModelError: one's own estimator has no such output.
    """
    classifies = problem is Problem.CLASSIFICATION
    found = next((n for n in ((PROBABILITY if classifies else PREDICTION), _own(problem)) if n in frame.columns), None)
    if found is None:
        raise ModelError(
            "the estimator's output has no column of the score",
            value=_own(problem),
            remedy=f"end its Pipeline in a {problem.value} stage of MLlib, with the output columns of its defaults",
        )
    return F.get(vector_to_array(F.col(found)), F.lit(1)) if classifies else F.col(found).cast("double")


def _own(problem: Problem) -> str:
    return "probability" if problem is Problem.CLASSIFICATION else "prediction"
