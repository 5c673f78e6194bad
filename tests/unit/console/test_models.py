"""The rows of models: which of a champion's metrics is shown, and what belongs to which model."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tidemill.console.models import by_promotion_metric, models_of

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(metric: str | None, model: str = "late") -> dict[str, Any]:
    """One of the query's rows."""
    names = ("champion_version", "published_version", "published_at", "champion_value", "low", "high")
    others = dict.fromkeys((*names, "baseline_value", "trained_at", "waiting_version"))
    return {"pipeline": "flights", "model": model, "metric": metric, **others}


def test_a_model_is_one_row_whatever_it_was_measured_by() -> None:
    """By the metric that its judge goes by, and not by the first of the alphabet."""
    rows = [row("areaUnderPR"), row("areaUnderROC"), row("logLoss"), row(None, "new")]
    found = by_promotion_metric(rows, lambda pipeline, model: "areaUnderROC")
    assert [(each["model"], each["metric"]) for each in found] == [("late", "areaUnderROC"), ("new", None)]


def test_a_judge_whose_metric_is_not_known_leaves_the_first() -> None:
    """The pipeline's folder is gone, or the metric changed since the champion was measured."""
    assert [
        each["metric"] for each in by_promotion_metric([row("mae"), row("rmse")], lambda pipeline, model: None)
    ] == ["mae"]


def test_what_is_known_beside_goes_to_its_model() -> None:
    """Calibration from the details, drift in its order, the newest decision."""
    of = {"pipeline": "flights", "model": "late"}
    drift = {"feature": "hour", "psi": 0.3, "allowed": 0.25, "drift_rows": 900}
    decision = {"version": 4, "verdict": "promoted", "reason": "better", "decided_by": "measure", "decided_at": AT}
    answers: dict[str, list[dict[str, Any]]] = {
        "list_models": [row("areaUnderROC"), row(None, "new")],
        "list_details": [{**of, "details": '{"calibration": [{"predicted": 0.1, "observed": 0.2, "rows": 9}]}'}],
        "list_drift": [{**of, **drift}],
        "list_decisions": [{**of, **decision}],
    }
    late, new = models_of(answers.__getitem__, lambda pipeline, model: "areaUnderROC")
    assert late.calibration == ({"predicted": 0.1, "observed": 0.2, "rows": 9},)
    assert [(each.feature, each.is_beyond) for each in late.drift] == [("hour", True)]
    assert late.decision is not None
    assert late.decision.verdict == "promoted"
    assert (new.calibration, new.drift, new.decision) == ((), (), None)
