"""What the console and ``/metrics`` show, read in ten queries by the account that may only read."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.config import Account, Settings
from tidemill.console.ledgers import Ledger, read_ledgers
from tidemill.console.models import ModelView, models_of
from tidemill.deploy.snapshots import AppliedVersion, applied_versions, load_applied
from tidemill.errors import SpecError, StreamError
from tidemill.lifecycle.behind import behind_seconds, freshness_seconds
from tidemill.lifecycle.describe import describe_activity, stream_state
from tidemill.lifecycle.driver_state import observe
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.resources import resource_folder
from tidemill.spec import Pipeline
from tidemill.store.connection import session, translated
from tidemill.store.control.streams import read_streams
from tidemill.store.maintenance.rollup_backfill import building_rollups, describe_building

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamStatus:
    """One stream. Times are UTC, spans are seconds; None means not known."""

    stream: str
    desired_state: str
    requested_by: str
    requested_at: datetime
    state: str
    """The state of its newest driver, or ``halted``."""
    sentence: str
    """What the stream does, as a clause for a person."""
    last_error: str
    """The last error that the driver reported. Empty if it reported none, or if the sentence holds it."""
    halted: bool
    alive: bool
    """Whether the newest driver is starting, running, stopping, or silent and not known to be lost."""
    running: bool
    """Whether the newest driver reads records."""
    epoch: int
    """How many drivers were ever started."""
    pipeline_version: int | None
    newest_version: int
    failures_in_a_row: int
    heartbeat_age_seconds: float | None
    lag_records: int | None
    """Records in Kafka that are not committed yet."""
    behind_seconds: float | None
    """For how long at most the tables have not held everything that Kafka held; None while the stream is stopped."""
    freshness_seconds: float | None
    """Age of the newest committed record."""
    slo_seconds: float | None
    """What the pipeline promises for ``behind_seconds``."""
    records_per_second: float | None
    batch_seconds: float | None
    batch_limit_records: int | None
    latency_p50_seconds: float | None
    latency_p99_seconds: float | None
    commits: int
    records: int
    written_rows: int
    quarantined_rows: int
    last_committed_at: datetime | None

    @property
    def is_to_run(self) -> bool:
        """Whether the desired state is running."""
        return self.desired_state == "running"

    @property
    def keeps_promise(self) -> bool | None:
        """Whether the tables are no further behind than the pipeline promises; None if that is not known."""
        if self.behind_seconds is None or self.slo_seconds is None:
            return None
        return self.behind_seconds <= self.slo_seconds


@dataclass(frozen=True)
class Incident:
    """An open incident, which a person should look at."""

    subject: str
    kind: str
    message: str
    opened_at: datetime


@dataclass(frozen=True)
class Status:
    """Everything on the page."""

    streams: list[StreamStatus]
    models: list[ModelView]
    incidents: list[Incident]


def read_status(settings: Settings) -> Status:
    """Read the page's content.

    Raises:
        DatabaseUnavailable: the database cannot be reached.
        ConfigError: there is no password for the reading account.
    """
    with session(settings, Account.READ) as connection:
        ledgers = read_ledgers(connection)
        applied, building = Applied(settings, applied_versions(connection)), building_rollups(connection)
        return Status(
            streams=[
                stream_status(
                    row,
                    ledgers.get(row.stream, Ledger()),
                    applied.promised_seconds(row.stream),
                    building.get(row.stream, ()),
                )
                for row in read_streams(connection)
            ],
            models=models_of(
                lambda name: _query(connection, settings, name),
                applied.metric_of,
            ),
            incidents=[Incident(**row) for row in _query(connection, settings, "list_incidents")],
        )


def stream_status(
    row: StreamRow, ledger: Ledger, slo_seconds: float | None, building: Iterable[str] = ()
) -> StreamStatus:
    """One stream's status, from its row, its ledger, its promise and the rollups that are being built."""
    observed = observe(row)
    # What a driver reported that has ended or is silent is not how things are.
    is_current = observed.is_current
    sentence = "; ".join([describe_activity(row), *describe_building(building)])
    return StreamStatus(
        stream=row.stream,
        desired_state=row.desired_state,
        requested_by=row.requested_by,
        requested_at=row.requested_at.replace(tzinfo=UTC),
        state=stream_state(row),
        sentence=sentence,
        last_error="" if row.last_error is None or row.last_error in sentence else row.last_error,
        halted=row.halted_reason is not None,
        alive=observed.is_alive,
        running=observed.is_running,
        epoch=row.epoch,
        pipeline_version=row.pipeline_version,
        newest_version=row.newest_version,
        failures_in_a_row=row.failures_in_a_row,
        heartbeat_age_seconds=_seconds_since(row.heartbeat_at, row.now),
        lag_records=row.lag_records if is_current else None,
        behind_seconds=behind_seconds(row),
        freshness_seconds=freshness_seconds(ledger.newest_at, row.now.replace(tzinfo=UTC)),
        slo_seconds=slo_seconds,
        records_per_second=row.records_per_second if is_current else None,
        batch_seconds=_of_ms(row.batch_ms) if is_current else None,
        batch_limit_records=row.batch_limit if is_current else None,
        latency_p50_seconds=_of_ms(row.latency_p50_ms) if is_current else None,
        latency_p99_seconds=_of_ms(row.latency_p99_ms) if is_current else None,
        commits=ledger.commits,
        records=ledger.records,
        written_rows=ledger.written_rows,
        quarantined_rows=ledger.quarantined_rows,
        last_committed_at=ledger.last_committed_at,
    )


class Applied:
    """The pipelines as they were applied last, for what the page shows of their declarations.

    Args:
        settings: where the state folder is.
        versions: the applied versions by pipeline.
    """

    def __init__(self, settings: Settings, versions: dict[str, AppliedVersion]) -> None:
        self._settings, self._versions = settings, versions

    def promised_seconds(self, stream: str) -> float | None:
        """How far the tables of a stream may be behind; None if its pipeline cannot be loaded."""
        pipeline = self._pipeline(stream)
        return None if pipeline is None else pipeline.slo.freshness_seconds

    def metric_of(self, pipeline: str, model: str) -> str | None:
        """The metric that decides a model's promotion; None if its pipeline cannot be loaded."""
        found = self._pipeline(pipeline)
        return found.models[model].promotion.metric if found is not None and model in found.models else None

    def _pipeline(self, name: str) -> Pipeline | None:
        applied = self._versions.get(name)
        if applied is None:
            return None
        # A version that cannot be loaded is tried again: the next apply stores its snapshot.
        loaded = _loaded.get(name)
        if loaded is None or loaded[0] != applied:
            pipeline = _try_load(self._settings, applied)
            if pipeline is None:
                return None
            loaded = _loaded[name] = applied, pipeline
        return loaded[1]


_loaded: dict[str, tuple[AppliedVersion, Pipeline]] = {}
"""By name: what this process has loaded. A version never changes."""


def _try_load(settings: Settings, applied: AppliedVersion) -> Pipeline | None:
    try:
        return load_applied(settings, applied)
    except (SpecError, StreamError) as error:
        log.warning("the promise and the metrics of %s are not known: %s", applied.pipeline, error)
        return None


def _seconds_since(then: datetime | None, now: datetime) -> float | None:
    return None if then is None else max((now - then).total_seconds(), 0.0)


def _of_ms(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _query(connection: Connection[Any], settings: Settings, name: str) -> list[dict[str, Any]]:
    statement = (resource_folder("sql") / "console" / f"{name}.sql").read_text(encoding="utf-8")
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(statement)
        return [{column: _aware(value) for column, value in row.items()} for row in cursor.fetchall()]


def _aware(value: Any) -> Any:
    """The control plane's times are naive UTC; what is shown to others names the zone."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
