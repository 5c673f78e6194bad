"""The status of a pipeline's models, for the command line and the embedded stack."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.config import Settings
from tidemill.ml.registry.versions import BASELINE
from tidemill.spec.schema import Model, Pipeline
from tidemill.store.connection import dialect_of, translated


@dataclass(frozen=True)
class ModelStatus:
    """One model. Times are naive UTC; a field is None as long as it has no value."""

    pipeline: str
    model: str
    metric: str
    champion_version: int | None
    metric_value: float | None
    """The champion's value on the rows held out when it was promoted."""
    baseline_value: float | None
    """The baseline's value on the same rows."""
    champion_reason: str | None
    trained_at: datetime | None
    holdout_from: datetime | None
    holdout_until: datetime | None
    newest_version: int | None
    newest_state: str | None
    newest_reason: str | None
    published_version: int | None
    published_at: datetime | None
    as_of_commit: int | None
    """The scores that readers see are complete up to this commit."""
    scored_rows: int
    """Rows that have a score of the published version."""


_STATUS = """
SELECT m.pipeline, m.model, %(metric)s AS metric, m.champion_version, e.value AS metric_value,
       b.value AS baseline_value, c.reason AS champion_reason, c.created_at AS trained_at, c.holdout_from,
       c.holdout_until, n.version AS newest_version, n.state AS newest_state, n.reason AS newest_reason,
       m.published_version, m.published_at,
       (SELECT MAX(r.as_of_commit) FROM refreshes AS r
        WHERE r.pipeline = m.pipeline AND r.model = m.model AND r.state = 'published') AS as_of_commit
FROM models AS m
LEFT JOIN model_versions AS c ON c.pipeline = m.pipeline AND c.model = m.model AND c.version = m.champion_version
LEFT JOIN evaluations AS e ON e.refresh_id = c.refresh_id AND e.version = c.version AND e.metric = %(metric)s
LEFT JOIN evaluations AS b ON b.refresh_id = c.refresh_id AND b.version = %(baseline)s AND b.metric = %(metric)s
LEFT JOIN model_versions AS n ON n.pipeline = m.pipeline AND n.model = m.model AND n.version =
       (SELECT MAX(x.version) FROM model_versions AS x WHERE x.pipeline = m.pipeline AND x.model = m.model)
WHERE m.pipeline = %(pipeline)s AND m.model = %(model)s
"""


def model_status(connection: Connection[Any], settings: Settings, pipeline: Pipeline) -> list[ModelStatus]:
    """Every applied model of a pipeline, in the order of its file."""
    statuses = []
    for name, model in pipeline.models.items():
        values = {"metric": model.promotion.metric, "baseline": BASELINE, "pipeline": pipeline.name, "model": name}
        with translated(), connection.cursor(DictCursor) as cursor:
            cursor.execute(_STATUS, values)
            row = cursor.fetchone()
        if row is not None:
            scored = _scored(connection, settings, model, row["published_version"])
            statuses.append(ModelStatus(**row, scored_rows=scored))
    return statuses


def _scored(connection: Connection[Any], settings: Settings, model: Model, version: int | None) -> int:
    if version is None:
        return 0
    with translated(), connection.cursor() as cursor:
        cursor.execute(dialect_of(connection).count_scores(settings.db_data, model), {"version": version})
        return int(cursor.fetchone()[0])
