"""Whether a challenger becomes champion: by measure on the same held-out rows, or after that by a person."""

from __future__ import annotations

import json
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
_NO_SMALL_NUMBER = 100
"""From here on four decimals are too many."""


@dataclass(frozen=True)
class Comparison:
    """What was measured on the same held-out rows; NaN where nothing could be."""

    challenger: float
    champion: float | None
    """None if there is none, or if it cannot read these features."""
    baseline: float
    """What a model without a champion before it must beat."""
    difference: tuple[float, float] | None = None
    """The middle 95 % of the challenger's metric minus its rival's, on the same resamples of the rows."""
    champion_saw: bool = False
    """Whether the champion was trained on some of these rows."""


@dataclass(frozen=True)
class PromotionCriteria:
    """What a challenger must show."""

    margin: float
    """By how much a champion must be beaten, at least."""
    larger_is_better: bool = True
    manual: bool = False
    """Whether a person has the last word."""


@dataclass(frozen=True)
class Verdict:
    """Whether to promote, and why, as a sentence."""

    promote: bool
    reason: str
    waiting: bool = False
    """It would be promoted, and a person is to say so."""


def decide_promotion(measured: Comparison, rule: PromotionCriteria) -> Verdict:
    """Compare a challenger with the champion or, where there is none, with the baseline."""
    against_champion = measured.champion is not None
    rival = measured.baseline if measured.champion is None else measured.champion
    name, least = ("the champion", rule.margin) if against_champion else ("the baseline", 0.0)
    if not math.isfinite(measured.challenger):
        return Verdict(False, "the challenger could not be measured")
    if not math.isfinite(rival):
        return Verdict(False, f"{name} could not be measured")
    gain = (measured.challenger - rival) * (1 if rule.larger_is_better else -1)
    seen = ", which was trained on some of these rows" if against_champion and measured.champion_saw else ""
    said = f"the challenger's {_number(measured.challenger)} against {_number(rival)} of {name}{seen}"
    sure = _interval(measured.difference, rule)
    if gain > 0 and gain >= least - _ROUNDING:
        wanted = f", {least:g} wanted" if least else ""
        return Verdict(not rule.manual, f"{said}: better by {_number(gain)}{sure}{wanted}", rule.manual)
    wanted = f"at least {least:g}" if least else "more than nothing"
    return Verdict(False, f"{said}: a gain of {_number(gain, sign='+')}{sure} where {wanted} is wanted")


def _number(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.{4 if abs(value) < _NO_SMALL_NUMBER else 2}f")


def _interval(difference: tuple[float, float] | None, rule: PromotionCriteria) -> str:
    """Of the gain, which is the difference or, where less is better, its opposite."""
    if difference is None:
        return ""
    low, high = difference if rule.larger_is_better else (-difference[1], -difference[0])
    return f" (95 %: {_number(low, sign='+')} to {_number(high, sign='+')})"


def promote_or_reject(connection: Connection[Any], pipeline: Pipeline, model: str, refresh_id: int) -> Verdict:
    """Judge what a refresh trained, record it and promote, reject or wait for a person, in one transaction.

    Judging again says the same again. A refresh that trained nothing promotes nothing.

    Raises:
        ModelError: a measure is missing, or another version became champion since it was taken.
    """
    declared = declared_model(pipeline, model).promotion
    rule = PromotionCriteria(
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
        measured = _measured(connection, pipeline, model, trained, champion)
        verdict = decide_promotion(measured, rule)
        _conclude(connection, pipeline.name, model, trained, verdict)
    return verdict


def _measured(
    connection: Connection[Any], pipeline: Pipeline, model: str, trained: ModelVersion, champion: int | None
) -> Comparison:
    """Read what the training has measured."""
    metric = declared_model(pipeline, model).promotion.metric
    found = read_evaluations(connection, trained.refresh_id, metric)
    missing = [v for v in (BASELINE, trained.version, champion) if v is not None and v not in found]
    if missing:
        raise ModelError(
            f"refresh {trained.refresh_id} did not measure {metric} of version {missing[0]}",
            remedy="train again: the champion or the metric changed since",
        )
    rival = None if champion is None else found[champion]
    details = json.loads(trained.details or "{}")
    differences = details.get("differences", {}).get(str(BASELINE if rival is None else champion), {})
    low_high = differences.get(metric)
    return Comparison(
        _or_nan(found[trained.version]),
        rival,
        _or_nan(found[BASELINE]),
        (float(low_high[0]), float(low_high[1])) if low_high else None,
        bool(details.get("champion_saw")),
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _conclude(connection: Connection[Any], pipeline: str, model: str, trained: ModelVersion, verdict: Verdict) -> None:
    decided, state = ("promoted", "champion") if verdict.promote else ("rejected", "rejected")
    if verdict.waiting:
        decided = state = "waiting"
    if verdict.promote:
        _promote(connection, pipeline, model, trained.version)
    _set_state(connection, (pipeline, model), trained, state, Decision(decided, verdict.reason, BY_MEASURE))


def approve(connection: Connection[Any], pipeline: Pipeline, model: str, version: int, by: str) -> None:
    """Let a challenger that waits become champion, as a person says. Saying it again changes nothing.

    Args:
        connection: the stream account's.
        pipeline: whose.
        model: which.
        version: the challenger.
        by: who says so.

    Raises:
        ModelError: there is no such version, it does not wait, or it was not measured beside the champion that is.
    """
    with transaction(connection):
        champion, _ = lock_model(connection, pipeline.name, model)
        found = read_version(connection, pipeline.name, model, version)
        if champion == version:
            return
        _check_waits(pipeline.name, model, found)
        metric = declared_model(pipeline, model).promotion.metric
        if champion is not None and champion not in read_evaluations(connection, found.refresh_id, metric):
            raise ModelError(
                f"version {version} of {pipeline.name}.{model} was not measured beside the champion that is",
                value=f"version {champion}",
                remedy="reject it, and train again",
            )
        _promote(connection, pipeline.name, model, version)
        decision = Decision("promoted", found.reason or "approved", by)
        _set_state(connection, (pipeline.name, model), found, "champion", decision)


def reject(connection: Connection[Any], pipeline: Pipeline, model: str, version: int, by: str, reason: str) -> None:
    """Reject a challenger that waits, as a person says. Saying it again changes nothing.

    Raises:
        ModelError: there is no such version, or it does not wait.
    """
    with transaction(connection):
        lock_model(connection, pipeline.name, model)
        found = read_version(connection, pipeline.name, model, version)
        if found.state == "rejected":
            return
        _check_waits(pipeline.name, model, found)
        _set_state(connection, (pipeline.name, model), found, "rejected", Decision("rejected", reason, by))


def _check_waits(pipeline: str, model: str, found: ModelVersion) -> None:
    if found.state != "waiting":
        raise ModelError(
            f"version {found.version} of {pipeline}.{model} does not wait for a person",
            value=found.state,
            remedy="only a challenger that waits can be approved or rejected",
        )


def _promote(connection: Connection[Any], pipeline: str, model: str, version: int) -> None:
    """Retire the champion there is, and point at the new one."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE model_versions SET state = 'retired' WHERE pipeline = %s AND model = %s AND state = 'champion'",
            (pipeline, model),
        )
        cursor.execute(
            "UPDATE models SET champion_version = %s WHERE pipeline = %s AND model = %s", (version, pipeline, model)
        )


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
