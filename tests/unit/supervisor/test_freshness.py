"""When the tables of a stream are further behind than its pipeline promises, and the sentence on it."""

from dataclasses import replace

import pytest

from support.streams import NOW, RUNNING, ago
from tidemill.lifecycle.behind import behind_seconds, freshness_seconds
from tidemill.lifecycle.describe import describe_activity, format_duration, stream_state
from tidemill.lifecycle.slo import Change, freshness_message, incident_change
from tidemill.lifecycle.stream_row import StreamRow

PROMISED = 30.0
LAGGING = replace(RUNNING, lag_records=120_000, behind_seconds=44.0, records_per_second=8_000.0)
"""45 s behind, for the heartbeat is a second old."""


@pytest.mark.parametrize(
    ("row", "seconds"),
    [
        pytest.param(RUNNING, 0.0, id="all is read, by a recent heartbeat"),
        pytest.param(LAGGING, 45.0, id="records wait: it grows since the heartbeat"),
        pytest.param(replace(RUNNING, behind_seconds=None), 0.0, id="no record waits, and none ever came"),
        pytest.param(replace(RUNNING, heartbeat_at=ago(7.5)), 0.0, id="the heartbeat is just recent enough"),
        pytest.param(replace(RUNNING, heartbeat_at=ago(7.6)), None, id="silent: what came since is not known"),
        pytest.param(replace(LAGGING, heartbeat_at=ago(99)), 143.0, id="silent: what waited still waits"),
        pytest.param(
            replace(RUNNING, heartbeat_at=ago(100), heartbeat_epoch=6, epoch=7),
            None,
            id="a new driver has sent no heartbeat",
        ),
        pytest.param(replace(RUNNING, state="failed", heartbeat_at=ago(9)), None, id="failed a moment ago"),
        pytest.param(replace(LAGGING, state="failed", heartbeat_at=ago(9)), 53.0, id="failed with a backlog"),
        pytest.param(
            replace(RUNNING, lag_records=50, behind_seconds=0.3, state="stopped", heartbeat_at=ago(40)),
            None,
            id="rolled: what was about to be committed is no backlog",
        ),
        pytest.param(
            replace(RUNNING, state="starting", lag_records=None, behind_seconds=20.0), None, id="starting: not measured"
        ),
        pytest.param(replace(LAGGING, lag_records=None), None, id="Kafka is unavailable: it is not measured"),
        pytest.param(
            replace(RUNNING, lag_records=None, behind_seconds=240.0),
            241.0,
            id="not measured for longer than starts take",
        ),
        pytest.param(
            replace(RUNNING, lag_records=None, behind_seconds=3600.0, requested_at=ago(20)), None, id="just started"
        ),
        pytest.param(
            replace(RUNNING, lag_records=None, behind_seconds=300.0, submission_id="driver-1"),
            None,
            id="not measured, on a cluster whose drivers may take longer to start",
        ),
        pytest.param(replace(RUNNING, desired_state="stopped", heartbeat_at=ago(999)), None, id="stopped"),
        pytest.param(replace(RUNNING, heartbeat_at=None, behind_seconds=None), None, id="no driver was ever started"),
        pytest.param(replace(LAGGING, behind_seconds=None), None, id="records wait, none was ever committed"),
    ],
)
def test_behind_is_the_time_since_the_tables_held_everything(row: StreamRow, seconds: float | None) -> None:
    """At most that long; while it is not measured, it grows."""
    assert behind_seconds(row) == seconds


def test_freshness_is_the_age_of_the_newest_committed_record() -> None:
    """Another measure: it grows while the feed is silent. A clock ahead of the database's makes no record younger."""
    assert freshness_seconds(ago(90), NOW) == 90
    assert freshness_seconds(ago(-5), NOW) == 0
    assert freshness_seconds(None, NOW) is None


OPEN = replace(LAGGING, freshness_incident_since=ago(60))


@pytest.mark.parametrize(
    ("row", "change"),
    [
        pytest.param(RUNNING, None, id="met"),
        pytest.param(LAGGING, Change.OPEN, id="exceeded"),
        pytest.param(replace(LAGGING, behind_seconds=29.0), None, id="just met"),
        pytest.param(replace(LAGGING, requested_at=ago(20)), None, id="started a moment ago: it may catch up first"),
        pytest.param(replace(RUNNING, heartbeat_at=ago(40)), None, id="no driver for a moment"),
        pytest.param(replace(RUNNING, heartbeat_at=ago(300)), Change.OPEN, id="no driver for longer than starts take"),
        pytest.param(replace(LAGGING, heartbeat_at=ago(9)), Change.OPEN, id="no driver, and a backlog"),
        pytest.param(replace(LAGGING, halted_reason="broke"), Change.OPEN, id="halted: the promise holds all the same"),
        pytest.param(OPEN, None, id="known"),
        pytest.param(replace(OPEN, behind_seconds=28.0), None, id="met by a hair: stays open"),
        pytest.param(replace(OPEN, behind_seconds=23.0), Change.CLOSE, id="met again"),
        pytest.param(replace(OPEN, behind_seconds=0.0, lag_records=0), Change.CLOSE, id="caught up"),
        pytest.param(replace(OPEN, behind_seconds=None), None, id="not known: stays as it is"),
        pytest.param(replace(OPEN, desired_state="stopped"), Change.CLOSE, id="stopped meanwhile"),
        pytest.param(replace(LAGGING, desired_state="stopped"), None, id="stopped, and never late"),
    ],
)
def test_the_incident_opens_and_closes_by_itself(row: StreamRow, change: Change | None) -> None:
    """With a margin, so that it does not come and go at the edge."""
    assert incident_change(row, PROMISED) is change


def test_the_sentence_holds_how_far_what_is_promised_and_what_the_driver_does() -> None:
    """A person who is called needs all three."""
    assert freshness_message(LAGGING, PROMISED) == (
        "the tables of stream flights are 45 s behind Kafka, 30 s are promised;"
        " its driver catches up, with 120,000 records left at 8,000 records/s"
    )
    assert freshness_message(replace(RUNNING, heartbeat_at=ago(300)), PROMISED) == (
        "no driver of stream flights has measured for 5 min whether the tables hold what Kafka holds, 30 s are"
        " promised; its driver is silent: no heartbeat for 300 s"
    )


@pytest.mark.parametrize(
    ("row", "clause"),
    [
        (RUNNING, "its driver has read all records"),
        (replace(RUNNING, lag_records=None), "its driver is running, and has not measured the lag yet"),
        (replace(LAGGING, records_per_second=None), "its driver catches up, with 120,000 records left"),
        (
            replace(RUNNING, waiting_for="no broker answers: 127.0.0.1:9092"),
            "its driver waits: no broker answers: 127.0.0.1:9092",
        ),
        (replace(RUNNING, state="starting"), "its driver is starting"),
        (replace(RUNNING, state="stopping"), "its driver is stopping, and the next one follows"),
        (replace(RUNNING, state="stopped"), "its driver has stopped, and the next one follows"),
        (
            replace(RUNNING, state="failed", last_error="the disk is full"),
            "its driver failed, and the next one follows: the disk is full",
        ),
        (replace(RUNNING, heartbeat_at=ago(99)), "its driver is silent: no heartbeat for 99 s"),
        (replace(RUNNING, epoch=0, acquired_at=None), "no driver was started yet"),
        (replace(RUNNING, halted_reason="6 failed"), "it is halted until a person starts it: 6 failed"),
        (replace(RUNNING, desired_state="stopped"), "its desired state is stopped, and its driver is leaving"),
        (replace(RUNNING, desired_state="stopped", state="stopped"), "its desired state is stopped"),
    ],
)
def test_what_a_stream_does_is_one_clause(row: StreamRow, clause: str) -> None:
    """For the incident, and for the console."""
    assert describe_activity(row) == clause


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (None, "none"),
        (RUNNING, "running"),
        (replace(RUNNING, heartbeat_at=ago(8)), "silent"),
        (replace(RUNNING, heartbeat_epoch=6, acquired_at=ago(5)), "starting"),
        (replace(RUNNING, state="stopped", halted_reason="6 failed"), "halted"),
    ],
)
def test_the_state_of_a_stream_is_one_word(row: StreamRow | None, state: str) -> None:
    """``status`` and console show the same."""
    assert stream_state(row) == state


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.4, "0.4 s"),
        (45, "45 s"),
        (200, "3 min 20 s"),
        (7_500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
        (7_205, "2 h"),
    ],
)
def test_spans_have_two_units_at_most(seconds: float, text: str) -> None:
    """Seconds do not matter after days."""
    assert format_duration(seconds) == text
