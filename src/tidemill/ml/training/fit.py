"""Fit a model to training rows, by an estimator of MLlib or by a custom one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark.errors import AnalysisException, IllegalArgumentException
from pyspark.ml import Pipeline as Stages
from pyspark.ml import PipelineModel
from pyspark.ml.feature import SQLTransformer
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import IntegralType

from tidemill.errors import ModelError
from tidemill.ml.data.reader import LABEL
from tidemill.ml.data.vectorizer import Preparation, preparation
from tidemill.ml.training.custom_estimator import check_persistable, custom_pipeline, summary_of
from tidemill.ml.training.estimators import (
    ITEM,
    PREDICTION,
    RATING,
    USER,
    build_estimator,
    most_categories,
    needs_one_hot,
    set_parameters,
    standardiser,
)
from tidemill.spec.estimators import is_custom
from tidemill.spec.schema import Model

_NO_ID = -(2**31)
"""The id of a missing user or item: MLlib's ALS takes whole numbers of 32 bits and no NULL."""


@dataclass(frozen=True)
class FittedModel:
    """A fitted model, which transforms the rows of the feature query."""

    model: PipelineModel
    preparation: Preparation | None
    """The stages that make its vector; None for ``als`` and custom estimators, which read the columns themselves."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that the estimator was given."""


def fit(model: Model, features: Sequence[str], train: DataFrame, folder: Path) -> FittedModel:
    """Fit preparation and estimator.

    Args:
        model: its declaration.
        features: names of the columns to learn from.
        train: rows with these columns and ``_label``.
        folder: the pipeline's folder, from which a custom estimator is imported first.

    Raises:
        ModelError: a feature is neither number nor text, or the estimator rejects a parameter or the rows.
    """
    if is_custom(model.estimator):
        return _fit_custom(model, features, train, folder)
    if model.estimator == "als":
        return _fit_als(model, features, train)
    prepared = preparation(train, features, one_hot=needs_one_hot(model.estimator))
    stages = [*prepared.stages, standardiser()] if model.estimator == "kmeans" else list(prepared.stages)
    before = Stages(stages=stages).fit(train)
    rows = before.transform(train)
    estimator = build_estimator(model.estimator, model.parameters, most_categories(rows), model.seed)
    fitted = PipelineModel([*before.stages, _fitted(model.estimator, estimator, rows)])
    return FittedModel(fitted, prepared, set_parameters(estimator))


def _fitted(name: str, estimator: Any, rows: DataFrame) -> Any:
    try:
        return estimator.fit(rows)
    except (IllegalArgumentException, AnalysisException) as error:
        raise ModelError("TM-ML-NOT-FITTED", value=summary_of(error), estimator=name) from error


def _fit_custom(model: Model, features: Sequence[str], train: DataFrame, folder: Path) -> FittedModel:
    estimator = custom_pipeline(model.estimator, folder, features, model.parameters)
    try:
        fitted = estimator.fit(train)
    except Exception as error:  # whatever the author's stages raise
        raise ModelError("TM-ML-CUSTOM-NOT-FITTED", value=summary_of(error), estimator=model.estimator) from error
    check_persistable(model.estimator, fitted)
    return FittedModel(fitted, None, dict(model.parameters))


def _fit_als(model: Model, features: Sequence[str], train: DataFrame) -> FittedModel:
    """Fit ``als``. Users and items that were not in training, or are NULL, get the mean rating."""
    parameters = dict(model.parameters)
    user, item = (_id_feature(parameters, of, features, train) for of in ("userCol", "itemCol"))
    ids = SQLTransformer(
        statement=f"SELECT *, COALESCE(TRY_CAST(`{user}` AS INT), {_NO_ID}) AS {USER},"
        f" COALESCE(TRY_CAST(`{item}` AS INT), {_NO_ID}) AS {ITEM} FROM __THIS__"
    )
    estimator = build_estimator("als", parameters, 0, model.seed)
    known = ids.transform(train).where(f"{USER} <> {_NO_ID} AND {ITEM} <> {_NO_ID}")
    mean = float((train.agg(F.avg(LABEL)).first() or [0.0])[0])
    rated = SQLTransformer(
        statement=f"SELECT *, CASE WHEN {RATING} IS NULL OR ISNAN({RATING}) THEN CAST('{mean!r}' AS DOUBLE)"
        f" ELSE CAST({RATING} AS DOUBLE) END AS {PREDICTION} FROM __THIS__"
    )
    fitted = PipelineModel([ids, _fitted("als", estimator, known), rated])
    return FittedModel(fitted, None, {"userCol": user, "itemCol": item} | set_parameters(estimator))


def _id_feature(parameters: dict[str, Any], of: str, features: Sequence[str], train: DataFrame) -> str:
    """Remove a parameter that names a feature of 32-bit whole numbers, and return that name."""
    name = parameters.pop(of, None)
    whole = [feature for feature in features if isinstance(train.schema[feature].dataType, IntegralType)]
    if name not in whole:
        known = ", ".join(whole) or "none of the features is one"
        raise ModelError("TM-ML-ALS-ID-FEATURE", value=name, parameter=of, known=known)
    widest = train.agg(F.max(F.abs(F.col(name).cast("double")))).first()
    if widest is not None and widest[0] is not None and widest[0] >= -_NO_ID:
        raise ModelError("TM-ML-ALS-ID-TOO-LARGE", value=f"{widest[0]:.0f}", feature=name)
    return str(name)
