"""The control plane's rows about models: versions, who is champion, what was measured, one refresh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.errors import ModelError
from tidemill.spec.schema import Model, Pipeline
from tidemill.store.connection import translated

BASELINE = 0
"""The version under which a refresh's baseline is measured."""


@dataclass(frozen=True)
class ModelVersion:
    """One fitted model. Times are naive UTC."""

    version: int
    refresh_id: int
    pipeline_version: int
    artifact: str
    """Folder or URI of the fitted Spark pipeline."""
    checksum: str | None
    """SHA-256 of it as it was written; None of versions older than that."""
    as_of_commit: int
    train_from: datetime
    holdout_from: datetime
    holdout_until: datetime
    train_rows: int
    holdout_rows: int
    train_seconds: float
    details: str | None
    """JSON: what else is known of it (``tidemill.ml.training.details``); None of versions older than that."""
    state: str
    reason: str | None
    created_at: datetime


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
    """JSON: what the form of the run asked for."""


_COLUMNS = ", ".join(f"v.{name}" for name in ModelVersion.__dataclass_fields__)


@contextmanager
def transaction(connection: Connection[Any]) -> Iterator[None]:
    """All of the block, or nothing of it."""
    with translated():
        connection.begin()
        try:
            yield
            connection.commit()
        except BaseException:  # Ctrl-C, too: all of the block, or nothing of it
            if connection.open:
                connection.rollback()
            raise


def declared_model(pipeline: Pipeline, name: str) -> Model:
    """A pipeline's model by name.

    Raises:
        ModelError: there is none of that name.
    """
    if name not in pipeline.models:
        known = ", ".join(pipeline.models) or "none"
        raise ModelError(f"pipeline {pipeline.name} has no such model", value=name, remedy=f"there are: {known}")
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
        raise ModelError(
            f"no such refresh of {pipeline.name}.{model}", value=refresh_id, remedy="begin one with begin_refresh"
        )
    return Refresh(**row)


def read_champion(connection: Connection[Any], pipeline: str, model: str) -> ModelVersion | None:
    """The version that scores, or None as long as none was promoted."""
    return _read(
        connection,
        "JOIN models AS m ON m.pipeline = v.pipeline AND m.model = v.model AND m.champion_version = v.version"
        " WHERE v.pipeline = %s AND v.model = %s",
        (pipeline, model),
    )


def version_of_refresh(connection: Connection[Any], pipeline: str, model: str, refresh_id: int) -> ModelVersion | None:
    """The version that a refresh trained, if it trained one."""
    return _read(
        connection,
        "WHERE v.pipeline = %s AND v.model = %s AND v.refresh_id = %s ORDER BY v.version DESC LIMIT 1",
        (pipeline, model, refresh_id),
    )


def newest_version(connection: Connection[Any], pipeline: str, model: str) -> ModelVersion | None:
    """The version trained last, whatever became of it."""
    return _read(
        connection, "WHERE v.pipeline = %s AND v.model = %s ORDER BY v.version DESC LIMIT 1", (pipeline, model)
    )


def read_version(connection: Connection[Any], pipeline: str, model: str, version: int) -> ModelVersion:
    """One version.

    Raises:
        ModelError: there is none of that number.
    """
    found = _read(connection, "WHERE v.pipeline = %s AND v.model = %s AND v.version = %s", (pipeline, model, version))
    if found is None:
        raise ModelError(
            f"{pipeline}.{model} has no such version", value=version, remedy="./tidemill models says which it has"
        )
    return found


def _read(connection: Connection[Any], which: str, values: tuple[object, ...]) -> ModelVersion | None:
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM model_versions AS v {which}", values)
        row = cursor.fetchone()
    return ModelVersion(**row) if row else None


def lock_model(connection: Connection[Any], pipeline: str, model: str) -> tuple[int | None, int | None]:
    """Hold a model's row until the transaction ends; returns its champion and its published version.

    Raises:
        ModelError: the pipeline was never applied.
    """
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT champion_version, published_version FROM models WHERE pipeline = %s AND model = %s FOR UPDATE",
            (pipeline, model),
        )
        row = cursor.fetchone()
    if row is None:
        raise ModelError(
            "the database does not know the model", value=f"{pipeline}.{model}", remedy="run ./tidemill apply"
        )
    return row[0], row[1]


def next_version(connection: Connection[Any], pipeline: str, model: str) -> int:
    """The number after the newest version's. Only with the model's row locked."""
    found = newest_version(connection, pipeline, model)
    return 1 if found is None else found.version + 1


def insert_version(connection: Connection[Any], pipeline: str, model: str, values: Mapping[str, object]) -> None:
    """Record a fitted model; ``values`` are columns of ``model_versions``."""
    columns = ["pipeline", "model", *values]
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO model_versions ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})",
            (pipeline, model, *values.values()),
        )


def insert_portable_model(connection: Connection[Any], pipeline: str, model: str, version: int, content: bytes) -> None:
    """Record a fitted model in the form that scores without Spark."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO portable_models (pipeline, model, version, content) VALUES (%s, %s, %s, %s)",
            (pipeline, model, version, content),
        )


def write_evaluations(
    connection: Connection[Any],
    refresh_id: int,
    metric: str,
    values: Mapping[int, float | None],
    intervals: Mapping[int, tuple[float, float]] = MappingProxyType({}),
) -> None:
    """Record what a refresh measured.

    Args:
        connection: the stream account's.
        refresh_id: which refresh.
        metric: its name.
        values: version -> value, None where it could not be measured.
        intervals: version -> the middle 95 % of what resampled rows say, of those that have it.
    """
    with translated(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO evaluations (refresh_id, version, metric, value, low, high) VALUES (%s, %s, %s, %s, %s, %s)"
            " ON DUPLICATE KEY UPDATE value = VALUES(value), low = VALUES(low), high = VALUES(high)",
            [
                (refresh_id, version, metric, value, *intervals.get(version, (None, None)))
                for version, value in values.items()
            ],
        )


def read_evaluations(connection: Connection[Any], refresh_id: int, metric: str) -> dict[int, float | None]:
    """What a refresh measured: version -> value."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT version, value FROM evaluations WHERE refresh_id = %s AND metric = %s", (refresh_id, metric)
        )
        return {int(version): value for version, value in cursor.fetchall()}
