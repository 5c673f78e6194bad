"""What a stream is measured by: latencies as histograms, their quantiles, rate and lag."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.stream.metrics import LATENCY_SECONDS, RATE_SECONDS, StreamMetrics, latencies, quantile_ms

NOW_US = 1_800_000_000_000_000
UTC_NOW = datetime.fromtimestamp(NOW_US / 1e6, UTC)


def stamps(*ages_ms: float | None) -> pa.Array:
    """Kafka timestamps of records so old."""
    given = [None if age is None else NOW_US - round(age * 1000) for age in ages_ms]
    return pa.array(given, pa.timestamp("us", "UTC"))


@settings(deadline=None)
@given(st.lists(st.floats(1, 4e9), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_right_within_a_bucket(ages_ms: list[float], part: float) -> None:
    """It is at least the true one, and less than a tenth above it."""
    found = quantile_ms(latencies(stamps(*ages_ms), NOW_US), part)
    true = float(np.quantile(np.round(ages_ms, 3), part, method="inverted_cdf"))
    assert found is not None
    assert true - 1 <= found <= true * 1.1 + 1


def test_a_clock_that_is_fast_makes_no_negative_latency() -> None:
    """A record of the future counts as one that took no time."""
    assert quantile_ms(latencies(stamps(-60_000, -1), NOW_US), 1.0) == 1


def test_records_without_a_timestamp_do_not_count() -> None:
    """Neither NULL nor Kafka's -1 is an age; the others of the batch count."""
    old = pa.array([None, -1000, NOW_US - 8_000], pa.timestamp("us", "UTC"))
    assert sum(latencies(old, NOW_US).values()) == 1
    assert latencies(stamps(None), NOW_US) == {}
    assert quantile_ms({}, 0.5) is None


def test_a_backlog_of_years_fits_the_column() -> None:
    """What is older than the column can hold counts as that old."""
    assert quantile_ms(latencies(stamps(1e12), NOW_US), 0.5) == 2**32 - 1


def test_batches_add_up_and_are_pruned() -> None:
    """Quantiles are those of all commits of the last minute, and then of none; the totals stay."""
    measures = StreamMetrics(began=0)
    measures.note(10, 900, 2.5, [latencies(stamps(*900 * [100]), NOW_US)])
    measures.note(20, 100, 1.5, [latencies(stamps(*50 * [5_000]), NOW_US), latencies(stamps(*50 * [5_000]), NOW_US)])
    facts = measures.facts(30, UTC_NOW)
    assert (facts["batches"], facts["records"], facts["batch_ms"]) == (2, 1000, 1500)
    assert facts["latency_p50_ms"] == pytest.approx(100, rel=0.1)
    assert facts["latency_p99_ms"] == pytest.approx(5_000, rel=0.1)
    late = measures.facts(20 + LATENCY_SECONDS, UTC_NOW)
    assert (late["records"], late["latency_p50_ms"], late["latency_p99_ms"]) == (1000, None, None)


def test_a_backlog_that_was_read_is_forgotten_after_a_minute() -> None:
    """However many its records were: the latency is that of what was committed since."""
    measures = StreamMetrics(began=0)
    measures.note(100, 1_000_000, 9, [latencies(stamps(*10_000 * [110_000]), NOW_US)])
    for second in range(101, 171):
        measures.note(second, 5, 0.3, [latencies(stamps(*5 * [400]), NOW_US)])
    facts = measures.facts(170, UTC_NOW)
    assert facts["latency_p50_ms"] == pytest.approx(400, rel=0.1)
    assert facts["latency_p99_ms"] == pytest.approx(400, rel=0.1)


def test_the_rate_is_that_of_the_last_minute() -> None:
    """Of a stream that is younger it is that of its life; of one that is idle it is 0."""
    measures = StreamMetrics(began=0)
    measures.note(10, 600, 1, [])
    assert measures.facts(20, UTC_NOW)["records_per_second"] == 30
    measures.note(RATE_SECONDS + 40, 1200, 1, [])
    assert measures.facts(RATE_SECONDS + 50, UTC_NOW)["records_per_second"] == 20
    assert measures.facts(10 * RATE_SECONDS, UTC_NOW)["records_per_second"] == 0


def test_lag_in_seconds_is_the_age_of_the_newest_record_of_the_partition_that_is_furthest_behind() -> None:
    """It is 0 where no record waits, unknown while Kafka does not answer, and never negative."""
    measures = StreamMetrics(began=0)
    assert measures.facts(1, UTC_NOW)["behind_seconds"] is None
    measures.note_newest({0: NOW_US - 90_000_000, 1: None, 2: NOW_US - 95_000_000}, NOW_US)
    assert measures.facts(1, UTC_NOW)["behind_seconds"] is None
    measures.note_lag(1, {0: 0, 1: 0, 2: 0})
    assert measures.facts(1, UTC_NOW)["behind_seconds"] == 0
    measures.note_lag(1, {0: 7, 1: 0, 2: 0})
    facts = measures.facts(1, UTC_NOW)
    assert (facts["lag_records"], facts["behind_seconds"]) == (7, 90)
    assert facts["newest_at"] == UTC_NOW.replace(tzinfo=None) - timedelta(seconds=90)
    measures.note_lag(1, {0: 7, 1: 0, 2: 1})
    assert measures.facts(1, UTC_NOW)["behind_seconds"] == 95
    measures.note_newest({0: NOW_US + 5_000_000}, NOW_US + 1_000_000)
    assert measures.facts(1, UTC_NOW)["behind_seconds"] == 95
    measures.note_newest({2: NOW_US + 5_000_000}, NOW_US + 1_000_000)
    assert measures.facts(1, UTC_NOW)["behind_seconds"] == 0
    measures.note_newest({3: -1000, 4: -(2**63)}, NOW_US)
    measures.note_lag(1, {3: 1})
    assert measures.facts(1, UTC_NOW)["behind_seconds"] is None
    measures.note_lag(1, None)
    assert (measures.facts(1, UTC_NOW)["lag_records"], measures.facts(1, UTC_NOW)["behind_seconds"]) == (None, None)


def test_lag_in_seconds_is_not_known_before_each_partition_that_lags_has_committed() -> None:
    """The newest record of the driver before is of some partition; the heartbeat's last measure grows meanwhile."""
    measures = StreamMetrics(began=0)
    measures.resume_from(NOW_US - 3_000_000, NOW_US)
    measures.note_lag(1, {0: 5, 1: 5})
    assert measures.facts(1, UTC_NOW)["newest_at"] == UTC_NOW.replace(tzinfo=None) - timedelta(seconds=3)
    assert measures.facts(1, UTC_NOW)["behind_seconds"] is None
    measures.note_newest({0: NOW_US - 40_000_000}, NOW_US)
    assert measures.facts(1, UTC_NOW)["behind_seconds"] is None
    measures.note_newest({1: NOW_US - 20_000_000}, NOW_US)
    assert measures.facts(1, UTC_NOW)["behind_seconds"] == 40


def test_the_oldest_waiting_record_tells_more_than_an_old_committed_one() -> None:
    """After a silence of the feed the newest committed record is old, and a new driver has committed none."""
    measures = StreamMetrics(began=0)
    lags = {0: 5, 1: 5, 2: 0}
    assert measures.uncertain(lags, UTC_NOW) == [0, 1]
    measures.note_lag(1, lags, {0: NOW_US - 42_000_000})
    assert measures.facts(1, UTC_NOW)["behind_seconds"] is None, "of partition 1 nothing is known"
    measures.note_lag(1, lags, {0: NOW_US - 42_000_000, 1: NOW_US - 7_000_000})
    assert measures.facts(1, UTC_NOW)["behind_seconds"] == 42
    measures.note_newest({0: NOW_US - 1_720_000_000, 1: NOW_US - 2_000_000}, NOW_US)
    assert measures.uncertain(lags, UTC_NOW) == [0]
    assert measures.facts(1, UTC_NOW)["behind_seconds"] == 42
    measures.note_newest({0: NOW_US - 1_000_000}, NOW_US)
    assert measures.facts(1, UTC_NOW)["behind_seconds"] == 2, "what waited at the probe is committed since"


def test_an_old_probe_says_nothing_of_the_present() -> None:
    """A process that was frozen, or waits for a broker, has not measured."""
    measures = StreamMetrics(began=0)
    measures.note_lag(100, {0: 0})
    assert measures.facts(115, UTC_NOW)["behind_seconds"] == 0
    facts = measures.facts(116, UTC_NOW)
    assert (facts["lag_records"], facts["behind_seconds"]) == (None, None)


@pytest.mark.parametrize("far", [365 * 86_400 * 10**6, 2**62 - NOW_US])
def test_a_timestamp_of_the_future_counts_as_of_now(far: int) -> None:
    """A producer may set any timestamp; one in the future does not make the tables look fresh until then."""
    measures = StreamMetrics(began=0)
    measures.note_newest({0: NOW_US + far}, NOW_US)
    measures.note_lag(1, {0: 7})
    later = UTC_NOW + timedelta(seconds=60)
    assert measures.facts(1, UTC_NOW)["newest_at"] == UTC_NOW.replace(tzinfo=None)
    assert measures.facts(1, later)["behind_seconds"] == 60
