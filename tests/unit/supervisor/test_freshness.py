"""When a stream breaks what its pipeline promises, and what is said about it."""

from dataclasses import replace

import pytest

from support.streams import RUNNING, ago
from tidemill.lifecycle.slo import (
    Change,
    behind_seconds,
    describe_activity,
    format_duration,
    freshness_message,
    incident_change,
)
from tidemill.lifecycle.stream_row import StreamRow

PROMISED = 30.0
LAGGING = replace(RUNNING, lag_records=120_000, lag_seconds=44.0, records_per_second=8_000.0)
"""45 s behind, for the heartbeat is a second old."""


@pytest.mark.parametrize(
    ("row", "seconds"),
    [
        pytest.param(RUNNING, 0.0, id="all is read, and the driver said so lately"),
        pytest.param(LAGGING, 45.0, id="records wait: it grows since the heartbeat"),
        pytest.param(replace(RUNNING, lag_seconds=None), 0.0, id="no record waits, and none ever came"),
        pytest.param(replace(RUNNING, heartbeat_at=ago(100)), 100.0, id="silent: what came since is not read"),
        pytest.param(
            replace(RUNNING, heartbeat_at=ago(100), heartbeat_epoch=6, epoch=7), 100.0, id="a new driver has not spoken"
        ),
        pytest.param(replace(RUNNING, state="failed", heartbeat_at=ago(9)), 9.0, id="broken a moment ago"),
        pytest.param(replace(RUNNING, state="starting", lag_seconds=20.0), 21.0, id="starting: it cannot tell"),
        pytest.param(replace(LAGGING, lag_records=None), 45.0, id="Kafka is away: nobody can tell"),
        pytest.param(replace(RUNNING, desired_state="stopped", heartbeat_at=ago(999)), None, id="not wanted"),
        pytest.param(replace(RUNNING, heartbeat_at=None, lag_seconds=None), None, id="never heard of"),
        pytest.param(replace(LAGGING, lag_seconds=None), None, id="records wait, none was ever committed"),
    ],
)
def test_how_far_the_tables_are_behind(row: StreamRow, seconds: float | None) -> None:
    """Until when the tables held all that Kafka held; unmeasured, it grows."""
    assert behind_seconds(row) == seconds


OPEN = replace(LAGGING, freshness_incident_since=ago(60))


@pytest.mark.parametrize(
    ("row", "change"),
    [
        pytest.param(RUNNING, None, id="met"),
        pytest.param(LAGGING, Change.OPEN, id="broken"),
        pytest.param(replace(LAGGING, lag_seconds=29.0), None, id="just met"),
        pytest.param(replace(LAGGING, requested_at=ago(20)), None, id="wished a moment ago: it may catch up first"),
        pytest.param(replace(RUNNING, heartbeat_at=ago(40)), Change.OPEN, id="no driver for longer than promised"),
        pytest.param(replace(LAGGING, halted_reason="broke"), Change.OPEN, id="halted: the promise is broken too"),
        pytest.param(OPEN, None, id="known"),
        pytest.param(replace(OPEN, lag_seconds=28.0), None, id="met by a hair: stays open"),
        pytest.param(replace(OPEN, lag_seconds=23.0), Change.CLOSE, id="met again"),
        pytest.param(replace(OPEN, lag_seconds=0.0, lag_records=0), Change.CLOSE, id="caught up"),
        pytest.param(replace(OPEN, lag_seconds=None), None, id="nobody knows: stays as it is"),
        pytest.param(replace(OPEN, desired_state="stopped"), Change.CLOSE, id="no longer wanted"),
        pytest.param(replace(LAGGING, desired_state="stopped"), None, id="not wanted, and never late"),
    ],
)
def test_the_incident_opens_and_closes_by_itself(row: StreamRow, change: Change | None) -> None:
    """With a margin, so that it does not come and go at the edge."""
    assert incident_change(row, PROMISED) is change


def test_the_sentence_says_how_far_what_was_promised_and_what_is_done_about_it() -> None:
    """A person who is called needs all three."""
    assert freshness_message(LAGGING, PROMISED) == (
        "the tables of stream flights are 45 s behind Kafka, 30 s are promised;"
        " its driver catches up, with 120,000 records left at 8,000 records/s"
    )


@pytest.mark.parametrize(
    ("row", "clause"),
    [
        (RUNNING, "its driver has read all there is"),
        (replace(RUNNING, lag_records=None), "its driver runs, and has not said yet how much is left to read"),
        (replace(LAGGING, records_per_second=None), "its driver catches up, with 120,000 records left"),
        (
            replace(RUNNING, waiting_for="no broker answers: 127.0.0.1:9092"),
            "its driver waits: no broker answers: 127.0.0.1:9092",
        ),
        (replace(RUNNING, state="starting"), "its driver is starting"),
        (replace(RUNNING, state="stopping"), "its driver is leaving, and another one follows"),
        (replace(RUNNING, state="stopped"), "its driver has left, and another one follows"),
        (
            replace(RUNNING, state="failed", last_error="the disk is full"),
            "its driver broke, and another one follows: the disk is full",
        ),
        (replace(RUNNING, heartbeat_at=ago(99)), "its driver is silent: no heartbeat for 99 s"),
        (replace(RUNNING, epoch=0, acquired_at=None), "no driver was started yet"),
        (replace(RUNNING, halted_reason="6 broke"), "it is halted until somebody starts it: 6 broke"),
        (replace(RUNNING, desired_state="stopped"), "it is not wanted, and its driver is leaving"),
        (replace(RUNNING, desired_state="stopped", state="stopped"), "it is not wanted"),
    ],
)
def test_what_a_stream_is_doing_is_one_clause(row: StreamRow, clause: str) -> None:
    """For the incident, and for the console."""
    assert describe_activity(row) == clause


@pytest.mark.parametrize(
    ("seconds", "said"),
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
def test_spans_are_told_in_two_units(seconds: float, said: str) -> None:
    """Seconds do not matter after days."""
    assert format_duration(seconds) == said
