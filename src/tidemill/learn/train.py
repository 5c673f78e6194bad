"""Fit a challenger, and measure it beside the champion and the baseline on the same held-out rows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymysql.connections import Connection
from pyspark.ml import Pipeline as Stages
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

from tidemill.config import Account, Settings
from tidemill.errors import LearnError
from tidemill.learn import versions
from tidemill.learn.estimators import build_estimator, most_categories, wants_one_hot
from tidemill.learn.evaluate import load_model, measure_baseline, measure_model
from tidemill.learn.features_frame import read_features
from tidemill.learn.holdout import as_datetime
from tidemill.learn.preparation import preparation
from tidemill.learn.sample import Sample, labelled
from tidemill.learn.versions import BASELINE, ModelVersion, Refresh
from tidemill.spec.features import feature_names
from tidemill.spec.model import Model, Pipeline
from tidemill.store.connect import session
from tidemill.store.migrate import pipeline_version

_CHALLENGER = -1
"""Stands for the challenger until it has a number."""


@dataclass(frozen=True)
class _Start:
    """What the control plane says when a training begins."""

    refresh: Refresh
    champion: ModelVersion | None
    pipeline_version: int


def train(spark: SparkSession, settings: Settings, pipeline: Pipeline, model_name: str, refresh_id: int) -> int:
    """Train a challenger in a refresh and record what it is worth.

    Returns:
        Its version. A repeated training of the same refresh returns the version it made.

    Raises:
        LearnError: there is too little to learn from, or the pipeline was never applied as it is.
    """
    model = versions.model_of(pipeline, model_name)
    with session(settings, Account.STREAM) as connection:
        start = _start(connection, pipeline, model_name, refresh_id)
    if isinstance(start, int):
        return start
    began = time.monotonic()
    sample = labelled(read_features(spark, settings, pipeline, model_name), model)
    try:
        fitted = fit(model, feature_names(model, pipeline.sql(model.features)), sample)
        seconds = time.monotonic() - began
        unnamed = settings.models / pipeline.name / model_name / f".refresh-{refresh_id}"
        fitted.write().overwrite().save(str(unnamed))
        measured = _measure(model, sample, fitted, start.champion)
    finally:
        sample.rows.unpersist()
    described = _describe(sample) | {
        "refresh_id": refresh_id,
        "pipeline_version": start.pipeline_version,
        "as_of_commit": start.refresh.as_of_commit,
        "train_seconds": seconds,
    }
    with session(settings, Account.STREAM) as connection:
        return _record(connection, start.refresh, unnamed, described, (model.judge.metric, measured))


def _start(connection: Connection[Any], pipeline: Pipeline, model: str, refresh_id: int) -> _Start | int:
    """What a training starts from, or the version that this refresh made before."""
    refresh = versions.read_refresh(connection, refresh_id, pipeline, model)
    made = versions.trained_in(connection, pipeline.name, model, refresh_id)
    if made is not None:
        return made.version
    applied = pipeline_version(connection, pipeline)
    if applied is None:
        raise LearnError("the pipeline was never applied as it is", value=pipeline.name, remedy="run ./tidemill apply")
    return _Start(refresh, versions.champion(connection, pipeline.name, model), applied)


def fit(model: Model, features: tuple[str, ...], sample: Sample) -> PipelineModel:
    """Fit preparation and estimator on the training rows; returns one pipeline that takes the feature query's rows.

    Raises:
        LearnError: a feature is neither number nor text, or the estimator does not take a parameter.
    """
    stages = preparation(sample.train, features, one_hot=wants_one_hot(model.estimator))
    prepared = Stages(stages=stages).fit(sample.train)
    rows = prepared.transform(sample.train)
    estimator = build_estimator(model.estimator, model.parameters, most_categories(rows))
    return PipelineModel([*prepared.stages, estimator.fit(rows)])


def _measure(
    model: Model, sample: Sample, fitted: PipelineModel, champion: ModelVersion | None
) -> dict[int, float | None]:
    metric = model.judge.metric
    measured: dict[int, float | None] = {
        BASELINE: measure_baseline(model.baseline or "", sample, metric),
        _CHALLENGER: measure_model(fitted, sample, metric),
    }
    if champion is not None:
        measured[champion.version] = measure_model(load_model(champion), sample, metric)
    return measured


def _describe(sample: Sample) -> dict[str, object]:
    return {
        "train_from": as_datetime(sample.cut.start),
        "holdout_from": as_datetime(sample.cut.holdout),
        "holdout_until": as_datetime(sample.cut.end),
        "train_rows": sample.train_rows,
        "holdout_rows": sample.holdout_rows,
    }


def _record(
    connection: Connection[Any],
    refresh: Refresh,
    unnamed: Path,
    described: Mapping[str, object],
    measured: tuple[str, Mapping[int, float | None]],
) -> int:
    """Give the challenger its number, name its folder by it and write both rows, in one transaction."""
    metric, values = measured
    with versions.transaction(connection):
        versions.lock_model(connection, refresh.pipeline, refresh.model)
        version = versions.next_version(connection, refresh.pipeline, refresh.model)
        artifact = unnamed.with_name(str(version))
        columns = {"version": version, "artifact": str(artifact), **described}
        versions.insert_version(connection, refresh.pipeline, refresh.model, columns)
        numbered = {version if number == _CHALLENGER else number: value for number, value in values.items()}
        versions.write_evaluations(connection, refresh.id, metric, numbered)
        # Left by a training that died between the renaming and the commit: no row knows it.
        shutil.rmtree(artifact, ignore_errors=True)
        unnamed.rename(artifact)
    return version
