"""What Prometheus reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.samples import Sample

from support.streams import RUNNING
from tidemill.console.ledgers import Ledger
from tidemill.console.metrics import exposition
from tidemill.console.models import ModelView
from tidemill.console.queries import Incident, Status, stream_status
from tidemill.errors import DatabaseUnavailable
from tidemill.ml.registry.history import FeatureDrift

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEDGER = Ledger(commits=7, records=70_000, written_rows=69_000, quarantined_rows=12, last_committed_at=AT, newest_at=AT)
LAGGING = replace(RUNNING, lag_records=5, behind_seconds=2.0)
STATUS = Status(
    [stream_status(LAGGING, LEDGER, 30.0), stream_status(replace(RUNNING, stream="other"), LEDGER, None)],
    [
        ModelView(
            "flights",
            "late",
            4,
            3,
            AT,
            "areaUnderROC",
            0.9,
            0.7,
            AT,
            waiting_version=5,
            drift=(FeatureDrift("hour", 0.3, 0.25, 900), FeatureDrift("month", 4.0, None, 900)),
        ),
        ModelView("flights", "new", None, None, None, None, None, None, None),
    ],
    [Incident("stream flights", "freshness", "it is late", AT), Incident('a "subject"\n', "test", "x", AT)],
)


def samples(status: Status | Callable[[], Status]) -> dict[str, list[Sample]]:
    """Every sample that a scraper gets, by name."""
    text, _ = exposition(status if callable(status) else lambda: status)
    found: dict[str, list[Sample]] = {}
    for family in parse(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def value(name: str, **labels: str) -> float:
    """The one sample with these labels."""
    [found] = [each for each in samples(STATUS)[name] if labels.items() <= each.labels.items()]
    return found.value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alive", 1),
        ("running", 1),
        ("desired_running", 1),
        ("halted", 0),
        ("lag_records", 5),
        ("behind_seconds", 3),
        ("slo_seconds", 30),
        ("freshness_seconds", 0),
        ("records_per_second", 10),
        ("batch_seconds", 0.05),
        ("batch_limit_records", 100_000),
        ("failures_in_a_row", 0),
        ("heartbeat_age_seconds", 1),
        ("pipeline_version", 2),
        ("starts_total", 7),
        ("records_total", 70_000),
        ("rows_written_total", 69_000),
        ("quarantined_total", 12),
    ],
)
def test_a_stream_is_measured(name: str, expected: float) -> None:
    """In base units: seconds, records."""
    assert value(f"tidemill_stream_{name}", stream="flights") == expected


def test_latency_is_a_summary() -> None:
    """Its quantiles are those that the driver reports, in seconds."""
    assert value("tidemill_stream_latency_seconds", stream="flights", quantile="0.5") == 0.12
    assert value("tidemill_stream_latency_seconds", stream="flights", quantile="0.99") == 0.3


def test_incidents_and_models_are_measured_once_each() -> None:
    """A model without a champion has no metric, and drift one for each feature. Labels may hold anything."""
    assert value("tidemill_incidents_open", subject="stream flights", kind="freshness") == 1
    assert value("tidemill_incidents_open", subject='a "subject"\n') == 1
    assert value("tidemill_model_champion_metric", model="late", metric="areaUnderROC") == 0.9
    assert value("tidemill_model_baseline_metric", model="late", metric="areaUnderROC") == 0.7
    assert value("tidemill_model_published_version", model="late") == 3
    assert value("tidemill_model_champion_version", model="late") == 4
    assert value("tidemill_model_scored_timestamp_seconds", model="late") == AT.timestamp()
    assert [value("tidemill_model_waiting", model=name) for name in ("late", "new")] == [1, 0]
    assert value("tidemill_model_drift_psi", model="late", feature="hour") == 0.3


def test_what_is_not_known_is_absent_and_never_zero() -> None:
    """A promise that is not known is not a promise of 0 s."""
    assert [each.labels["stream"] for each in samples(STATUS)["tidemill_stream_slo_seconds"]] == ["flights"]


def test_an_unavailable_database_is_a_metric_and_no_failed_scrape() -> None:
    """An alert can distinguish it from an unavailable Airflow."""

    def unavailable() -> Status:
        raise DatabaseUnavailable("TM-STORE-UNAVAILABLE")

    found = samples(unavailable)
    assert {name: [each.value for each in them] for name, them in found.items()} == {"tidemill_database_up": [0]}
    assert value("tidemill_database_up") == 1


def test_a_scraper_chooses_the_format() -> None:
    """Prometheus' own text, or OpenMetrics, each under its own type and readable as such."""
    text, content_type = exposition(lambda: STATUS)
    assert content_type.startswith("text/plain; version=")
    plain = {family.name for family in parse(text.decode())}
    text, content_type = exposition(lambda: STATUS, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert {family.name for family in parse_openmetrics(text.decode())} == plain


def lint(text: str) -> list[str]:
    """What ``promtool check metrics`` would find: names, units, suffixes, help."""
    found = []
    for family in parse(text):
        name = family.name
        if not re.fullmatch(r"tidemill_[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
            found.append(f"{name} is no name of ours")
        if not family.documentation.endswith("."):
            found.append(f"{name} has no help")
        if re.search(r"_(ms|millis|milliseconds|minutes|hours|days|kb|mb|percent)(_|$)", name):
            found.append(f"{name} is not in a base unit")
        if re.search(r"_(gauge|counter|summary)(_|$)", name):
            found.append(f"{name} names its type")
        total = [each.name for each in family.samples if each.name.endswith("_total")]
        if (family.type == "counter") != bool(total):
            found.append(f"{name} is a {family.type}, and has {total or 'no _total'}")
        labels = {label for each in family.samples for label in each.labels}
        if labels & {"job", "instance", "le"} or ("quantile" in labels and family.type != "summary"):
            found.append(f"{name} has a label that is Prometheus' own")
    return found


def test_names_are_as_prometheus_wants_them() -> None:
    """Units, suffixes and help; each rule can be broken."""
    assert lint(exposition(lambda: STATUS)[0].decode()) == []
    broken = (
        "# HELP tidemill_batch_ms Too small\n# TYPE tidemill_batch_ms gauge\n"
        'tidemill_batch_ms{instance="x",quantile="0.5"} 1\n'
        "# HELP Gauge A thing.\n# TYPE Gauge gauge\nGauge 1\n"
        "# HELP tidemill_x_gauge A thing.\n# TYPE tidemill_x_gauge gauge\ntidemill_x_gauge 1\n"
        "# HELP tidemill_rows_total A thing.\n# TYPE tidemill_rows_total gauge\ntidemill_rows_total 1\n"
    )
    assert len(lint(broken)) == 6
