"""The question whether a challenger is promoted, and what waits for the answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tidemill.airflow.approval import ApproveOperator, question
from tidemill.airflow.triggers.approval import ApprovalTrigger
from tidemill.ml.registry.history import MetricValue, ModelHistory, VersionRecord

AT = datetime(2026, 3, 1)
CHALLENGER = VersionRecord(
    version=5,
    state="waiting",
    reason="challenger 0.9100, champion 0.9000: gain +0.0100, more than 0 required",
    trained_at=AT,
    train_from=AT,
    holdout_from=AT,
    holdout_until=datetime(2026, 3, 31),
    train_rows=90_000,
    holdout_rows=9_000,
    measures=[
        MetricValue("areaUnderROC", 0.91, 0.9, 0.92, 0.7, 0.9),
        MetricValue("logLoss", 0.3, None, None, 0.6, None),
    ],
)
HISTORY = ModelHistory("flights", "late", "areaUnderROC", 4, 4, 5, [CHALLENGER], [], [])


def test_every_metric_is_shown_beside_champion_and_baseline() -> None:
    """The metric of the promotion rule first, with its interval; a value that was not measured is a dash."""
    text = question(HISTORY, 5)
    assert "| **areaUnderROC** | 0.91 | 0.9 to 0.92 | 0.9 | 0.7 |" in text
    assert "| logLoss | 0.3 | – | – | 0.6 |" in text


def test_the_question_states_the_reason_the_rows_and_the_champion() -> None:
    """The reason is the promotion rule's."""
    text = question(HISTORY, 5)
    assert text.startswith(f"{CHALLENGER.reason}.")
    assert "Measured on 9,000 rows of 2026-03-01 to 2026-03-31, trained on 90,000 earlier rows." in text
    assert "The champion is version 4." in text
    assert "It would be the first champion." in question(replace(HISTORY, champion_version=None), 5)


def test_the_task_has_no_time_limit_but_its_own() -> None:
    """A time limit on the task would end it while it waits for a person."""
    task = ApproveOperator(task_id="approve", pipeline="flights", model="late")
    assert (task.execution_timeout, task.response_timeout) == (None, None)
    assert task.options == ["Promote", "Reject"]


def test_a_trigger_continues_in_another_triggerer() -> None:
    """With the same version and deadline."""
    trigger = ApprovalTrigger(ti_id="0190", pipeline="flights", model="late", version=5, deadline=1_000.0)
    name, kept = trigger.serialize()
    assert name == "tidemill.airflow.triggers.approval.ApprovalTrigger"
    assert ApprovalTrigger(**kept).serialize() == (name, kept)
