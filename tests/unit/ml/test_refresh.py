"""What a refresh decides to do."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from support.streams import RUNNING
from tidemill.errors import ModelError
from tidemill.ml.refresh import Action, RefreshInputs, behind, decide_refresh, next_tick

NOW = datetime(2026, 3, 10, 12, 0)
SETTLED = RefreshInputs(
    now=NOW,
    last_commit=100,
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
        pytest.param({"behind_seconds": None, "last_commit": 101}, Action.WAIT, id="nobody-knows"),
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
    assert decide_refresh(due).reason == "the schedule @daily ticked at 2026-03-10 00:00:00 UTC"


def test_a_schedule_is_cron_in_utc() -> None:
    """Presets and expressions are read; anything else is a sentence."""
    assert next_tick("@daily", NOW) == datetime(2026, 3, 11)
    assert next_tick("30 12 * * *", NOW) == datetime(2026, 3, 10, 12, 30)
    with pytest.raises(ModelError, match=r"not a cron expression: every night; write"):
        next_tick("every night", NOW)


STREAM = replace(RUNNING, heartbeat_at=NOW, now=NOW)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        pytest.param({}, 0.0, id="caught-up"),
        pytest.param({"lag_records": 5, "lag_seconds": 20.0}, 20.0, id="behind-by-the-newest-record"),
        pytest.param({"lag_records": None}, None, id="lag-not-said"),
        pytest.param({"state": "starting"}, None, id="starting"),
        pytest.param({"heartbeat_epoch": 2}, None, id="heartbeat-of-an-older-driver"),
        pytest.param({"heartbeat_at": NOW - timedelta(minutes=2)}, None, id="silent"),
        pytest.param({"heartbeat_at": None}, None, id="never-heard-of"),
        pytest.param({"desired_state": "stopped", "heartbeat_at": NOW - timedelta(days=2)}, 0.0, id="stopped-by-wish"),
    ],
)
def test_how_far_behind_the_tables_are(change: dict[str, object], seconds: float | None) -> None:
    """A driver that is alive says it; a stream that is not wanted has nothing more to write."""
    assert behind(replace(STREAM, **change)) == seconds


def test_nothing_committed_yet_is_not_fresh() -> None:
    """With records waiting and none committed, nobody knows how far behind the tables are."""
    assert behind(replace(STREAM, lag_records=5, lag_seconds=None)) is None
