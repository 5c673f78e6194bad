"""Make new scores visible to readers in one transaction, and roll back to an earlier version."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import ModelError
from tidemill.ml.refresh import end_refresh
from tidemill.ml.registry.decisions import Decision, record_decision
from tidemill.ml.registry.status import ModelStatus, model_status
from tidemill.ml.registry.versions import Refresh, declared_model, lock_model, read_refresh, transaction
from tidemill.spec.schema import Model, Pipeline
from tidemill.store.connection import dialect_of, translated
from tidemill.store.control import incidents
from tidemill.store.scoring.unscored import UNSCORED_ROWS, Unscored, describe_key, message_of, report_unscored
from tidemill.store.sql import identifiers
from tidemill.store.steps import run_step

PART_ROWS = 20_000
"""Scores that one step moves before the publication."""
__all__ = ["ModelStatus", "model_status", "publish", "rollback"]


def publish(connection: Connection[Any], settings: Settings, pipeline: Pipeline, model: str, refresh_id: int) -> int:
    """Merge the pending scores of the champion, point readers at it and close the refresh, in one transaction.

    Readers of ``<table>_scored`` see all of the scores or none. Publishing a published refresh again changes nothing.
    While readers still see another version, the scores are moved in small transactions first: the last transaction
    locks the model's row, for which the commits of a stream with live scoring wait.

    Returns:
        Rows whose score became visible.

    Raises:
        ModelError: the scoring of this refresh is not complete, or another version became the champion since.
    """
    declared, d = declared_model(pipeline, model), dialect_of(connection)
    before = read_refresh(connection, refresh_id, pipeline, model)
    moved = 0 if before.state == "published" else _move_ahead(connection, settings, before, declared)
    with transaction(connection):
        champion, _ = lock_model(connection, pipeline.name, model)
        refresh = read_refresh(connection, refresh_id, pipeline, model)
        if refresh.state == "published":
            return refresh.scored_rows or 0
        if refresh.scored_version is None:
            raise ModelError("TM-ML-SCORING-INCOMPLETE", value=refresh_id)
        if refresh.scored_version != champion:
            raise ModelError(
                "TM-ML-CHAMPION-CHANGED",
                value=champion,
                refresh_id=refresh_id,
                scored_version=refresh.scored_version,
            )
        values = {"version": champion, "pipeline": pipeline.name, "model": model}
        with translated(), connection.cursor() as cursor:
            cursor.execute(d.count_pending(settings.db_data, declared), values)
            rows = moved + int(cursor.fetchone()[0])
            cursor.execute(d.publish_scores(settings.db_data, declared), values)
            cursor.execute(d.clear_pending(settings.db_data, declared), values)
            cursor.execute(
                "UPDATE models SET published_version = %(version)s, published_at = UTC_TIMESTAMP(6)"
                " WHERE pipeline = %(pipeline)s AND model = %(model)s",
                values,
            )
            cursor.execute(
                "UPDATE model_versions SET published_at = COALESCE(published_at, UTC_TIMESTAMP(6))"
                " WHERE pipeline = %(pipeline)s AND model = %(model)s AND version = %(version)s",
                values,
            )
        end_refresh(connection, refresh_id, "published", rows)
    update_unscored_incident(connection, settings, pipeline, model, champion)
    return rows


def update_unscored_incident(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, model: str, version: int
) -> None:
    """Count the rows that have no number as score of the version that readers see: open or close their incident."""
    declared = declared_model(pipeline, model)
    with translated(), connection.cursor() as cursor:
        cursor.execute(dialect_of(connection).unscored_rows(settings.db_data, declared), {"version": version})
        row = cursor.fetchone()
    name = f"{pipeline.name}.{model}"
    if row is None:
        incidents.close_incident(connection, f"model {name}", UNSCORED_ROWS)
        return
    unscored = Unscored(version, int(row[-1]), describe_key(declared.key, row[:-1]))
    report_unscored(connection, pipeline.name, model, unscored)
    incidents.restate_incident(connection, f"model {name}", UNSCORED_ROWS, message_of(unscored, name))


def _move_ahead(connection: Connection[Any], settings: Settings, refresh: Refresh, declared: Model) -> int:
    """Move pending scores of a champion that readers do not see yet, in small transactions; returns their number."""
    d, moved = dialect_of(connection), 0
    if not d.deletes_in_order:
        return 0
    part = d.publish_part(settings.db_data, declared)
    remove = d.remove_scores(settings.db_data, identifiers.pending(declared.score.table), declared)

    def move(cursor: Any) -> int:
        champion, published = lock_model(connection, refresh.pipeline, refresh.model)
        if champion is None or champion != refresh.scored_version or champion == published:
            return 0
        values = {"version": champion, "rows": PART_ROWS}
        cursor.execute(part, values)
        return int(cursor.execute(remove, values))

    while rows := run_step(connection, move):
        moved += rows
    return moved


def rollback(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, model: str, version: int | None, by: str
) -> int:
    """Publish an earlier version's scores again, and make that version the champion.

    Both change in one transaction; no score is written. Rows that changed since the version scored them keep its old
    score, and newer rows have none, until the next refresh.

    Args:
        connection: as the stream account.
        settings: schemas.
        pipeline: the pipeline of the model.
        model: which of its models.
        version: which one; None for the newest before the published one that was published and still has its scores.
        by: the person who requests it.

    Returns:
        The version that is published now.

    Raises:
        ModelError: nothing is published, or the version has no scores any more.
    """
    this = (pipeline.name, model)
    scores = declared_model(pipeline, model).score.table
    with transaction(connection):
        champion, published = lock_model(connection, *this)
        if published is None:
            raise ModelError("TM-ML-NOTHING-PUBLISHED", value=f"{pipeline.name}.{model}")
        target = _earlier_version(
            connection, this, _scored_versions(connection, settings.db_data, scores), published, version
        )
        if (target, target) != (champion, published):
            _point_back(connection, this, target)
            record_decision(connection, this, target, Decision("rolled back", f"readers saw version {published}", by))
    update_unscored_incident(connection, settings, pipeline, model, target)
    return target


def _scored_versions(connection: Connection[Any], schema: str, scores: str) -> set[int]:
    with translated(), connection.cursor() as cursor:
        cursor.execute(dialect_of(connection).scored_versions(schema, scores))
        return {int(row[0]) for row in cursor.fetchall()}


def _earlier_version(
    connection: Connection[Any], this: tuple[str, str], scored: set[int], published: int, version: int | None
) -> int:
    """The version to roll back to."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT version FROM model_versions WHERE pipeline = %s AND model = %s"
            " AND published_at IS NOT NULL ORDER BY version DESC",
            this,
        )
        known = [int(row[0]) for row in cursor.fetchall() if int(row[0]) in scored]
    target = version if version is not None else next((each for each in known if each < published), None)
    if target is None or target not in known:
        raise ModelError(
            "TM-ML-VERSION-WITHOUT-SCORES",
            value=f"none before {published}" if target is None else target,
            known=", ".join(map(str, sorted(known))) or "none",
        )
    return target


def _point_back(connection: Connection[Any], this: tuple[str, str], target: int) -> None:
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE model_versions SET state = IF(version = %s, 'champion', 'retired')"
            " WHERE pipeline = %s AND model = %s AND (version = %s OR state = 'champion')",
            (target, *this, target),
        )
        cursor.execute(
            "UPDATE models SET champion_version = %s, published_version = %s, published_at = UTC_TIMESTAMP(6)"
            " WHERE pipeline = %s AND model = %s",
            (target, target, *this),
        )
