"""The state of stack, streams and models, read from the database and Kafka as JSON-ready facts.

Runs in the processes of ``./tidemill up`` and ``./tidemill status``; ``describe`` has the same facts as lines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from confluent_kafka.admin import AdminClient
from pymysql.connections import Connection

from tidemill.config import Account, Settings
from tidemill.devstack.control import stack_facts
from tidemill.errors import SourceError, StoreError
from tidemill.kafka import clients, topics
from tidemill.lifecycle.slo import behind_seconds
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.ml.serving.publish import model_status
from tidemill.spec import Pipeline
from tidemill.store.connection import session, translated
from tidemill.store.control import ledger, streams


def overview(
    settings: Settings, pipelines: Mapping[str, Pipeline], client: AdminClient | None = None
) -> dict[str, Any]:
    """The facts; ``problems`` has a sentence for each server that did not answer."""
    facts = stack_facts(settings)
    try:
        with session(settings, Account.READ) as connection:
            for pipeline in pipelines.values():
                facts["streams"].append(
                    _stream(connection, settings, pipeline, _ends(settings, pipeline, client, facts))
                )
                facts["models"] += [dataclasses.asdict(row) for row in model_status(connection, settings, pipeline)]
    except StoreError as error:
        facts["problems"].append(str(error))
    return facts


def _ends(
    settings: Settings, pipeline: Pipeline, client: AdminClient | None, facts: dict[str, Any]
) -> dict[int, int] | None:
    try:
        return topics.offsets_at(client or clients.admin(settings), pipeline.source.topic, "latest")
    except SourceError as error:
        facts["problems"].append(str(error))
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
