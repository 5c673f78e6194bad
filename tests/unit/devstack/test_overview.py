"""What ``status`` says about a stream's driver."""

from dataclasses import replace

from support.streams import RUNNING, ago
from tidemill.devstack.describe import describe_driver
from tidemill.devstack.overview import _driver


def test_a_driver_is_described_by_lag_speed_latency_and_batch() -> None:
    """In one line, with what it waits for below it."""
    row = replace(RUNNING, lag_records=5, lag_seconds=3.2, waiting_for="no broker answers: 127.0.0.1:9092")
    assert describe_driver(_driver(row)) == [
        "driver: 4 s behind Kafka, 10 records/s, latency p50 120 ms, p99 300 ms, "
        "last batch 50 ms of at most 100,000 records",
        "waiting for: no broker answers: 127.0.0.1:9092",
    ]


def test_of_a_driver_that_is_no_more_nothing_is_said_but_how_far_the_tables_are_behind() -> None:
    """Its speed is history."""
    gone = replace(RUNNING, heartbeat_at=ago(60), waiting_for="no broker answers")
    assert describe_driver(_driver(gone)) == ["driver: 60 s behind Kafka"]


def test_of_a_stream_that_is_not_wanted_or_unknown_nothing_is_said() -> None:
    """Nothing is promised then."""
    assert describe_driver(_driver(replace(RUNNING, desired_state="stopped", state="stopped"))) == []
    assert describe_driver(_driver(None)) == []
