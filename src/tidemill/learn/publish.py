"""Make new scores visible, all at once."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import LearnError
from tidemill.learn.refresh import end_refresh
from tidemill.learn.status import ModelStatus, model_status
from tidemill.learn.versions import lock_model, model_of, read_refresh, transaction
from tidemill.spec.model import Pipeline
from tidemill.store.connect import dialect_of, translated

__all__ = ["ModelStatus", "model_status", "publish"]


def publish(connection: Connection[Any], settings: Settings, pipeline: Pipeline, model: str, refresh_id: int) -> int:
    """Merge the pending scores of the champion, point readers at it and close the refresh, in one transaction.

    Readers of ``<table>_scored`` see all of it or nothing. Publishing a published refresh again changes nothing.

    Returns:
        Rows whose score became visible.

    Raises:
        LearnError: the scoring of this refresh is not complete, or another version became champion since.
    """
    declared, d = model_of(pipeline, model), dialect_of(connection)
    with transaction(connection):
        champion, _ = lock_model(connection, pipeline.name, model)
        refresh = read_refresh(connection, refresh_id, pipeline, model)
        if refresh.state == "published":
            return refresh.scored_rows or 0
        if refresh.scored_version is None:
            raise LearnError("the scoring of this refresh is not complete", value=refresh_id, remedy="score first")
        if refresh.scored_version != champion:
            raise LearnError(
                f"another version became champion since refresh {refresh_id} scored",
                value=f"{refresh.scored_version}, now {champion}",
                remedy="score again",
            )
        values = {"version": champion, "pipeline": pipeline.name, "model": model}
        with translated(), connection.cursor() as cursor:
            cursor.execute(d.count_pending(settings.db_data, declared), values)
            rows = int(cursor.fetchone()[0])
            cursor.execute(d.publish_scores(settings.db_data, declared), values)
            cursor.execute(d.clear_pending(settings.db_data, declared), values)
            cursor.execute(
                "UPDATE models SET published_version = %(version)s, published_at = UTC_TIMESTAMP(6)"
                " WHERE pipeline = %(pipeline)s AND model = %(model)s",
                values,
            )
        end_refresh(connection, refresh_id, "published", rows)
    return rows
