"""Measure models and the baseline on the same held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from pyspark.errors import AnalysisException, IllegalArgumentException
from pyspark.ml import PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tidemill.errors import LearnError
from tidemill.learn.estimators import RAW
from tidemill.learn.features_frame import LABEL
from tidemill.learn.preparation import medians, split_by_type
from tidemill.learn.sample import Sample
from tidemill.learn.versions import ModelVersion

_BASELINE = "_baseline"


def load_model(version: ModelVersion) -> PipelineModel:
    """A version's fitted pipeline.

    Raises:
        LearnError: its artifact is gone.
    """
    if not Path(version.artifact, "metadata").is_dir():
        raise LearnError(
            f"the artifact of model version {version.version} is gone",
            value=version.artifact,
            remedy="restore the folder",
        )
    return PipelineModel.load(version.artifact)


def measure_model(model: PipelineModel, sample: Sample, metric: str) -> float | None:
    """A model's metric on the held-out rows; None if it cannot read these features."""
    try:
        predicted = model.transform(sample.holdout)
    except (AnalysisException, IllegalArgumentException):
        return None
    return _metric(predicted, RAW, metric)


def measure_baseline(feature: str, sample: Sample, metric: str) -> float:
    """The metric of one bare feature as the ranking; where it is missing, its median in training stands in.

    Raises:
        LearnError: the feature is no number.
    """
    numbers, _ = split_by_type(sample.train, [feature])
    if not numbers:
        raise LearnError("the baseline is not a number", value=feature, remedy="name a feature that is one")
    median, _ = medians(sample.train, [feature])[feature]
    ranked = sample.holdout.withColumn(_BASELINE, F.coalesce(F.col(feature).cast("double"), F.lit(median)))
    return _metric(ranked, _BASELINE, metric)


def _metric(ranked: DataFrame, column: str, metric: str) -> float:
    evaluator = BinaryClassificationEvaluator(
        rawPredictionCol=column,
        labelCol=LABEL,
        metricName=cast(Literal["areaUnderROC", "areaUnderPR"], metric),  # spec.check knows no others
        numBins=0,  # none: a thousand of them blur what a margin of 0.002 is to tell apart
    )
    return float(evaluator.evaluate(ranked))
