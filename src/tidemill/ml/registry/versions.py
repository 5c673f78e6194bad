"""The control plane's rows about models: versions, the champion, evaluations, one refresh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.errors import ModelError
from tidemill.spec.schema import Model, Pipeline
from tidemill.store.connection import translated

BASELINE = 0
"""The version under which a refresh's baseline is measured."""


@dataclass(frozen=True)
class NewVersion:
    """A fitted model as training records it. Times are naive UTC."""

    version: int
    refresh_id: int
    pipeline_version: int
    artifact: str
    """Folder or URI of the fitted Spark pipeline."""
    checksum: str | None
    """SHA-256 of the artifact as it was written; None if it was not computed, and then it is not compared."""
    as_of_commit: int
    train_from: datetime
    holdout_from: datetime
    holdout_until: datetime
    train_rows: int
    holdout_rows: int
    train_seconds: float
    champion_saw_holdout: bool = False
    """Whether the champion was trained on rows that are held out here."""
    training_distribution: str | None = None
    """JSON: the bins of each feature in training (:mod:`tidemill.ml.serving.feature_bins`); None if the drift of this
    model cannot be measured."""
    details: str | None = None
    """JSON: what is shown of it (:mod:`tidemill.ml.registry.details`)."""


@dataclass(frozen=True, kw_only=True)
class ModelVersion(NewVersion):
    """A recorded version, with what was decided about it."""

    state: str
    """``challenger``, ``champion``, ``rejected``, ``retired`` or ``waiting``."""
    reason: str | None
    created_at: datetime


@dataclass(frozen=True)
class Estimate:
    """What one metric of one candidate is on the held-out rows of a refresh."""

    value: float | None
    """None: the candidate could not be measured, because it cannot read these features."""
    interval: tuple[float, float] | None = None
    """The middle 95 % of the values on resampled rows."""
    difference: tuple[float, float] | None = None
    """The middle 95 % of the challenger's value minus this candidate's, on the same resamples."""


@dataclass(frozen=True)
class Refresh:
    """One run of the feedback loop."""

    id: int
    pipeline: str
    model: str
    state: str
    as_of_commit: int
    scored_version: int | None
    scored_rows: int | None
    options: str | None = None
    """JSON: what the form of the run requested."""


_COLUMNS = ", ".join(f"v.{name}" for name in ModelVersion.__dataclass_fields__)


@contextmanager
def transaction(connection: Connection[Any]) -> Iterator[None]:
    """Commit the statements of the block together, or roll all of them back."""
    with translated():
        connection.begin()
        try:
            yield
            connection.commit()
        except BaseException:  # also for Ctrl-C: half of the block must not stay open
            if connection.open:
                connection.rollback()
            raise


def declared_model(pipeline: Pipeline, name: str) -> Model:
    """The declaration of a pipeline's model.

    Raises:
        ModelError: the pipeline declares no model of that name.
    """
    if name not in pipeline.models:
        known = ", ".join(pipeline.models) or "none"
        raise ModelError("TM-ML-MODEL-UNKNOWN", value=name, pipeline=pipeline.name, known=known)
    return pipeline.models[name]


def read_refresh(connection: Connection[Any], refresh_id: int, pipeline: Pipeline, model: str) -> Refresh:
    """One refresh.

    Raises:
        ModelError: it is not a refresh of this model.
    """
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(
            "SELECT id, pipeline, model, state, as_of_commit, scored_version, scored_rows, options FROM refreshes"
            " WHERE id = %s",
            (refresh_id,),
        )
        row = cursor.fetchone()
    if row is None or (row["pipeline"], row["model"]) != (pipeline.name, model):
        raise ModelError("TM-ML-REFRESH-UNKNOWN", value=refresh_id, pipeline=pipeline.name, model=model)
    return Refresh(**row)


def read_champion(connection: Connection[Any], pipeline: str, model: str) -> ModelVersion | None:
    """The version that scores; None until one is promoted."""
    return _read(
        connection,
        "JOIN models AS m ON m.pipeline = v.pipeline AND m.model = v.model AND m.champion_version = v.version"
        " WHERE v.pipeline = %s AND v.model = %s",
        (pipeline, model),
    )


def version_of_refresh(connection: Connection[Any], pipeline: str, model: str, refresh_id: int) -> ModelVersion | None:
    """The version that a refresh trained; None if it trained none."""
    return _read(
        connection,
        "WHERE v.pipeline = %s AND v.model = %s AND v.refresh_id = %s ORDER BY v.version DESC LIMIT 1",
        (pipeline, model, refresh_id),
    )


def newest_version(connection: Connection[Any], pipeline: str, model: str) -> ModelVersion | None:
    """The version that was trained last, in whatever state it is."""
    return _read(
        connection, "WHERE v.pipeline = %s AND v.model = %s ORDER BY v.version DESC LIMIT 1", (pipeline, model)
    )


def read_version(connection: Connection[Any], pipeline: str, model: str, version: int) -> ModelVersion:
    """One version.

    Raises:
        ModelError: the model has no version of that number.
    """
    row = _read(connection, "WHERE v.pipeline = %s AND v.model = %s AND v.version = %s", (pipeline, model, version))
    if row is None:
        raise ModelError("TM-ML-VERSION-UNKNOWN", value=version, pipeline=pipeline, model=model)
    return row


def _read(connection: Connection[Any], which: str, values: tuple[object, ...]) -> ModelVersion | None:
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM model_versions AS v {which}", values)
        row = cursor.fetchone()
    if row is None:
        return None
    return ModelVersion(**row | {"champion_saw_holdout": bool(row["champion_saw_holdout"])})


def lock_model(connection: Connection[Any], pipeline: str, model: str) -> tuple[int | None, int | None]:
    """Lock a model's row until the transaction ends; returns its champion and its published version.

    Raises:
        ModelError: the pipeline was not applied with this model.
    """
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT champion_version, published_version FROM models WHERE pipeline = %s AND model = %s FOR UPDATE",
            (pipeline, model),
        )
        row = cursor.fetchone()
    if row is None:
        raise ModelError("TM-ML-MODEL-NOT-APPLIED", value=f"{pipeline}.{model}")
    return row[0], row[1]


def next_version(connection: Connection[Any], pipeline: str, model: str) -> int:
    """The number of the next version. The caller holds the lock of the model's row."""
    newest = newest_version(connection, pipeline, model)
    return 1 if newest is None else newest.version + 1


def insert_version(connection: Connection[Any], pipeline: str, model: str, new: NewVersion) -> None:
    """Record a fitted model as a challenger."""
    values = {"pipeline": pipeline, "model": model} | vars(new)
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO model_versions ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})",
            tuple(values.values()),
        )


def insert_portable_model(connection: Connection[Any], pipeline: str, model: str, version: int, content: bytes) -> None:
    """Record a fitted model in the form that scores without Spark."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO portable_models (pipeline, model, version, content) VALUES (%s, %s, %s, %s)",
            (pipeline, model, version, content),
        )


def write_evaluations(
    connection: Connection[Any], refresh_id: int, metric: str, estimates: Mapping[int, Estimate]
) -> None:
    """Record one metric of the candidates of a refresh, in place of what was recorded before.

    Args:
        connection: as the stream account.
        refresh_id: which refresh.
        metric: name of the metric.
        estimates: version -> what was measured; :data:`BASELINE` is the baseline.
    """
    none = (None, None)
    with translated(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO evaluations (refresh_id, version, metric, value, low, high, difference_low, difference_high)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
            " ON DUPLICATE KEY UPDATE value = VALUES(value), low = VALUES(low), high = VALUES(high),"
            " difference_low = VALUES(difference_low), difference_high = VALUES(difference_high)",
            [
                (refresh_id, version, metric, each.value, *(each.interval or none), *(each.difference or none))
                for version, each in estimates.items()
            ],
        )


def read_evaluations(connection: Connection[Any], refresh_id: int, metric: str) -> dict[int, Estimate]:
    """One metric of every candidate that a refresh measured: version -> what was measured."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT version, value, low, high, difference_low, difference_high FROM evaluations"
            " WHERE refresh_id = %s AND metric = %s",
            (refresh_id, metric),
        )
        return {
            int(version): Estimate(value, _interval(low, high), _interval(difference_low, difference_high))
            for version, value, low, high, difference_low, difference_high in cursor.fetchall()
        }


def _interval(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)
