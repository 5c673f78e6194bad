"""Fit a challenger, and measure it beside the champion and the baseline on the same held-out rows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection
from pyspark.sql import SparkSession

from tidemill.config import Account, Settings
from tidemill.errors import ModelError
from tidemill.ml.data.leakage import refuse_look_ahead
from tidemill.ml.data.reader import read_features
from tidemill.ml.data.sample import Sample, labelled
from tidemill.ml.data.split import as_datetime
from tidemill.ml.registry import artifacts, versions
from tidemill.ml.registry.versions import ModelVersion, Refresh
from tidemill.ml.serving.portable_export import export
from tidemill.ml.training import mlflow_log
from tidemill.ml.training.details import as_text, describe
from tidemill.ml.training.evaluate import CHALLENGER, Evaluation, evaluate
from tidemill.ml.training.fit import FittedModel, fit
from tidemill.ml.training.options import Options, parse_options
from tidemill.spec.schema import Model, Pipeline
from tidemill.store.connection import session
from tidemill.store.migrations import pipeline_version

__all__ = ["FittedModel", "train"]


@dataclass(frozen=True)
class _Start:
    """What the control plane says when a training begins."""

    refresh: Refresh
    options: Options
    champion: ModelVersion | None
    pipeline_version: int


@dataclass(frozen=True)
class _Job:
    """What is trained, and where."""

    settings: Settings
    pipeline: Pipeline
    name: str
    model: Model
    """With the parameters that were asked for."""
    start: _Start


@dataclass(frozen=True)
class _Trained:
    """A challenger that has no number yet."""

    refresh: Refresh
    artifact: str
    """Where it lies until it has its name."""
    columns: Mapping[str, object]
    """Of ``model_versions``."""
    evaluation: Evaluation
    scorer: bytes | None
    """The form that scores without Spark, where there is one."""


class _Watch:
    """Seconds of each step, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def done(self, step: str) -> None:
        """The step has ended, and the next one begins."""
        now = time.monotonic()
        self.seconds[step], self._began = now - self._began, now


def train(spark: SparkSession, settings: Settings, pipeline: Pipeline, model_name: str, refresh_id: int) -> int:
    """Train a challenger in a refresh and record what it is worth.

    Returns:
        Its version. A repeated training of the same refresh returns the version it made.

    Raises:
        ModelError: there is too little to learn from, or the pipeline was never applied as it is.
    """
    declared = versions.declared_model(pipeline, model_name)
    with session(settings, Account.STREAM) as connection:
        start = _start(connection, pipeline, model_name, refresh_id)
    if isinstance(start, int):
        return start
    model = declared.model_copy(update={"parameters": {**declared.parameters, **start.options.parameters}})
    watch = _Watch()
    sample = labelled(read_features(spark, settings, pipeline, model_name), model, start.options)
    try:
        watch.done("read")
        refuse_look_ahead(settings, pipeline, model_name, as_datetime(sample.cut.holdout))
        watch.done("check")
        trained = _train(_Job(settings, pipeline, model_name, model, start), sample, watch)
    finally:
        sample.rows.unpersist()
    with session(settings, Account.STREAM) as connection:
        version, named = _record(connection, trained)
    columns = {**trained.columns, "artifact": named}
    mlflow_log.log(settings, trained.refresh, version, columns, trained.evaluation.values[CHALLENGER])
    return version


def _start(connection: Connection[Any], pipeline: Pipeline, model: str, refresh_id: int) -> _Start | int:
    """What a training starts from, or the version that this refresh made before."""
    refresh = versions.read_refresh(connection, refresh_id, pipeline, model)
    made = versions.version_of_refresh(connection, pipeline.name, model, refresh_id)
    if made is not None:
        return made.version
    applied = pipeline_version(connection, pipeline)
    if applied is None:
        raise ModelError("the pipeline was never applied as it is", value=pipeline.name, remedy="run ./tidemill apply")
    options = parse_options(refresh.options)
    return _Start(refresh, options, versions.read_champion(connection, pipeline.name, model), applied)


def _train(job: _Job, sample: Sample, watch: _Watch) -> _Trained:
    """Fit, write, measure."""
    model, start = job.model, job.start
    features = model.query.features
    fitted = fit(model, features, sample.train, job.pipeline.folder)
    watch.done("fit")
    unnamed = artifacts.below(job.settings.models, job.pipeline.name, job.name, f".refresh-{start.refresh.id}")
    fitted.model.write().overwrite().save(artifacts.for_spark(unnamed))
    evaluation = evaluate(model, sample, fitted.model, start.champion)
    details = describe(model, features, sample, fitted, evaluation)
    watch.done("measure")
    details |= {"options": dict(start.options.asked), "seconds": watch.seconds, "champion_saw": _saw(start, sample)}
    columns = _columns(sample) | {
        "refresh_id": start.refresh.id,
        "pipeline_version": start.pipeline_version,
        "as_of_commit": start.refresh.as_of_commit,
        "train_seconds": watch.seconds["read"] + watch.seconds["fit"],
        "checksum": artifacts.checksum(unnamed),
        "details": as_text(details),
    }
    scorer = export(fitted, model, artifacts.for_spark(unnamed))
    return _Trained(start.refresh, unnamed, columns, evaluation, scorer)


def _saw(start: _Start, sample: Sample) -> bool:
    """Whether the champion was trained on rows that are held out: where an earlier range of time was asked for."""
    return start.champion is not None and start.champion.holdout_from > as_datetime(sample.cut.holdout)


def _columns(sample: Sample) -> dict[str, object]:
    return {
        "train_from": as_datetime(sample.cut.start),
        "holdout_from": as_datetime(sample.cut.holdout),
        "holdout_until": as_datetime(sample.cut.end),
        "train_rows": sample.train_rows,
        "holdout_rows": sample.holdout_rows,
    }


def _record(connection: Connection[Any], trained: _Trained) -> tuple[int, str]:
    """Give the challenger its number, name its folder by it and write all of its rows, in one transaction.

    Returns:
        The number, and where the fitted model lies from now on.
    """
    refresh, measured = trained.refresh, trained.evaluation
    with versions.transaction(connection):
        versions.lock_model(connection, refresh.pipeline, refresh.model)
        version = versions.next_version(connection, refresh.pipeline, refresh.model)
        named = artifacts.below(trained.artifact.rpartition("/")[0], str(version))
        columns = {"version": version, "artifact": named, **trained.columns}
        versions.insert_version(connection, refresh.pipeline, refresh.model, columns)
        for metric in measured.values[CHALLENGER]:
            values = {_number(n, version): found[metric] for n, found in measured.values.items()}
            ends = {_number(n, version): found[metric] for n, found in measured.intervals.items() if metric in found}
            versions.write_evaluations(connection, refresh.id, metric, values, ends)
        if trained.scorer is not None:
            versions.insert_portable_model(connection, refresh.pipeline, refresh.model, version, trained.scorer)
        artifacts.rename(trained.artifact, named)
    return version, named


def _number(candidate: int, version: int) -> int:
    return version if candidate == CHALLENGER else candidate
