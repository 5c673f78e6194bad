"""Whether the rows to be scored still look like those that the champion was trained on."""

from __future__ import annotations

import json
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
from tidemill.ml.serving import drift
from tidemill.spec.schema import Drift, Pipeline
from tidemill.store.connection import session, translated
from tidemill.store.control.incidents import close_incident, open_incident

DRIFT = "drift"
"""Of the incident."""


def check_drift(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, refresh: Refresh, champion: ModelVersion
) -> None:
    """Compare the rows that came since the last publication with the champion's training rows, and note the result.

    Nothing is compared for a model that declares no bound. What is beyond it ends the refresh as ``refused`` and opens
    an incident, which the next scoring that is within bounds closes.

    Raises:
        ModelError: a feature has drifted beyond the bound.
    """
    declared = pipeline.models[refresh.model].drift
    reference = json.loads(champion.details or "{}").get("drift")
    if declared is None or not reference:
        return
    with session(settings, Account.STREAM) as connection:
        since = _published_commit(connection, refresh)
    rows = read_features(spark, settings, pipeline, refresh.model, since_commit=since)
    measured, count = drift.measure(rows, reference)
    subject = f"model {pipeline.name}.{refresh.model}"
    with session(settings, Account.STREAM) as connection:
        record(connection, refresh.id, measured, declared, count)
        refused = beyond(measured, declared, count)
        if refused is None:
            close_incident(connection, subject, DRIFT)
            _go_on(connection, refresh.id)
            return
        open_incident(connection, subject, DRIFT, f"nothing is scored: {refused}")
        end_refresh(connection, refresh.id, "refused", reason=str(refused))
    raise refused


def beyond(measured: Mapping[str, float], declared: Drift, rows: int) -> ModelError | None:
    """What is said of features that have drifted too far; None where all is within bounds, or too few rows tell."""
    if rows < declared.least_rows:
        return None
    moved = {name: psi for name, psi in measured.items() if name not in declared.ignore and psi > declared.psi}
    if not moved:
        return None
    named = ", ".join(f"{name} {psi:.2f}" for name, psi in sorted(moved.items(), key=lambda each: -each[1]))
    return ModelError(
        f"the rows to be scored have drifted from those that the champion was trained on, more than {declared.psi:g}",
        value=f"{named} ({rows} rows)",
        remedy="look at the feed; if it is right, train on it: trigger the refresh with «Train now»",
    )


def record(
    connection: Connection[Any], refresh_id: int, measured: Mapping[str, float], declared: Drift, rows: int
) -> None:
    """Note how far each feature has moved, in place of what this refresh noted before."""
    values = [
        (refresh_id, name, psi, None if name in declared.ignore else declared.psi, rows)
        for name, psi in measured.items()
    ]
    with versions.transaction(connection), connection.cursor() as cursor:
        cursor.execute("DELETE FROM drift WHERE refresh_id = %s", (refresh_id,))
        cursor.executemany(
            "INSERT INTO drift (refresh_id, feature, psi, allowed, drift_rows) VALUES (%s, %s, %s, %s, %s)", values
        )


def _go_on(connection: Connection[Any], refresh_id: int) -> None:
    """A refresh that was refused before, and is within bounds now that it is tried again."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE refreshes SET state = 'running', reason = NULL, ended_at = NULL"
            " WHERE id = %s AND state = 'refused'",
            (refresh_id,),
        )


def _published_commit(connection: Connection[Any], refresh: Refresh) -> int:
    """Up to which commit scores were published, 0 if none ever were."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT COALESCE(MAX(as_of_commit), 0) FROM refreshes"
            " WHERE pipeline = %s AND model = %s AND state = 'published'",
            (refresh.pipeline, refresh.model),
        )
        [(found,)] = cursor.fetchall()
    return int(found)
