"""The history of one model: its versions with their metrics, the decisions about them, and the drift of its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.ml.registry.details import VersionDetails
from tidemill.ml.registry.versions import BASELINE, newest_version
from tidemill.store.connection import translated

VERSIONS_SHOWN = 5
DECISIONS_SHOWN = 10


@dataclass(frozen=True)
class MetricValue:
    """One metric of one version on the rows held out when it was trained, and of its rivals on the same rows."""

    metric: str
    value: float | None
    low: float | None
    """Lower end of the middle 95 %."""
    high: float | None
    baseline: float | None
    champion: float | None
    """The value of the champion at that time; None if there was none."""


@dataclass(frozen=True)
class VersionRecord:
    """One version. Times are naive UTC."""

    version: int
    state: str
    reason: str | None
    trained_at: datetime
    train_from: datetime
    holdout_from: datetime
    holdout_until: datetime
    train_rows: int
    holdout_rows: int
    measures: list[MetricValue]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    """Feature -> its share, the largest first; empty where the estimator has none."""
    calibration: Sequence[Mapping[str, float]] = ()
    """``predicted``, ``observed``, ``rows`` of each tenth; empty unless the model classifies."""


@dataclass(frozen=True)
class FeatureDrift:
    """One feature of the newest refresh that measured it."""

    feature: str
    psi: float
    allowed: float | None
    """The bound above which nothing is scored; None for a feature that may move freely."""
    drift_rows: int

    @property
    def is_beyond(self) -> bool:
        """Whether this feature prevents the rows from being scored."""
        return self.allowed is not None and self.psi > self.allowed


@dataclass(frozen=True)
class DecisionRecord:
    """One decision about a version. Times are naive UTC."""

    version: int
    verdict: str
    reason: str
    decided_by: str
    decided_at: datetime


@dataclass(frozen=True)
class ModelHistory:
    """All of one model."""

    pipeline: str
    model: str
    metric: str
    """The metric that decides the promotion."""
    champion_version: int | None
    published_version: int | None
    waiting_version: int | None
    """The version that waits for a person to approve or reject it."""
    versions: list[VersionRecord]
    """The newest ones, and the champion."""
    drift: list[FeatureDrift]
    """The largest first."""
    decisions: list[DecisionRecord]
    """The newest first."""


def read_history(connection: Connection[Any], pipeline: str, model: str, metric: str) -> ModelHistory:
    """Read the history of a model; it has no versions where the model was never trained."""
    this = {"pipeline": pipeline, "model": model}
    pointers = next(iter(_query(connection, _POINTERS, this)), {"champion_version": None, "published_version": None})
    rows = _query(connection, _VERSIONS, {**this, "champion": pointers["champion_version"]})
    return ModelHistory(
        pipeline=pipeline,
        model=model,
        metric=metric,
        champion_version=pointers["champion_version"],
        published_version=pointers["published_version"],
        waiting_version=waiting_version(connection, pipeline, model),
        versions=[_version(connection, row, metric) for row in rows],
        drift=[FeatureDrift(**row) for row in _query(connection, _DRIFT, this)],
        decisions=[DecisionRecord(**row) for row in _query(connection, _DECISIONS, this)],
    )


def waiting_version(connection: Connection[Any], pipeline: str, model: str) -> int | None:
    """The version that waits for a person; None if none does. Only the newest version can wait."""
    newest = newest_version(connection, pipeline, model)
    return newest.version if newest is not None and newest.state == "waiting" else None


_POINTERS = "SELECT champion_version, published_version FROM models WHERE pipeline = %(pipeline)s AND model = %(model)s"
_VERSIONS = f"""
SELECT version, refresh_id, state, reason, created_at AS trained_at, train_from, holdout_from, holdout_until,
       train_rows, holdout_rows, details
FROM model_versions
WHERE pipeline = %(pipeline)s AND model = %(model)s AND (version = %(champion)s OR version + {VERSIONS_SHOWN} > (
    SELECT MAX(v.version) FROM model_versions AS v WHERE v.pipeline = %(pipeline)s AND v.model = %(model)s))
ORDER BY version DESC
"""
_MEASURES = """
SELECT e.metric, e.value, e.low, e.high, b.value AS baseline, c.value AS champion
FROM evaluations AS e
LEFT JOIN evaluations AS b ON b.refresh_id = e.refresh_id AND b.version = %(baseline)s AND b.metric = e.metric
LEFT JOIN evaluations AS c ON c.refresh_id = e.refresh_id AND c.metric = e.metric AND c.version = (
    SELECT MAX(o.version) FROM evaluations AS o
    WHERE o.refresh_id = e.refresh_id AND o.version NOT IN (%(baseline)s, e.version))
WHERE e.refresh_id = %(refresh_id)s AND e.version = %(version)s
ORDER BY e.metric = %(metric)s DESC, e.metric
"""
_DRIFT = """
SELECT d.feature, d.psi, d.allowed, d.drift_rows FROM drift AS d
WHERE d.refresh_id = (
    SELECT MAX(r.id) FROM refreshes AS r
    WHERE r.pipeline = %(pipeline)s AND r.model = %(model)s
      AND EXISTS (SELECT 1 FROM drift AS x WHERE x.refresh_id = r.id))
ORDER BY d.psi DESC, d.feature
"""
_DECISIONS = f"""
SELECT version, verdict, reason, decided_by, decided_at FROM decisions
WHERE pipeline = %(pipeline)s AND model = %(model)s ORDER BY id DESC LIMIT {DECISIONS_SHOWN}
"""


def _version(connection: Connection[Any], row: dict[str, Any], metric: str) -> VersionRecord:
    of = {"refresh_id": row.pop("refresh_id"), "version": row["version"], "metric": metric, "baseline": BASELINE}
    details = VersionDetails.from_json(row.pop("details"))
    measures = [MetricValue(**each) for each in _query(connection, _MEASURES, of)]
    shown = {name: getattr(details, name) for name in ("parameters", "importance", "calibration")}
    return VersionRecord(**row, measures=measures, **shown)


def _query(connection: Connection[Any], statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())
