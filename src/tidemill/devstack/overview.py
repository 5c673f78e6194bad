"""The state of stack, streams and models, read from the database and Kafka as JSON-ready facts.

Runs in the processes of ``./tidemill up`` and ``./tidemill status``; ``describe`` has the same facts as lines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from confluent_kafka.admin import AdminClient
from pymysql.connections import Connection

from tidemill.config import Account, Settings
from tidemill.deploy.snapshots import applied_here, load_applied
from tidemill.devstack.control import stack_facts
from tidemill.errors import SourceError, SpecError, StoreError, StreamError
from tidemill.kafka import clients, topics
from tidemill.lifecycle.behind import behind_seconds, freshness_seconds
from tidemill.lifecycle.describe import stream_state
from tidemill.lifecycle.driver_state import observe
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.ml.serving.publish import model_status
from tidemill.spec import Pipeline
from tidemill.store.connection import session, translated
from tidemill.store.control import ledger, streams
from tidemill.store.maintenance.rollup_backfill import building_rollups


def overview(settings: Settings, client: AdminClient | None = None) -> dict[str, Any]:
    """The facts of every pipeline as it was applied last.

    ``problems`` has a sentence for each server that did not answer, and for each pipeline that cannot be loaded.
    """
    facts = stack_facts(settings)
    try:
        with session(settings, Account.READ) as connection:
            for pipeline in _pipelines(settings, connection, facts):
                facts["streams"].append(
                    _stream(connection, settings, pipeline, _ends(settings, pipeline, client, facts))
                )
                facts["models"] += [dataclasses.asdict(row) for row in model_status(connection, settings, pipeline)]
    except StoreError as error:
        facts["problems"].append(str(error))
    return facts


def _pipelines(settings: Settings, connection: Connection[Any], facts: dict[str, Any]) -> Iterator[Pipeline]:
    for applied in applied_here(settings, connection):
        try:
            yield load_applied(settings, applied)
        except (SpecError, StreamError) as error:
            facts["problems"].append(str(error))


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
    return {
        "stream": pipeline.name,
        **state_facts(row),
        "records_in_kafka": None if ends is None else sum(ends.values()),
        "lag_records": None if ends is None else sum(end - at.get(partition, 0) for partition, end in ends.items()),
        "freshness_seconds": None if row is None else freshness_seconds(total.newest_at, row.now),
        "rows": _rows(connection, settings, pipeline),
        "building_rollups": building_rollups(connection).get(pipeline.name, []),
        **{
            name: value
            for name, value in dataclasses.asdict(total).items()
            if name not in ("newest_at", "last_committed_at")
        },
    }


def state_facts(row: StreamRow | None) -> dict[str, Any]:
    """The facts of a stream that follow from its row alone; None means not known, or not measured at present."""
    names = ("records_per_second", "batch_ms", "batch_limit", "latency_p50_ms", "latency_p99_ms", "waiting_for")
    observed = observe(row) if row is not None else None
    # What a driver reported that has ended or is silent does not describe the present.
    is_current = observed is not None and observed.is_current
    return {
        "desired_state": row.desired_state if row else "stopped",
        "state": stream_state(row),
        "alive": observed is not None and observed.is_alive,
        "behind_seconds": behind_seconds(row) if row else None,
        "driver": {name: getattr(row, name) if is_current else None for name in names},
        "last_error": row.last_error if row else None,
        "halted": row.halted_reason if row else None,
    }


def _rows(connection: Connection[Any], settings: Settings, pipeline: Pipeline) -> dict[str, int]:
    counts = {}
    with translated(), connection.cursor() as cursor:
        for name in (*pipeline.tables, *pipeline.rollups):
            cursor.execute(f"SELECT COUNT(*) FROM `{settings.db_data}`.`{name}`")
            found = cursor.fetchone()
            counts[name] = int(found[0]) if found else 0
    return counts
