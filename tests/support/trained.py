"""A model that is trained once in a session, and given to every test that only needs one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from pymysql.connections import Connection

from support.models import outdate
from tidemill.config import Settings
from tidemill.ml.refresh import begin_refresh
from tidemill.ml.registry import versions
from tidemill.ml.registry.promotion import promote_or_reject
from tidemill.ml.registry.versions import Estimate, ModelVersion, NewVersion
from tidemill.spec import Pipeline
from tidemill.spec.estimators import metrics_of, problem_of


class Place(Protocol):
    """An applied pipeline with a model, such as a shop or a post."""

    settings: Settings
    pipeline: Pipeline
    connection: Connection[Any]
    model: str


@dataclass(frozen=True)
class TrainedModel:
    """What one training recorded: its row, its evaluations, its portable form, and the files of its artifact."""

    version: ModelVersion
    evaluations: Mapping[str, Mapping[int, Estimate]]
    """Metric -> version -> what was measured."""
    portable: bytes
    files: Path
    mlflow_uri: str = ""
    """Where the training was logged."""


def begin(place: Place, run: str) -> int:
    """Open a refresh, whatever other one is open."""
    outdate(place.connection)
    return begin_refresh(place.connection, place.pipeline, place.model, run)


def trained_in(place: Place, refresh: int, files: Path, mlflow_uri: str = "") -> TrainedModel:
    """Take down what the training of a refresh recorded; its artifact is copied to ``files``."""
    name = place.pipeline.name
    version = versions.version_of_refresh(place.connection, name, place.model, refresh)
    assert version is not None
    metrics = metrics_of(problem_of(place.pipeline.models[place.model]))
    with place.connection.cursor() as cursor:
        cursor.execute("SELECT content FROM portable_models WHERE pipeline = %s AND model = %s", (name, place.model))
        [(portable,)] = cursor.fetchall()
    shutil.copytree(version.artifact, files)
    evaluations = {metric: versions.read_evaluations(place.connection, refresh, metric) for metric in metrics}
    return TrainedModel(version, evaluations, portable, files, mlflow_uri)


def adopt(place: Place, model: TrainedModel, run: str = "first") -> int:
    """Record a trained model in another place as if it had been trained there, and promote it; returns the refresh.

    The place has the features of the one that it was trained in. Its refresh is open, and has scored nothing.
    """
    refresh, name = begin(place, run), place.pipeline.name
    artifact = Path(place.settings.models) / name / place.model / "1"
    shutil.copytree(model.files, artifact)
    known = {field: getattr(model.version, field) for field in NewVersion.__dataclass_fields__}
    new = replace(NewVersion(**known), version=1, refresh_id=refresh, artifact=str(artifact))
    with versions.transaction(place.connection):
        versions.insert_version(place.connection, name, place.model, new)
        for metric, estimates in model.evaluations.items():
            versions.write_evaluations(place.connection, refresh, metric, estimates)
        versions.insert_portable_model(place.connection, name, place.model, 1, model.portable)
    assert promote_or_reject(place.connection, place.pipeline, place.model, refresh).promote
    return refresh
