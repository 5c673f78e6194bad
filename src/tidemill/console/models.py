"""The console's models: one row each, by the metric that decides its promotion."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidemill.ml.registry.history import DecisionRecord, FeatureDrift

Row = dict[str, Any]
Name = tuple[str, str]
"""Pipeline and model."""


@dataclass(frozen=True)
class ModelView:
    """One model. Times are UTC."""

    pipeline: str
    model: str
    champion_version: int | None
    published_version: int | None
    published_at: datetime | None
    """When scores were last made visible."""
    metric: str | None
    """The metric that decides the promotion, where the champion was measured by it."""
    champion_value: float | None
    baseline_value: float | None
    trained_at: datetime | None
    low: float | None = None
    """The middle 95 % of the champion's metric."""
    high: float | None = None
    waiting_version: int | None = None
    """The version that a person is to approve or reject."""
    calibration: tuple[Row, ...] = ()
    """The champion's: ``predicted``, ``observed`` and ``rows`` of each tenth; empty unless it classifies."""
    drift: tuple[FeatureDrift, ...] = ()
    """Of the newest refresh that measured it, the furthest first."""
    decision: DecisionRecord | None = None
    """The newest decision."""


def models_of(query: Callable[[str], list[Row]], metric_of: Callable[[str, str], str | None]) -> list[ModelView]:
    """Every model.

    Args:
        query: runs one of the files of ``sql/console``.
        metric_of: the metric that decides a model's promotion; None if that cannot be read.
    """
    calibrations = {_name(row): _calibration(row["details"]) for row in query("list_details")}
    drift: dict[Name, list[FeatureDrift]] = {}
    for row in query("list_drift"):
        drift.setdefault(_name(row), []).append(FeatureDrift(**_without_name(row)))
    decisions = {_name(row): DecisionRecord(**_without_name(row)) for row in query("list_decisions")}
    return [
        ModelView(
            **row,
            calibration=calibrations.get(_name(row), ()),
            drift=tuple(drift.get(_name(row), ())),
            decision=decisions.get(_name(row)),
        )
        for row in by_promotion_metric(query("list_models"), metric_of)
    ]


def by_promotion_metric(rows: Iterable[Row], metric_of: Callable[[str, str], str | None]) -> list[Row]:
    """Of each model's rows, one for each metric, that of the promotion rule; the first where there is none."""
    chosen: dict[Name, Row] = {}
    for row in rows:
        if _name(row) not in chosen or row["metric"] == metric_of(*_name(row)):
            chosen[_name(row)] = row
    return list(chosen.values())


def _name(row: Row) -> Name:
    return row["pipeline"], row["model"]


def _without_name(row: Row) -> Row:
    return {column: value for column, value in row.items() if column not in ("pipeline", "model")}


def _calibration(details: str | None) -> tuple[Row, ...]:
    return tuple(json.loads(details or "{}").get("calibration") or ())
