"""What a refresh decides to do."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tidemill.errors import ModelError
from tidemill.ml.refresh import Action, RefreshInputs, decide_refresh

NOW = datetime(2026, 3, 10, 12, 0)
SETTLED = RefreshInputs(
    now=NOW,
    last_commit=100,
    is_to_run=True,
    behind_seconds=0.0,
    behind_allowed_seconds=30.0,
    published_commit=100,
    champion_version=2,
    published_version=2,
    pipeline_version=1,
    trained_at=NOW - timedelta(hours=3),
    trained_commit=90,
    trained_pipeline_version=1,
    train_schedule="@daily",
)
"""Everything is scored and published, and the schedule has not ticked since the last training."""


@pytest.mark.parametrize(
    ("change", "action"),
    [
        pytest.param({}, Action.SKIP, id="nothing-new"),
        pytest.param({"last_commit": 0, "force": True}, Action.SKIP, id="nothing-ever"),
        pytest.param({"last_commit": 101}, Action.SCORE, id="new-commit"),
        pytest.param({"published_version": 1}, Action.SCORE, id="champion-not-published"),
        pytest.param({"last_commit": 101, "trained_at": NOW - timedelta(hours=13)}, Action.TRAIN, id="ticked"),
        pytest.param({"trained_at": NOW - timedelta(days=9)}, Action.SKIP, id="ticked-but-nothing-new"),
        pytest.param({"last_commit": 101, "pipeline_version": 2}, Action.TRAIN, id="pipeline-changed"),
        pytest.param({"force": True}, Action.TRAIN, id="asked-for"),
        pytest.param({"behind_seconds": 30.0, "last_commit": 101}, Action.SCORE, id="just-fresh-enough"),
        pytest.param({"behind_seconds": 31.0, "last_commit": 101}, Action.WAIT, id="behind"),
        pytest.param({"behind_seconds": 31.0, "force": True}, Action.WAIT, id="behind-even-if-asked-for"),
        pytest.param({"behind_seconds": None, "last_commit": 101}, Action.WAIT, id="not-measured-yet"),
        pytest.param(
            {"behind_seconds": None, "last_commit": 101, "is_to_run": False}, Action.SCORE, id="the-stream-is-stopped"
        ),
        pytest.param({"champion_version": None, "published_version": None}, Action.TRAIN, id="no-champion"),
        pytest.param(
            {"champion_version": None, "published_version": None, "trained_at": None, "published_commit": 0},
            Action.TRAIN,
            id="the-first-time",
        ),
        pytest.param(
            {"champion_version": None, "published_version": None, "trained_commit": 100},
            Action.SKIP,
            id="rejected-on-the-same-rows",
        ),
        pytest.param(
            {
                "champion_version": None,
                "published_version": None,
                "trained_commit": 100,
                "pipeline_version": 2,
            },
            Action.TRAIN,
            id="rejected-but-pipeline-changed",
        ),
    ],
)
def test_decides_by_what_is_new(change: dict[str, object], action: Action) -> None:
    """Fresh first; then train, score what changed, or leave it."""
    assert decide_refresh(replace(SETTLED, **change)).action is action


def test_every_decision_has_a_sentence() -> None:
    """The reason names the numbers it rests on."""
    assert decide_refresh(SETTLED).reason == "nothing was committed since commit 100"
    late = replace(SETTLED, behind_seconds=45.4)
    assert decide_refresh(late).reason == "the tables are 45 s behind, 30 s are allowed"
    due = replace(SETTLED, last_commit=101, trained_at=NOW - timedelta(hours=13))
    assert decide_refresh(due).reason == "the schedule @daily was due at 2026-03-10 00:00:00 UTC"


def test_a_schedule_that_is_none_is_a_sentence() -> None:
    """A version that was applied before the checks knew the rule names what is wrong."""
    with pytest.raises(ModelError) as raised:
        decide_refresh(replace(SETTLED, last_commit=101, train_schedule="every night"))
    assert (raised.value.code, raised.value.value) == ("TM-ML-SCHEDULE-NOT-CRON", "every night")
