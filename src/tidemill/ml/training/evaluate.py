"""Measure a challenger, the champion and the baseline on the same held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, IllegalArgumentException, PySparkException
from pyspark.ml import PipelineModel
from pyspark.ml.evaluation import ClusteringEvaluator
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tidemill.errors import ModelError
from tidemill.ml.data.reader import LABEL
from tidemill.ml.data.sample import Sample
from tidemill.ml.data.vectorizer import medians, split_by_type
from tidemill.ml.registry import artifacts
from tidemill.ml.registry.versions import BASELINE, ModelVersion
from tidemill.ml.training.custom_estimator import summary_of
from tidemill.ml.training.estimators import SCALED, score_column
from tidemill.ml.training.metrics import Floats, ScoredRows, calibration, interval, resample
from tidemill.spec.estimators import Problem, metrics_of, problem_of
from tidemill.spec.schema import Model

MOST_ROWS = 200_000
"""Of more held-out rows only this many are measured: those whose keys have the lowest digests, always the same."""
CHALLENGER = -1
"""The number of the challenger until it has its version."""
_DIGESTS = 2.0**64


@dataclass(frozen=True)
class Evaluation:
    """The metrics of all candidates. Outer keys are versions, inner keys metrics."""

    values: Mapping[int, Mapping[str, float | None]]
    """None: the candidate could not be measured, because it cannot read these features."""
    intervals: Mapping[int, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    """The middle 95 % of resampled values."""
    differences: Mapping[int, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    """The middle 95 % of the challenger's value minus the version's, on the same resamples."""
    calibration: list[dict[str, float]] | None = None
    """Of the challenger, if the model classifies."""
    rows: int = 0
    """Held-out rows that were measured."""


def load_model(version: ModelVersion) -> PipelineModel:
    """A version's fitted pipeline.

    Raises:
        ModelError: its artifact is missing, or its files are not those that were written.
    """
    if not artifacts.exists(version.artifact):
        raise ModelError("TM-ML-ARTIFACT-MISSING", value=version.artifact, version=version.version)
    if version.checksum is not None and artifacts.checksum(version.artifact) != version.checksum:
        raise ModelError("TM-ML-ARTIFACT-DAMAGED", value=version.artifact, version=version.version)
    return PipelineModel.load(artifacts.for_spark(version.artifact))


def evaluate(model: Model, sample: Sample, challenger: PipelineModel, champion: ModelVersion | None) -> Evaluation:
    """Measure challenger, champion and baseline by every metric of the problem.

    Raises:
        ModelError: the baseline is not a number, the champion's artifact is missing, or the challenger drops rows.
    """
    models = {CHALLENGER: challenger} | ({} if champion is None else {champion.version: load_model(champion)})
    problem = problem_of(model)
    if problem is Problem.CLUSTERING:
        return _clusters(sample, models)
    truth = _columns(sample.holdout, F.col(LABEL), sample)
    scores = _challengers_scores(model, challenger, sample, truth)
    rivals = {number: _rivals_scores(each, problem, sample) for number, each in models.items() if number != CHALLENGER}
    able = {number: each for number, each in rivals.items() if each is not None and _complete(each, truth)}
    candidates = {number: ScoredRows(truth, each) for number, each in {CHALLENGER: scores, **able}.items()}
    candidates[BASELINE] = _baseline(model, problem, sample, truth)
    measured = _measured(candidates, metrics_of(problem), model.seed)
    unable = {number: dict.fromkeys(metrics_of(problem)) for number in rivals if number not in candidates}
    calibrated = calibration(truth, scores) if problem is Problem.CLASSIFICATION else None
    return Evaluation({**measured.values, **unable}, measured.intervals, measured.differences, calibrated, len(truth))


def _measured(candidates: Mapping[int, ScoredRows], metrics: tuple[str, ...], seed: int) -> Evaluation:
    resampled = resample(candidates, metrics, seed)
    own = resampled[CHALLENGER]
    return Evaluation(
        {number: {metric: _finite(rows.measure(metric)) for metric in metrics} for number, rows in candidates.items()},
        {number: _intervals(by_metric) for number, by_metric in resampled.items()},
        {
            number: _intervals({metric: own[metric] - values for metric, values in by_metric.items()})
            for number, by_metric in resampled.items()
            if number != CHALLENGER
        },
    )


def _intervals(by_metric: Mapping[str, Floats]) -> dict[str, tuple[float, float]]:
    intervals = {metric: interval(values) for metric, values in by_metric.items()}
    return {metric: ends for metric, ends in intervals.items() if ends is not None}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _challengers_scores(model: Model, challenger: PipelineModel, sample: Sample, truth: Floats) -> Floats:
    """The challenger's scores of the held-out rows."""
    try:
        predicted = challenger.transform(sample.holdout)
        scores = _columns(predicted, score_column(problem_of(model), predicted), sample)
    except (PySparkException, Py4JError) as error:
        raise ModelError("TM-ML-CHALLENGER-CANNOT-SCORE", value=summary_of(error), estimator=model.estimator) from error
    if not _complete(scores, truth):
        missing = len(truth) - int(np.isfinite(scores).sum())
        raise ModelError("TM-ML-CHALLENGER-DROPS-ROWS", value=missing, estimator=model.estimator, rows=len(truth))
    return scores


def _complete(scores: Floats, truth: Floats) -> bool:
    return len(scores) == len(truth) and bool(np.isfinite(scores).all())


def _rivals_scores(model: PipelineModel, problem: Problem, sample: Sample) -> Floats | None:
    """A champion's scores of the held-out rows; None if it cannot read these features."""
    try:
        predicted = model.transform(sample.holdout)
        return _columns(predicted, score_column(problem, predicted), sample)
    except (AnalysisException, IllegalArgumentException, ModelError):
        return None


def _columns(frame: DataFrame, value: Column, sample: Sample) -> Floats:
    """One value of each row, in an order that only the keys determine, so that results of several calls match."""
    digest = F.xxhash64(*sample.key)
    chosen = frame.select(digest.alias("digest"), value.cast("double").alias("value"))
    if sample.holdout_rows > MOST_ROWS:
        # A few more than needed are collected, and those beyond MOST_ROWS are dropped after sorting.
        share = min(1.0, 1.05 * MOST_ROWS / sample.holdout_rows)
        chosen = chosen.where(F.col("digest") < int(-_DIGESTS / 2 + share * _DIGESTS))
    table = chosen.toArrow()
    ordered = table["value"].take(pc.sort_indices(table["digest"]))[:MOST_ROWS]
    return np.asarray(ordered.to_numpy(), dtype=np.float64)


def _baseline(model: Model, problem: Problem, sample: Sample, truth: Floats) -> ScoredRows:
    """One bare feature, its median in training where it is missing; without one the mean of the training rows.

    A feature ranks rows but is no probability: the loss of a classification is computed from the share of 1 in
    training.
    """
    mean = (sample.train.agg(F.avg(LABEL)).first() or [0.0])[0]
    constant = np.full(len(truth), float(mean))
    if model.baseline is None:
        return ScoredRows(truth, constant)
    numbers, _ = split_by_type(sample.train, [model.baseline])
    if not numbers:
        raise ModelError("TM-ML-BASELINE-NOT-NUMBER", value=model.baseline)
    median, _ = medians(sample.train, numbers)[model.baseline]
    bare = _columns(sample.holdout, F.coalesce(F.col(model.baseline).cast("double"), F.lit(median)), sample)
    return ScoredRows(truth, bare, constant if problem is Problem.CLASSIFICATION else None)


def _clusters(sample: Sample, models: Mapping[int, PipelineModel]) -> Evaluation:
    """Silhouettes, each in the space in which its model measures distances; the baseline, no structure, is 0."""
    values: dict[int, Mapping[str, float | None]] = {BASELINE: {"silhouette": 0.0}}
    values |= {number: {"silhouette": _silhouette(model, sample)} for number, model in models.items()}
    return Evaluation(values, rows=sample.holdout_rows)


def _silhouette(model: PipelineModel, sample: Sample) -> float | None:
    """None if the model cannot read these features, or sees one cluster only."""
    try:
        predicted = model.transform(sample.holdout)
    except (AnalysisException, IllegalArgumentException):
        return None
    space = SCALED if SCALED in predicted.columns else "features"
    if space not in predicted.columns:
        raise ModelError("TM-ML-NO-VECTOR-COLUMN", value=space)
    clustered: Any = predicted.select(space, score_column(Problem.CLUSTERING, predicted).alias("cluster"))
    if clustered.select("cluster").distinct().count() < 2:
        return None
    return float(ClusteringEvaluator(predictionCol="cluster", featuresCol=space).evaluate(clustered))
