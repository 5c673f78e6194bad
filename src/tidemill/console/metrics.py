"""``/tidemill/metrics``: the console's rows as Prometheus reads them.

A scrape reads the database once. While the database is unavailable, a scrape succeeds all the same and returns
``tidemill_database_up 0``, so that an alert can distinguish an unavailable database from an unavailable Airflow.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from tidemill.console.models import ModelView
from tidemill.console.queries import Incident, Status, StreamStatus
from tidemill.errors import TidemillError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _StreamFamily:
    """One metric family with the label ``stream``."""

    name: str
    help: str
    field: str = ""
    """Of :class:`StreamStatus`; the family's name if empty."""

    def value(self, stream: StreamStatus) -> float | None:
        """The sample's value, None where it is not known."""
        value = getattr(stream, self.field or self.name)
        return None if value is None else float(value)


_GAUGES = (
    _StreamFamily("alive", "1 while the newest driver is starting, running, stopping, or silent and not lost."),
    _StreamFamily("running", "1 while the newest driver reads records."),
    _StreamFamily("desired_running", "1 while the desired state of the stream is running.", "is_to_run"),
    _StreamFamily("halted", "1 while the circuit is open and the stream waits for a person."),
    _StreamFamily("lag_records", "Records in Kafka that are not committed yet."),
    _StreamFamily("behind_seconds", "For how long at most the tables have not held everything that Kafka held."),
    _StreamFamily("slo_seconds", "How far behind the tables may be, by the pipeline's promise."),
    _StreamFamily("freshness_seconds", "Age of the newest committed record."),
    _StreamFamily("records_per_second", "Records committed per second, over the last minute."),
    _StreamFamily("batch_seconds", "Duration of the last batch."),
    _StreamFamily("batch_limit_records", "Records that one batch may take now."),
    _StreamFamily("failures_in_a_row", "Drivers that failed since the last commit."),
    _StreamFamily("heartbeat_age_seconds", "Time since the last heartbeat of a driver."),
    _StreamFamily("pipeline_version", "Pipeline version of the newest driver."),
)
_COUNTERS = (
    _StreamFamily("starts", "Drivers that were ever started.", "epoch"),
    _StreamFamily("records", "Records read and accounted for in the ledger."),
    _StreamFamily("rows_written", "Rows written to the tables.", "written_rows"),
    _StreamFamily("quarantined", "Quarantined records.", "quarantined_rows"),
)


class StatusCollector(Collector):
    """Collects from what ``read`` returns, at each scrape."""

    def __init__(self, read: Callable[[], Status]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Every family; if the database cannot be read, only the one that reports this."""
        try:
            status = self._read()
        except TidemillError as error:
            log.warning("only tidemill_database_up is exposed: %s", error)
            yield GaugeMetricFamily(*_DATABASE_UP, value=0)
            return
        yield GaugeMetricFamily(*_DATABASE_UP, value=1)
        yield from _streams(status.streams)
        yield _incidents(status.incidents)
        yield from _models(status.models)


_DATABASE_UP = ("tidemill_database_up", "1 if the control plane could be read for this scrape.")


def exposition(read: Callable[[], Status], accept: str = "") -> tuple[bytes, str]:
    """The metrics as text, and its content type.

    Args:
        read: returns the rows.
        accept: the scraper's ``Accept`` header, which chooses between Prometheus' text format and OpenMetrics.
    """
    registry = CollectorRegistry()
    registry.register(StatusCollector(read))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _streams(streams: list[StreamStatus]) -> Iterator[Metric]:
    for family_type, families in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
        for each in families:
            family = family_type(f"tidemill_stream_{each.name}", each.help, labels=["stream"])
            for stream in streams:
                if (value := each.value(stream)) is not None:
                    family.add_metric([stream.stream], value)
            yield family
    latency = SummaryMetricFamily(
        "tidemill_stream_latency_seconds", "From Kafka's timestamp of a record to its COMMIT, over the last minute."
    )
    for stream in streams:
        for quantile, value in (("0.5", stream.latency_p50_seconds), ("0.99", stream.latency_p99_seconds)):
            if value is not None:
                latency.add_sample(latency.name, {"stream": stream.stream, "quantile": quantile}, value)
    yield latency


def _incidents(incidents: list[Incident]) -> Metric:
    family = GaugeMetricFamily(
        "tidemill_incidents_open", "Open incidents of a subject, by kind.", labels=["subject", "kind"]
    )
    for (subject, kind), count in Counter((each.subject, each.kind) for each in incidents).items():
        family.add_metric([subject, kind], count)
    return family


def _models(models: list[ModelView]) -> Iterator[Metric]:
    of_metric = ("pipeline", "model", "metric")
    families = (
        _model("champion_metric", "The champion on the held-out rows.", models, of_metric, lambda m: m.champion_value),
        _model("baseline_metric", "The baseline on the same rows.", models, of_metric, lambda m: m.baseline_value),
        _model("champion_version", "Version of the champion.", models, of_metric[:2], lambda m: m.champion_version),
        _model("published_version", "Version readers see.", models, of_metric[:2], lambda m: m.published_version),
        _model(
            "waiting",
            "1 while a version waits for a person.",
            models,
            of_metric[:2],
            lambda m: m.waiting_version is not None,
        ),
        _model(
            "scored_timestamp_seconds",
            "When scores were last made visible.",
            models,
            of_metric[:2],
            lambda m: _unix_time(m.published_at),
        ),
    )
    yield from families
    drift = GaugeMetricFamily(
        "tidemill_model_drift_psi",
        "Population stability index of a feature, as it was last measured.",
        labels=["pipeline", "model", "feature"],
    )
    for model in models:
        for each in model.drift:
            drift.add_metric([model.pipeline, model.model, each.feature], each.psi)
    yield drift


def _model(
    name: str,
    help_: str,
    models: list[ModelView],
    labels: tuple[str, ...],
    value: Callable[[ModelView], float | None],
) -> Metric:
    family = GaugeMetricFamily(f"tidemill_model_{name}", help_, labels=labels)
    for model in models:
        if (measured := value(model)) is not None:
            family.add_metric([getattr(model, label) or "" for label in labels], float(measured))
    return family


def _unix_time(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
