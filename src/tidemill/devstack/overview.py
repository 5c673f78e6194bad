"""What a person sees of the running stack: one overview, as facts and as lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from confluent_kafka.admin import AdminClient
from pymysql.connections import Connection

from tidemill.config import Account, Settings
from tidemill.devstack.control import components, running
from tidemill.errors import SourceError, StoreError
from tidemill.kafka import topics
from tidemill.lifecycle.slo import behind_seconds
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.ml.serving.publish import ModelStatus, model_status
from tidemill.spec import Pipeline
from tidemill.store.connection import session, translated
from tidemill.store.control import ledger, streams


def overview(
    settings: Settings, pipelines: Mapping[str, Pipeline], client: AdminClient | None = None
) -> dict[str, Any]:
    """Everything worth knowing, as JSON-ready facts; ``trouble`` says what could not be asked."""
    stack = running(settings)
    facts: dict[str, Any] = {
        "stack": {"pid": stack.pid if stack else None, "components": components(settings)},
        "airflow": settings.airflow_url,
        "streams": [],
        "models": [],
        "trouble": [],
    }
    try:
        with session(settings, Account.READ) as connection:
            for pipeline in pipelines.values():
                facts["streams"].append(
                    _stream(connection, settings, pipeline, _ends(settings, pipeline, client, facts))
                )
                facts["models"] += [dataclasses.asdict(row) for row in model_status(connection, settings, pipeline)]
    except StoreError as error:
        facts["trouble"].append(str(error))
    return facts


def _ends(
    settings: Settings, pipeline: Pipeline, client: AdminClient | None, facts: dict[str, Any]
) -> dict[int, int] | None:
    try:
        return topics.offsets_at(client or topics.admin(settings), pipeline.source.topic, "latest")
    except SourceError as error:
        facts["trouble"].append(str(error))
        return None


def _stream(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, ends: dict[int, int] | None
) -> dict[str, Any]:
    row = streams.read_stream(connection, pipeline.name)
    total = ledger.totals(connection, pipeline.name)
    at = ledger.positions(connection, pipeline.name, pipeline.source.topic)
    behind = None if ends is None else sum(end - at.get(partition, 0) for partition, end in ends.items())
    return {
        "stream": pipeline.name,
        "desired_state": row.desired_state if row else "stopped",
        "state": state_of(row),
        "records_in_kafka": None if ends is None else sum(ends.values()),
        "lag_records": behind,
        "freshness_seconds": freshness_seconds(total, row.now) if row and behind else 0.0,
        "rows": _rows(connection, settings, pipeline),
        "driver": _driver(row),
        **{
            name: value
            for name, value in dataclasses.asdict(total).items()
            if name not in ("newest_at", "last_committed_at")
        },
        "last_error": row.last_error if row else None,
        "halted": row.halted_reason if row else None,
    }


def _driver(row: StreamRow | None) -> dict[str, Any]:
    """What the driver said last of itself; None is not known. Nothing of a driver that is no more."""
    names = ("records_per_second", "batch_ms", "batch_limit", "latency_p50_ms", "latency_p99_ms", "waiting_for")
    present = (
        row is not None and row.heartbeat_epoch == row.epoch and state_of(row) in ("starting", "running", "stopping")
    )
    found = {name: getattr(row, name) if present else None for name in names}
    return {"behind_seconds": behind_seconds(row) if row else None, **found}


def state_of(row: StreamRow | None) -> str:
    """One word for what a stream does now."""
    if row is None:
        return "never started"
    if row.halted_reason:
        return "halted"
    if row.heartbeat_epoch != row.epoch:
        return "starting" if row.desired_state == "running" else "stopped"
    stale = row.heartbeat_at is not None and (row.now - row.heartbeat_at).total_seconds() > 15
    return "lost" if stale and row.state in ("starting", "running", "stopping") else str(row.state)


def freshness_seconds(total: ledger.Totals, now: datetime) -> float | None:
    """Age of the newest record in the tables; None before the first."""
    return None if total.newest_at is None else (now - total.newest_at).total_seconds()


def _rows(connection: Connection[Any], settings: Settings, pipeline: Pipeline) -> dict[str, int]:
    counts = {}
    with translated(), connection.cursor() as cursor:
        for name in (*pipeline.tables, *pipeline.rollups):
            cursor.execute(f"SELECT COUNT(*) FROM `{settings.db_data}`.`{name}`")
            found = cursor.fetchone()
            counts[name] = int(found[0]) if found else 0
    return counts


def render(facts: Mapping[str, Any]) -> list[str]:
    """An overview as lines."""
    stack = facts["stack"]
    dead = [name for name, alive in stack["components"].items() if not alive]
    lines = ["stack     " + (f"up as process {stack['pid']}" if stack["pid"] else "down")]
    lines += [f"          dead: {', '.join(dead)}"] if dead else []
    lines += [f"Airflow   {facts['airflow']}  (console: {facts['airflow']}/tidemill/)"]
    for row in facts["streams"]:
        lines.append(f"stream    {describe_stream(row)}")
        lines += (
            [f"          last error: {row['last_error']}"] if row["last_error"] and row["state"] != "running" else []
        )
        lines += [f"          {sentence}" for sentence in describe_driver(row["driver"])]
        lines += [f"          halted: {row['halted']}"] if row["halted"] else []
    lines += [f"model     {describe_model(ModelStatus(**row))}" for row in facts["models"]]
    return [*lines, *(f"trouble   {sentence}" for sentence in facts["trouble"])]


def describe_stream(row: Mapping[str, Any]) -> str:
    """A stream in one line."""
    tables = ", ".join(f"{name} {count:,}" for name, count in row["rows"].items())
    fresh = "-" if row["freshness_seconds"] is None else f"{row['freshness_seconds']:.0f} s"
    lag = "?" if row["lag_records"] is None else f"{row['lag_records']:,}"
    came = "?" if row["records_in_kafka"] is None else f"{row['records_in_kafka']:,}"
    return (
        f"{row['stream']} {row['state']}: {came} records in Kafka, lag {lag}, behind by {fresh}, "
        f"{row['commits']:,} commits; rows: {tables}; quarantined {row['quarantined']:,}"
    )


def describe_driver(driver: Mapping[str, Any]) -> list[str]:
    """What a driver says of itself: how fast it is, and what it waits for. Nothing if nothing is known."""
    parts = []
    if driver["behind_seconds"] is not None:
        parts.append(f"{driver['behind_seconds']:.0f} s behind Kafka")
    if driver["records_per_second"] is not None:
        parts.append(f"{driver['records_per_second']:,.0f} records/s")
    if driver["latency_p50_ms"] is not None and driver["latency_p99_ms"] is not None:
        parts.append(f"latency p50 {driver['latency_p50_ms']:,} ms, p99 {driver['latency_p99_ms']:,} ms")
    if driver["batch_ms"] is not None:
        limit = "" if driver["batch_limit"] is None else f" of at most {driver['batch_limit']:,} records"
        parts.append(f"last batch {driver['batch_ms']:,} ms{limit}")
    lines = [", ".join(parts)] if parts else []
    return [*lines, f"waits: {driver['waiting_for']}"] if driver["waiting_for"] else lines


def describe_model(row: ModelStatus) -> str:
    """A model in one line."""
    if row.champion_version is None:
        return f"{row.pipeline}.{row.model}: no champion yet"
    measured = f"{row.metric} {row.metric_value:.4f}" if row.metric_value is not None else "not measured"
    if row.baseline_value is not None:
        measured += f" (baseline {row.baseline_value:.4f})"
    published = (
        "nothing published"
        if row.published_version is None
        else f"version {row.published_version} published, {row.scored_rows:,} scores"
    )
    return f"{row.pipeline}.{row.model}: champion version {row.champion_version}, {measured}; {published}"
