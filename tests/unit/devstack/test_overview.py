"""The facts and lines of ``status`` about a stream and its driver."""

from dataclasses import replace

import pytest

from support.streams import RUNNING, ago
from tidemill.devstack.describe import describe_driver, describe_stream
from tidemill.devstack.overview import state_facts
from tidemill.lifecycle.stream_row import StreamRow

LEDGER = {"records_in_kafka": 1200, "lag_records": 5, "commits": 7, "rows": {"flights": 1195}, "quarantined": 0}


def test_a_driver_is_described_by_speed_latency_and_batch() -> None:
    """In one line, with what it waits for below it."""
    row = replace(RUNNING, lag_records=5, behind_seconds=3.2, waiting_for="no broker answers: 127.0.0.1:9092")
    assert describe_driver(state_facts(row)["driver"]) == [
        "driver: 10 records/s, latency p50 120 ms, p99 300 ms, last batch 50 ms of at most 100,000 records",
        "waiting for: no broker answers: 127.0.0.1:9092",
    ]


@pytest.mark.parametrize(
    "row",
    [
        replace(RUNNING, heartbeat_at=ago(60), waiting_for="no broker answers"),
        replace(RUNNING, desired_state="stopped", state="stopped"),
        replace(RUNNING, heartbeat_epoch=6),
        None,
    ],
)
def test_nothing_is_printed_of_a_driver_that_is_silent_or_has_ended(row: StreamRow | None) -> None:
    """What it reported last does not describe the present."""
    assert describe_driver(state_facts(row)["driver"]) == []


def test_behind_and_freshness_are_printed_under_their_own_names() -> None:
    """While the feed is silent the tables are not behind, though their newest record grows old."""
    row = {"stream": "flights", **state_facts(RUNNING), **LEDGER, "freshness_seconds": 3725.0}
    assert describe_stream(row) == (
        "flights: running, 1,200 records in Kafka, lag 5 records, behind 0 s, freshness 1 h 2 min, 7 commits;"
        " rows: flights 1,195; quarantined 0"
    )
    late = row | state_facts(replace(RUNNING, behind_seconds=44.0, lag_records=5))
    assert "behind 45 s, freshness 1 h 2 min," in describe_stream(late)


def test_what_is_not_known_is_printed_as_unknown() -> None:
    """A stream that was never started."""
    row = {"stream": "flights", **state_facts(None), **LEDGER, "freshness_seconds": None}
    assert "flights: never started, 1,200 records in Kafka, lag 5 records, behind unknown, freshness unknown, " in (
        describe_stream(row)
    )
