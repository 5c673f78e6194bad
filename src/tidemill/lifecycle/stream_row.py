"""Everything that the control plane stores about one stream, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

FAILING = "failing"
"""Kind of the incident that is open while drivers of a stream fail without a commit."""


FRESHNESS = "freshness"
"""Kind of the incident that is open while a stream's tables are further behind Kafka than its pipeline promises."""


@dataclass(frozen=True)
class StreamRow:
    """Everything that the control plane stores about one stream, read in one query. Times are naive UTC."""

    stream: str
    desired_state: str
    requested_by: str
    requested_at: datetime
    halted_reason: str | None
    exit_epoch: int | None
    """Drivers up to this epoch are requested to exit although the stream is to run: a restart, or a roll."""
    exit_requested_at: datetime | None
    epoch: int
    pipeline_version: int | None
    host: str | None
    pid: int | None
    log_file: str | None
    master: str | None
    submission_id: str | None
    """The cluster's id of a driver that the cluster runs itself."""
    acquired_at: datetime | None
    heartbeat_epoch: int | None
    state: str | None
    heartbeat_at: datetime | None
    batches: int | None
    records: int | None
    lag_records: int | None
    """Records in Kafka that were not committed yet at the newest heartbeat."""
    behind_seconds: float | None
    """How far the tables were behind at the newest heartbeat; :mod:`~tidemill.lifecycle.behind` has it as of now."""
    newest_at: datetime | None
    """Newest Kafka timestamp that the driver has committed."""
    records_per_second: float | None
    batch_ms: int | None
    batch_limit: int | None
    latency_p50_ms: int | None
    latency_p99_ms: int | None
    last_error: str | None
    waiting_for: str | None
    """The unavailable server that the driver waits for."""
    failures_in_a_row: int
    """Drivers that failed since the last commit."""
    last_failed_at: datetime | None
    newest_version: int
    """Newest applied version of the pipeline, 0 if none is."""
    pending_notifications: int
    """Incidents of the stream whose opening or closing was not notified yet."""
    freshness_incident_since: datetime | None
    """Since when its freshness incident is open, None if it is closed."""
    now: datetime
    """The database's clock: the only clock that all processes share."""
