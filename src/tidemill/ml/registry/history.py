"""What is known of one model: its versions with what they were measured at, what was decided, how its input moves."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.ml.registry.versions import BASELINE, ModelVersion, newest_version
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
    """Of the champion of that day; None if there was none."""


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
    parameters: dict[str, Any] = field(default_factory=dict)
    importance: dict[str, float] = field(default_factory=dict)
    """Feature -> its part, the largest first; empty where the estimator does not say."""
    calibration: list[dict[str, float]] = field(default_factory=list)
    """``predicted``, ``observed``, ``rows`` of each tenth; empty unless it classifies."""


@dataclass(frozen=True)
class FeatureDrift:
    """One feature of the newest refresh that measured it."""

    feature: str
    psi: float
    allowed: float | None
    """Above it nothing is scored; None for a feature that may move."""
    drift_rows: int

    @property
    def is_beyond(self) -> bool:
        """Whether it keeps rows from being scored."""
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
    """All of it."""

    pipeline: str
    model: str
    metric: str
    """That the judge goes by."""
    champion_version: int | None
    published_version: int | None
    waiting_version: int | None
    """The version that a person is to approve or reject."""
    versions: list[VersionRecord]
    """The newest ones, and the champion."""
    drift: list[FeatureDrift]
    """The furthest first."""
    decisions: list[DecisionRecord]
    """The newest first."""


def read_history(connection: Connection[Any], pipeline: str, model: str, metric: str) -> ModelHistory:
    """Read what is known of a model; without versions where it was never trained."""
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
        versions=[_fitted(connection, row, metric) for row in rows],
        drift=[FeatureDrift(**row) for row in _query(connection, _DRIFT, this)],
        decisions=[DecisionRecord(**row) for row in _query(connection, _DECISIONS, this)],
    )


def waiting_version(connection: Connection[Any], pipeline: str, model: str) -> int | None:
    """The version that a person is to approve or reject; None if none waits. Only the newest version may."""
    found: ModelVersion | None = newest_version(connection, pipeline, model)
    return found.version if found is not None and found.state == "waiting" else None


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


def _fitted(connection: Connection[Any], row: dict[str, Any], metric: str) -> VersionRecord:
    of = {"refresh_id": row.pop("refresh_id"), "version": row["version"], "metric": metric, "baseline": BASELINE}
    details = json.loads(row.pop("details") or "{}")
    known = {name: details.get(name) for name in ("parameters", "importance", "calibration")}
    measures = [MetricValue(**each) for each in _query(connection, _MEASURES, of)]
    return VersionRecord(**row, measures=measures, **{name: value for name, value in known.items() if value})


def _query(connection: Connection[Any], statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())
