"""Whether the rows to be scored still look like those that the champion was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymysql.connections import Connection
from pyspark.sql import SparkSession

from tidemill.config import Account, Settings
from tidemill.errors import ModelError
from tidemill.ml.data.reader import read_features
from tidemill.ml.refresh import end_refresh
from tidemill.ml.registry import versions
from tidemill.ml.registry.versions import ModelVersion, Refresh
from tidemill.ml.serving import drift, feature_bins
from tidemill.spec.schema import Drift, Pipeline
from tidemill.store.connection import session, translated
from tidemill.store.control.incidents import close_incident, open_incident

DRIFT = "drift"
"""Kind of the incident."""


def check_drift(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, refresh: Refresh, champion: ModelVersion
) -> None:
    """Compare the rows written since the last publication with the champion's training rows, and record the result.

    A model without a declared bound is not compared. Drift beyond the bound ends the refresh as ``refused`` and opens
    an incident, which the next scoring within the bound closes.

    Raises:
        ModelError: a feature has drifted beyond the bound.
    """
    declared = pipeline.models[refresh.model].drift
    trained_on = feature_bins.from_json(champion.training_distribution)
    if declared is None or not trained_on:
        return
    with session(settings, Account.STREAM) as connection:
        since = _published_commit(connection, refresh)
    rows = read_features(spark, settings, pipeline, refresh.model, since_commit=since)
    measured, count = drift.measure(rows, trained_on)
    subject = f"model {pipeline.name}.{refresh.model}"
    with session(settings, Account.STREAM) as connection:
        write_drift(connection, refresh.id, measured, declared, count)
        error = drift_error(measured, declared, count)
        if error is None:
            close_incident(connection, subject, DRIFT)
            _reopen_refused(connection, refresh.id)
            return
        open_incident(connection, subject, DRIFT, f"nothing is scored: {error}")
        end_refresh(connection, refresh.id, "refused", reason=str(error))
    raise error


def drift_error(measured: Mapping[str, float], declared: Drift, rows: int) -> ModelError | None:
    """The error of features that have drifted beyond the bound; None if none has, or if there are too few rows."""
    if rows < declared.least_rows:
        return None
    moved = {name: psi for name, psi in measured.items() if name not in declared.ignore and psi > declared.psi}
    if not moved:
        return None
    listed = ", ".join(f"{name} {psi:.2f}" for name, psi in sorted(moved.items(), key=lambda each: -each[1]))
    return ModelError("TM-ML-DRIFT", value=listed, bound=f"{declared.psi:g}", rows=rows)


def write_drift(
    connection: Connection[Any], refresh_id: int, measured: Mapping[str, float], declared: Drift, rows: int
) -> None:
    """Record how far each feature has moved, in place of what this refresh recorded before."""
    values = [
        (refresh_id, name, psi, None if name in declared.ignore else declared.psi, rows)
        for name, psi in measured.items()
    ]
    with versions.transaction(connection), connection.cursor() as cursor:
        cursor.execute("DELETE FROM drift WHERE refresh_id = %s", (refresh_id,))
        cursor.executemany(
            "INSERT INTO drift (refresh_id, feature, psi, allowed, drift_rows) VALUES (%s, %s, %s, %s, %s)", values
        )


def _reopen_refused(connection: Connection[Any], refresh_id: int) -> None:
    """Open a refresh again that was refused before and whose rows are within the bound now."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE refreshes SET state = 'running', reason = NULL, ended_at = NULL"
            " WHERE id = %s AND state = 'refused'",
            (refresh_id,),
        )


def _published_commit(connection: Connection[Any], refresh: Refresh) -> int:
    """The commit up to which scores were published; 0 if none were."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT COALESCE(MAX(as_of_commit), 0) FROM refreshes"
            " WHERE pipeline = %s AND model = %s AND state = 'published'",
            (refresh.pipeline, refresh.model),
        )
        [(commit,)] = cursor.fetchall()
    return int(commit)
