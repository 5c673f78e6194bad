"""The row of a healthy stream, as the control plane gives it."""

from datetime import datetime, timedelta

from tidemill.lifecycle.stream_row import StreamRow

NOW = datetime(2026, 3, 1, 12)


def ago(seconds: float) -> datetime:
    """A moment that many seconds before now."""
    return NOW - timedelta(seconds=seconds)


RUNNING = StreamRow(
    stream="flights",
    desired_state="running",
    requested_by="a person",
    requested_at=ago(600),
    halted_reason=None,
    exit_epoch=None,
    exit_requested_at=None,
    epoch=7,
    pipeline_version=2,
    host="here",
    pid=4711,
    log_file="/logs/flights-7.log",
    master="local[2]",
    submission_id=None,
    acquired_at=ago(500),
    heartbeat_epoch=7,
    state="running",
    heartbeat_at=ago(1),
    batches=3,
    records=300,
    lag_records=0,
    behind_seconds=0.0,
    newest_at=ago(1),
    records_per_second=10.0,
    batch_ms=50,
    batch_limit=100_000,
    latency_p50_ms=120,
    latency_p99_ms=300,
    last_error=None,
    waiting_for=None,
    failures_in_a_row=0,
    last_failed_at=None,
    newest_version=2,
    pending_notifications=0,
    freshness_incident_since=None,
    now=NOW,
)
"""A healthy stream; each case changes what differs."""
