"""Whether a challenger becomes the champion: by a metric on the same held-out rows, and then perhaps by a person."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from tidemill.errors import ModelError
from tidemill.ml.registry.decisions import BY_MEASURE, Decision, record_decision
from tidemill.ml.registry.versions import (
    BASELINE,
    ModelVersion,
    declared_model,
    lock_model,
    read_evaluations,
    read_version,
    transaction,
    version_of_refresh,
)
from tidemill.spec.estimators import METRICS
from tidemill.spec.schema import Approval, Pipeline
from tidemill.store.connection import translated

_ROUNDING = 1e-9
"""Two metrics are differences of doubles: 0.702 - 0.7 is a little more than 0.002, 0.902 - 0.9 a little less."""
_TWO_DECIMALS_FROM = 100
"""From this size on a metric is shown with two decimals, below it with four."""


@dataclass(frozen=True)
class Comparison:
    """Challenger, champion and baseline by one metric on the same held-out rows; NaN where it has no value."""

    challenger: float
    champion: float | None
    """None if there is no champion, or if it cannot read these features."""
    baseline: float
    """What the challenger must beat where there is no champion."""
    difference: tuple[float, float] | None = None
    """The middle 95 % of the challenger's metric minus its rival's, on the same resamples of the rows."""
    champion_saw_holdout: bool = False
    """Whether the champion was trained on some of these rows."""


@dataclass(frozen=True)
class PromotionCriteria:
    """What a challenger must achieve."""

    margin: float
    """By how much the champion must be beaten, at least."""
    larger_is_better: bool = True
    manual: bool = False
    """Whether a person approves the promotion."""


@dataclass(frozen=True)
class Verdict:
    """Whether to promote, and why, as a clause for a person."""

    promote: bool
    reason: str
    waiting: bool = False
    """The challenger meets the criteria, and a person has to approve it."""


def decide_promotion(compared: Comparison, criteria: PromotionCriteria) -> Verdict:
    """Compare a challenger with the champion or, where there is none, with the baseline."""
    against_champion = compared.champion is not None
    rival = compared.baseline if compared.champion is None else compared.champion
    name, margin = ("the champion", criteria.margin) if against_champion else ("the baseline", 0.0)
    if not math.isfinite(compared.challenger):
        return Verdict(False, "the challenger could not be measured")
    if not math.isfinite(rival):
        return Verdict(False, f"{name} could not be measured")
    gain = (compared.challenger - rival) * (1 if criteria.larger_is_better else -1)
    seen = ", which was trained on some of these rows" if against_champion and compared.champion_saw_holdout else ""
    values = f"challenger {_number(compared.challenger)}, {name.removeprefix('the ')} {_number(rival)}{seen}"
    change = f"gain {_number(gain, sign='+')}{_interval(compared.difference, criteria)}"
    required = f"at least {margin:g} required" if margin else "more than 0 required"
    is_better = gain > 0 and gain >= margin - _ROUNDING
    return Verdict(is_better and not criteria.manual, f"{values}: {change}, {required}", is_better and criteria.manual)


def _number(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.{4 if abs(value) < _TWO_DECIMALS_FROM else 2}f")


def _interval(difference: tuple[float, float] | None, criteria: PromotionCriteria) -> str:
    """The interval of the gain, which is the difference or, where less is better, its opposite."""
    if difference is None:
        return ""
    low, high = difference if criteria.larger_is_better else (-difference[1], -difference[0])
    return f" (95 %: {_number(low, sign='+')} to {_number(high, sign='+')})"


def promote_or_reject(connection: Connection[Any], pipeline: Pipeline, model: str, refresh_id: int) -> Verdict:
    """Promote what a refresh trained, reject it, or let it wait for a person; record which, in one transaction.

    A repeated call returns the recorded verdict. A refresh that trained nothing promotes nothing.

    Raises:
        ModelError: an evaluation is missing, or another version became the champion since it was measured.
    """
    declared = declared_model(pipeline, model).promotion
    criteria = PromotionCriteria(
        declared.margin, METRICS[declared.metric].larger_is_better, declared.approval is Approval.MANUAL
    )
    with transaction(connection):
        champion, _ = lock_model(connection, pipeline.name, model)
        trained = version_of_refresh(connection, pipeline.name, model, refresh_id)
        if trained is None:
            return Verdict(False, "this refresh trained no challenger")
        if trained.state != "challenger":
            waiting = trained.state == "waiting"
            return Verdict(not waiting and trained.state != "rejected", trained.reason or trained.state, waiting)
        compared = _read_comparison(connection, trained, champion, declared.metric)
        verdict = decide_promotion(compared, criteria)
        _carry_out(connection, (pipeline.name, model), trained, verdict)
    return verdict


def _read_comparison(
    connection: Connection[Any], trained: ModelVersion, champion: int | None, metric: str
) -> Comparison:
    """Read what the training has measured."""
    measured = read_evaluations(connection, trained.refresh_id, metric)
    missing = [v for v in (BASELINE, trained.version, champion) if v is not None and v not in measured]
    if missing:
        raise ModelError("TM-ML-EVALUATION-MISSING", value=missing[0], metric=metric, refresh_id=trained.refresh_id)
    rival = None if champion is None else measured[champion].value
    return Comparison(
        _or_nan(measured[trained.version].value),
        rival,
        _or_nan(measured[BASELINE].value),
        measured[BASELINE if rival is None or champion is None else champion].difference,
        trained.champion_saw_holdout,
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _carry_out(connection: Connection[Any], of: tuple[str, str], trained: ModelVersion, verdict: Verdict) -> None:
    state, decided = ("champion", "promoted") if verdict.promote else ("rejected", "rejected")
    if verdict.waiting:
        state = decided = "waiting"
    if verdict.promote:
        _promote(connection, of, trained.version)
    _set_state(connection, of, trained, state, Decision(decided, verdict.reason, BY_MEASURE))


def approve(connection: Connection[Any], pipeline: Pipeline, model: str, version: int, by: str) -> None:
    """Promote a challenger that waits for a person. A repeated approval changes nothing.

    Args:
        connection: as the stream account.
        pipeline: the pipeline of the model.
        model: which of its models.
        version: the challenger.
        by: the person who approves.

    Raises:
        ModelError: the model has no such version, it does not wait, or it was not measured beside today's champion.
    """
    with transaction(connection):
        champion, _ = lock_model(connection, pipeline.name, model)
        challenger = read_version(connection, pipeline.name, model, version)
        if champion == version:
            return
        _check_waits(pipeline.name, model, challenger)
        metric = declared_model(pipeline, model).promotion.metric
        if champion is not None and champion not in read_evaluations(connection, challenger.refresh_id, metric):
            raise ModelError(
                "TM-ML-NOT-COMPARED-WITH-CHAMPION",
                value=f"version {champion}",
                pipeline=pipeline.name,
                model=model,
                version=version,
            )
        of = (pipeline.name, model)
        _promote(connection, of, version)
        _set_state(connection, of, challenger, "champion", Decision("promoted", challenger.reason or "approved", by))


def reject(connection: Connection[Any], pipeline: Pipeline, model: str, version: int, by: str, reason: str) -> None:
    """Reject a challenger that waits for a person. A repeated rejection changes nothing.

    Raises:
        ModelError: the model has no such version, or it does not wait.
    """
    with transaction(connection):
        lock_model(connection, pipeline.name, model)
        challenger = read_version(connection, pipeline.name, model, version)
        if challenger.state == "rejected":
            return
        _check_waits(pipeline.name, model, challenger)
        _set_state(connection, (pipeline.name, model), challenger, "rejected", Decision("rejected", reason, by))


def _check_waits(pipeline: str, model: str, challenger: ModelVersion) -> None:
    if challenger.state != "waiting":
        raise ModelError(
            "TM-ML-VERSION-NOT-WAITING",
            value=challenger.state,
            pipeline=pipeline,
            model=model,
            version=challenger.version,
        )


def _promote(connection: Connection[Any], of: tuple[str, str], version: int) -> None:
    """Retire the present champion, and let the model point at the new one."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE model_versions SET state = 'retired' WHERE pipeline = %s AND model = %s AND state = 'champion'", of
        )
        cursor.execute("UPDATE models SET champion_version = %s WHERE pipeline = %s AND model = %s", (version, *of))


def _set_state(
    connection: Connection[Any], of: tuple[str, str], version: ModelVersion, state: str, decision: Decision
) -> None:
    """Write a version's new state with its reason, and record the decision behind it."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE model_versions SET state = %s, reason = %s WHERE pipeline = %s AND model = %s AND version = %s",
            (state, decision.reason[:1000], *of, version.version),
        )
    record_decision(connection, of, version.version, decision, version.refresh_id)
