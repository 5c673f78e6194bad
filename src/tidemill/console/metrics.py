"""``/tidemill/metrics``: the console's rows as Prometheus reads them.

A scrape reads the database once. With the database away it succeeds all the same and says ``tidemill_database_up 0``,
so that an alert can tell a database that is away from an Airflow that is.
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
Value = Callable[[StreamStatus], float | None]


@dataclass(frozen=True)
class _Of:
    """One family with the label ``stream``."""

    name: str
    help: str
    value: Value


_GAUGES = (
    _Of("up", "1 while a driver of the stream reads.", lambda s: s.up),
    _Of(
        "desired_running", "1 while the desired state of the stream is running.", lambda s: s.desired_state == "running"
    ),
    _Of("halted", "1 while the circuit is open and the stream waits for a person.", lambda s: s.halted),
    _Of("lag_records", "Records in Kafka that are not committed yet.", lambda s: s.lag_records),
    _Of("lag_seconds", "Lag in time, as the driver measured it last.", lambda s: s.lag_seconds),
    _Of("behind_seconds", "How far the tables of a wanted stream are behind Kafka.", lambda s: s.behind_seconds),
    _Of("slo_seconds", "How far behind they may be, as the pipeline promises.", lambda s: s.slo_seconds),
    _Of("freshness_seconds", "Age of the newest committed record.", lambda s: s.freshness_seconds),
    _Of("records_per_second", "Committed over the last minute, by the driver.", lambda s: s.records_per_second),
    _Of("batch_seconds", "Duration of the last batch.", lambda s: s.batch_seconds),
    _Of("batch_limit_records", "Records that one batch may take now.", lambda s: s.batch_limit_records),
    _Of("failures_in_a_row", "Drivers that failed since the last commit.", lambda s: s.failures_in_a_row),
    _Of("heartbeat_age_seconds", "Time since a driver last spoke.", lambda s: s.heartbeat_age_seconds),
    _Of("pipeline_version", "Pipeline version of the newest driver.", lambda s: s.pipeline_version),
)
_COUNTERS = (
    _Of("starts", "Drivers started, ever.", lambda s: s.epoch),
    _Of("records", "Records read and accounted for in the ledger.", lambda s: s.records),
    _Of("rows_written", "Rows written to the tables.", lambda s: s.written_rows),
    _Of("quarantined", "Records set aside.", lambda s: s.quarantined_rows),
)


class StatusCollector(Collector):
    """Collects from what ``read`` gives, anew for each scrape."""

    def __init__(self, read: Callable[[], Status]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Every family; of a database that cannot be read, only that."""
        try:
            status = self._read()
        except TidemillError as error:
            log.warning("no metrics but one: %s", error)
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
        read: gives the rows.
        accept: the scraper's ``Accept`` header, which chooses between Prometheus' text format and OpenMetrics.
    """
    registry = CollectorRegistry()
    registry.register(StatusCollector(read))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _streams(streams: list[StreamStatus]) -> Iterator[Metric]:
    for kind, families in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
        for each in families:
            family = kind(f"tidemill_stream_{each.name}", each.help, labels=["stream"])
            for stream in streams:
                if (value := each.value(stream)) is not None:
                    family.add_metric([stream.stream], float(value))
            yield family
    latency = SummaryMetricFamily(
        "tidemill_stream_latency_seconds", "From Kafka's timestamp of a record to its COMMIT, over the last minutes."
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
            lambda m: _epoch(m.published_at),
        ),
    )
    yield from families
    drift = GaugeMetricFamily(
        "tidemill_model_drift_psi",
        "Population stability index of a feature, as measured last.",
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
        if (found := value(model)) is not None:
            family.add_metric([getattr(model, label) or "" for label in labels], float(found))
    return family


def _epoch(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
