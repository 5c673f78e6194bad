"""The facts of an overview as lines for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidemill.lifecycle.describe import format_duration
from tidemill.lifecycle.driver_state import DriverState
from tidemill.store.maintenance.rollup_backfill import describe_building


def describe_overview(facts: Mapping[str, Any]) -> list[str]:
    """The facts of :func:`tidemill.devstack.overview.overview`, a label and what it is a line."""
    stack = facts["stack"]
    ended = [name for name, alive in stack["components"].items() if not alive]
    lines = ["stack: " + (f"running, process {stack['pid']}" if stack["pid"] else "not running")]
    lines += [f"  ended: {', '.join(ended)}"] if ended else []
    lines += [f"Airflow: {facts['airflow']} (console: {facts['airflow']}/tidemill/)"]
    for row in facts["streams"]:
        lines.append(f"stream {describe_stream(row)}")
        if row["last_error"] and row["state"] != "running":
            lines.append(f"  last error: {row['last_error']}")
        lines += [f"  {line}" for line in describe_driver(row["driver"])]
        lines += [f"  {line}" for line in describe_building(row["building_rollups"])]
        lines += [f"  halted: {row['halted']}"] if row["halted"] else []
    lines += [f"model {describe_model(row)}" for row in facts["models"]]
    return [*lines, *(f"problem: {sentence}" for sentence in facts["problems"])]


def describe_stream(row: Mapping[str, Any]) -> str:
    """A stream in one line."""
    tables = ", ".join(f"{name} {count:,}" for name, count in row["rows"].items())
    state = "never started" if row["state"] == DriverState.NONE else row["state"]
    behind, freshness = _span(row["behind_seconds"]), _span(row["freshness_seconds"])
    lag = "unknown" if row["lag_records"] is None else f"{row['lag_records']:,} records"
    total = "an unknown number of" if row["records_in_kafka"] is None else f"{row['records_in_kafka']:,}"
    return (
        f"{row['stream']}: {state}, {total} records in Kafka, lag {lag}, behind {behind}, freshness {freshness}, "
        f"{row['commits']:,} commits; rows: {tables}; quarantined {row['quarantined']:,}"
    )


def _span(seconds: float | None) -> str:
    return "unknown" if seconds is None else format_duration(round(seconds))


def describe_driver(driver: Mapping[str, Any]) -> list[str]:
    """The speed that a driver reports, and what it waits for; no line for what is unknown."""
    parts = []
    if driver["records_per_second"] is not None:
        parts.append(f"{driver['records_per_second']:,.0f} records/s")
    if driver["latency_p50_ms"] is not None and driver["latency_p99_ms"] is not None:
        parts.append(f"latency p50 {driver['latency_p50_ms']:,} ms, p99 {driver['latency_p99_ms']:,} ms")
    if driver["batch_ms"] is not None:
        limit = "" if driver["batch_limit"] is None else f" of at most {driver['batch_limit']:,} records"
        parts.append(f"last batch {driver['batch_ms']:,} ms{limit}")
    lines = [f"driver: {', '.join(parts)}"] if parts else []
    return [*lines, f"waiting for: {driver['waiting_for']}"] if driver["waiting_for"] else lines


def describe_model(row: Mapping[str, Any]) -> str:
    """A model in one line; ``row`` has the fields of ``ml.serving.publish.ModelStatus``."""
    name = f"{row['pipeline']}.{row['model']}"
    if row["champion_version"] is None:
        return f"{name}: no champion yet"
    measured = "not measured" if row["metric_value"] is None else f"{row['metric']} {row['metric_value']:.4f}"
    if row["baseline_value"] is not None:
        measured += f" (baseline {row['baseline_value']:.4f})"
    published = (
        "nothing published"
        if row["published_version"] is None
        else f"version {row['published_version']} published, {row['scored_rows']:,} scores"
    )
    return f"{name}: champion version {row['champion_version']}, {measured}; {published}"
