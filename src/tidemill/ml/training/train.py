"""Fit a challenger, and measure it beside the champion and the baseline on the same held-out rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pymysql.connections import Connection
from pyspark.sql import SparkSession

from tidemill.config import Account, Settings
from tidemill.errors import ModelError
from tidemill.ml.data.leakage import refuse_look_ahead
from tidemill.ml.data.reader import read_features
from tidemill.ml.data.sample import Sample, build_sample
from tidemill.ml.data.split import as_datetime
from tidemill.ml.registry import artifacts, versions
from tidemill.ml.registry.versions import Estimate, ModelVersion, NewVersion, Refresh
from tidemill.ml.serving import feature_bins
from tidemill.ml.serving.drift import training_distribution
from tidemill.ml.serving.portable_export import export
from tidemill.ml.training import mlflow_log
from tidemill.ml.training.details import describe
from tidemill.ml.training.evaluate import CHALLENGER, Evaluation, evaluate
from tidemill.ml.training.fit import FittedModel, fit
from tidemill.ml.training.options import Options, parse_options
from tidemill.spec.schema import Model, Pipeline
from tidemill.store.connection import session
from tidemill.store.migrations import pipeline_version

__all__ = ["FittedModel", "train"]


@dataclass(frozen=True)
class _Start:
    """What the control plane holds when a training begins."""

    refresh: Refresh
    options: Options
    champion: ModelVersion | None
    pipeline_version: int


@dataclass(frozen=True)
class _Training:
    """What is trained, and where."""

    settings: Settings
    pipeline: Pipeline
    name: str
    model: Model
    """With the parameters that the run requested."""
    start: _Start


@dataclass(frozen=True)
class _Trained:
    """A fitted and measured challenger that is not recorded yet."""

    refresh: Refresh
    new: NewVersion
    """With version 0, and the location of the artifact until the version has its number."""
    evaluation: Evaluation
    portable: bytes | None
    """The form that scores without Spark, where the estimator has one."""


class _StepTimer:
    """Seconds of each step, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def end(self, step: str) -> None:
        """Record that a step has ended, and that the next one begins."""
        now = time.monotonic()
        self.seconds[step], self._began = now - self._began, now


def train(spark: SparkSession, settings: Settings, pipeline: Pipeline, model_name: str, refresh_id: int) -> int:
    """Train a challenger in a refresh, and record it with its metrics.

    Returns:
        Its version. A repeated training of the same refresh returns the version that it recorded.

    Raises:
        ModelError: there are too few rows to train on, the features look ahead, or the pipeline has unapplied changes.
    """
    declared = versions.declared_model(pipeline, model_name)
    with session(settings, Account.STREAM) as connection:
        start = _start(connection, pipeline, model_name, refresh_id)
    if isinstance(start, int):
        return start
    model = declared.model_copy(update={"parameters": {**declared.parameters, **start.options.parameters}})
    timer = _StepTimer()
    sample = build_sample(read_features(spark, settings, pipeline, model_name), model, start.options)
    try:
        timer.end("read")
        refuse_look_ahead(settings, pipeline, model_name, as_datetime(sample.split.holdout))
        timer.end("check")
        trained = _train(_Training(settings, pipeline, model_name, model, start), sample, timer)
    finally:
        sample.rows.unpersist()
    with session(settings, Account.STREAM) as connection:
        recorded = _record(connection, trained)
    mlflow_log.log(settings, trained.refresh, recorded, trained.evaluation.values[CHALLENGER])
    return recorded.version


def _start(connection: Connection[Any], pipeline: Pipeline, model: str, refresh_id: int) -> _Start | int:
    """What a training starts from, or the version that this refresh recorded before."""
    refresh = versions.read_refresh(connection, refresh_id, pipeline, model)
    recorded = versions.version_of_refresh(connection, pipeline.name, model, refresh_id)
    if recorded is not None:
        return recorded.version
    applied = pipeline_version(connection, pipeline)
    if applied is None:
        raise ModelError("TM-ML-PIPELINE-NOT-APPLIED", value=pipeline.name)
    options = parse_options(refresh.options)
    return _Start(refresh, options, versions.read_champion(connection, pipeline.name, model), applied)


def _train(training: _Training, sample: Sample, timer: _StepTimer) -> _Trained:
    """Fit, save and measure."""
    model, start = training.model, training.start
    features = model.query.features
    fitted = fit(model, features, sample.train, training.pipeline.folder)
    timer.end("fit")
    models = training.settings.models
    location = artifacts.location_below(models, training.pipeline.name, training.name, f".refresh-{start.refresh.id}")
    fitted.model.write().overwrite().save(artifacts.for_spark(location))
    evaluation = evaluate(model, sample, fitted.model, start.champion)
    details = describe(model, sample, fitted, evaluation, start.options.document)
    distribution = training_distribution(sample.train, features)
    timer.end("measure")
    new = NewVersion(
        version=0,
        refresh_id=start.refresh.id,
        pipeline_version=start.pipeline_version,
        artifact=location,
        checksum=artifacts.checksum(location),
        as_of_commit=start.refresh.as_of_commit,
        train_from=as_datetime(sample.split.start),
        holdout_from=as_datetime(sample.split.holdout),
        holdout_until=as_datetime(sample.split.end),
        train_rows=sample.train_rows,
        holdout_rows=sample.holdout_rows,
        train_seconds=timer.seconds["read"] + timer.seconds["fit"],
        champion_saw_holdout=_champion_saw_holdout(start, sample),
        training_distribution=feature_bins.to_json(distribution),
        details=replace(details, seconds=timer.seconds).to_json(),
    )
    return _Trained(start.refresh, new, evaluation, export(fitted, model, artifacts.for_spark(location)))


def _champion_saw_holdout(start: _Start, sample: Sample) -> bool:
    """Whether the champion was trained on held-out rows, which happens where the run requested an earlier range."""
    return start.champion is not None and start.champion.holdout_from > as_datetime(sample.split.holdout)


def _record(connection: Connection[Any], trained: _Trained) -> NewVersion:
    """Number the challenger, insert all of its rows and move its artifact to its location, in one transaction."""
    refresh, unnumbered = trained.refresh, trained.new
    with versions.transaction(connection):
        versions.lock_model(connection, refresh.pipeline, refresh.model)
        version = versions.next_version(connection, refresh.pipeline, refresh.model)
        location = artifacts.location_below(unnumbered.artifact.rpartition("/")[0], str(version))
        new = replace(unnumbered, version=version, artifact=location)
        versions.insert_version(connection, refresh.pipeline, refresh.model, new)
        for metric, estimates in _estimates(trained.evaluation, version):
            versions.write_evaluations(connection, refresh.id, metric, estimates)
        if trained.portable is not None:
            versions.insert_portable_model(connection, refresh.pipeline, refresh.model, version, trained.portable)
        artifacts.rename(unnumbered.artifact, location)
    return new


def _estimates(evaluation: Evaluation, version: int) -> Iterator[tuple[str, dict[int, Estimate]]]:
    """Each metric with its estimates by version."""
    for metric in evaluation.values[CHALLENGER]:
        yield (
            metric,
            {
                version if candidate == CHALLENGER else candidate: Estimate(
                    by_metric[metric],
                    evaluation.intervals.get(candidate, {}).get(metric),
                    evaluation.differences.get(candidate, {}).get(metric),
                )
                for candidate, by_metric in evaluation.values.items()
            },
        )
