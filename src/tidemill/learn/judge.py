"""Whether a challenger becomes champion. By measure on the same held-out rows, and by nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from tidemill.errors import LearnError
from tidemill.learn.versions import BASELINE, lock_model, model_of, read_evaluations, trained_in, transaction
from tidemill.spec.model import Pipeline
from tidemill.store.connect import translated

_ROUNDING = 1e-9
"""Two metrics are differences of doubles: 0.702 - 0.7 is a little more than 0.002, 0.902 - 0.9 a little less."""


@dataclass(frozen=True)
class Verdict:
    """Whether to promote, and why, as a sentence."""

    promote: bool
    reason: str


def judge(challenger: float, champion: float | None, baseline: float, margin: float) -> Verdict:
    """Compare what was measured on the same held-out rows; more is better.

    Args:
        challenger: the new model's metric.
        champion: the champion's; None if there is none, or if it cannot read these features.
        baseline: that of one bare feature, which a model without a champion before it must beat.
        margin: by how much a champion must be beaten, at least.
    """
    rival, name, least = (baseline, "the baseline", 0.0) if champion is None else (champion, "the champion", margin)
    if not math.isfinite(challenger):
        return Verdict(False, "the challenger could not be measured")
    if not math.isfinite(rival):
        return Verdict(False, f"{name} could not be measured")
    gain = challenger - rival
    said = f"the challenger's {challenger:.4f} against {rival:.4f} of {name}"
    if gain > 0 and gain >= least - _ROUNDING:
        return Verdict(True, f"{said}: better by {gain:.4f}" + (f", {least:g} wanted" if least else ""))
    wanted = f"at least {least:g}" if least else "more than nothing"
    return Verdict(False, f"{said}: a gain of {gain:+.4f} where {wanted} is wanted")


def judge_refresh(connection: Connection[Any], pipeline: Pipeline, model: str, refresh_id: int) -> Verdict:
    """Judge what a refresh trained, record it and promote or reject, in one transaction.

    Judging again says the same again. A refresh that trained nothing promotes nothing.

    Raises:
        LearnError: a measure is missing, or another version became champion since it was taken.
    """
    metric, margin = model_of(pipeline, model).judge.metric, model_of(pipeline, model).judge.margin
    with transaction(connection):
        champion, _ = lock_model(connection, pipeline.name, model)
        trained = trained_in(connection, pipeline.name, model, refresh_id)
        if trained is None:
            return Verdict(False, "this refresh trained no challenger")
        if trained.state != "challenger":
            return Verdict(trained.state != "rejected", trained.reason or trained.state)
        measured = read_evaluations(connection, refresh_id, metric)
        missing = [v for v in (BASELINE, trained.version, champion) if v is not None and v not in measured]
        if missing:
            raise LearnError(
                f"refresh {refresh_id} did not measure {metric} of version {missing[0]}",
                remedy="train again: the champion or the metric changed since",
            )
        rival = None if champion is None else measured[champion]
        verdict = judge(_number(measured[trained.version]), rival, _number(measured[BASELINE]), margin)
        _record(connection, pipeline.name, model, trained.version, verdict)
    return verdict


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _record(connection: Connection[Any], pipeline: str, model: str, version: int, verdict: Verdict) -> None:
    this = (pipeline, model)
    with translated(), connection.cursor() as cursor:
        if verdict.promote:
            cursor.execute(
                "UPDATE model_versions SET state = 'retired' WHERE pipeline = %s AND model = %s AND state = 'champion'",
                this,
            )
            cursor.execute(
                "UPDATE models SET champion_version = %s WHERE pipeline = %s AND model = %s", (version, *this)
            )
        cursor.execute(
            "UPDATE model_versions SET state = %s, reason = %s WHERE pipeline = %s AND model = %s AND version = %s",
            ("champion" if verdict.promote else "rejected", verdict.reason[:1000], *this, version),
        )
