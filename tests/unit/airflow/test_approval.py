"""What a person is shown who is to promote a challenger."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tidemill.airflow.approval import ApprovalTrigger, ApproveOperator, question
from tidemill.ml.registry.history import MetricValue, ModelHistory, VersionRecord

AT = datetime(2026, 3, 1)
CHALLENGER = VersionRecord(
    version=5,
    state="waiting",
    reason="the challenger's 0.9100 against 0.9000 of the champion: better by 0.0100",
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


def test_every_measure_stands_beside_its_rivals() -> None:
    """The judge's first, and with its interval; what could not be measured is a dash."""
    text = question(HISTORY, 5)
    assert "| **areaUnderROC** | 0.91 | 0.9 to 0.92 | 0.9 | 0.7 |" in text
    assert "| logLoss | 0.3 | – | – | 0.6 |" in text


def test_it_says_why_on_which_rows_and_against_whom() -> None:
    """In the judge's own words."""
    text = question(HISTORY, 5)
    assert text.startswith(f"{CHALLENGER.reason}.")
    assert "Measured on 9,000 rows of 2026-03-01 to 2026-03-31, trained on 90,000 before." in text
    assert "The champion is version 4." in text
    assert "It would be the first champion." in question(replace(HISTORY, champion_version=None), 5)


def test_the_task_has_no_time_limit_but_its_own() -> None:
    """A limit on running tasks would end one that waits for a person."""
    task = ApproveOperator(task_id="approve", pipeline="flights", model="late")
    assert (task.execution_timeout, task.response_timeout) == (None, None)
    assert task.options == ["Promote", "Reject"]


def test_a_trigger_goes_on_in_another_triggerer() -> None:
    """With the same question and the same end."""
    trigger = ApprovalTrigger("0190", "flights", "late", 5, 1_000.0)
    name, kept = trigger.serialize()
    assert name == "tidemill.airflow.approval.ApprovalTrigger"
    assert ApprovalTrigger(**kept).serialize() == (name, kept)
