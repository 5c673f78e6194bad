"""Applies pipeline folders to Kafka and the database, and requests that their streams run or stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Account, Settings
from tidemill.deploy import snapshots
from tidemill.errors import SourceError
from tidemill.kafka import clients, topics
from tidemill.lifecycle.driver_state import observe
from tidemill.lifecycle.limits import View
from tidemill.resources import resource_folder
from tidemill.spec import Pipeline
from tidemill.spec.declared_objects import refuse_shared
from tidemill.store import live_tables, migrations, ownership
from tidemill.store.connection import session, translated
from tidemill.store.control import streams as stream_rows
from tidemill.store.maintenance.rollup_backfill import building_rollups, describe_building, rollup_states

STACK = "the stack"
"""Who requested a state that no person requested. The next start of the stack requests it again."""


def apply_all(settings: Settings, pipelines: Iterable[Pipeline], report: Callable[[str], None]) -> None:
    """Create the missing tables and topics of pipelines, and register the content of their folders as versions.

    Args:
        settings: where Kafka, the database and the state folder are.
        pipelines: the pipelines to apply.
        report: called with one line for each step.

    Raises:
        StoreError: a table exists with other columns.
        SourceError: no Kafka broker answers.
        StructureError: another pipeline owns a table, or a table exists that no pipeline owns.
        SpecError: a folder was changed while it was being applied, or two pipelines declare one table.
    """
    pipelines = list(pipelines)
    refuse_shared(pipelines)
    client = clients.admin(settings)
    with session(settings, Account.MIGRATE) as connection:
        applied = migrations.migrate_control(connection, resource_folder("sql"))
        if applied:
            report(f"control plane: {len(applied)} tables and upgrades")
        for pipeline in pipelines:
            topics.create_topic(client, pipeline.source)
            version = migrations.apply_pipeline(connection, settings, pipeline)
            row = stream_rows.read_stream(connection, pipeline.name)
            leased = [row.pipeline_version] if row is not None and row.pipeline_version is not None else []
            snapshots.save_snapshot(settings, pipeline, version, leased=leased)
            report(f"{pipeline.name}: version {version} is applied")
            for sentence in describe_building(building_rollups(connection).get(pipeline.name, ())):
                report(f"{pipeline.name}: {sentence}")


def plan_pipeline(settings: Settings, pipeline: Pipeline) -> list[str]:
    """The steps that :func:`apply_all` would take for one pipeline, one line for each."""
    steps = []
    try:
        topics.partitions(clients.admin(settings), pipeline.source.topic)
    except SourceError as error:
        if error.code != topics.TOPIC_MISSING:
            raise
        steps.append(f"create topic {pipeline.source.topic} with {pipeline.source.partitions} partitions")
    with session(settings, Account.READ) as connection:
        existing = _existing(connection, settings.db_data)
        objects = migrations.planned_objects(settings, pipeline)
        steps += [f"create {settings.db_data}.{name}" for name in objects if name not in existing]
        control_plane = _existing(connection, settings.db_control)
        steps += [
            f"build rollup {name} beside the stream: it is incomplete until a driver has counted the rows of {table}"
            for name, table in _to_build(connection, pipeline, existing, control_plane).items()
        ]
        if "objects" in control_plane:
            ownership.check_claims(connection, settings, pipeline)
            steps += [f"refused: {each}" for each in live_tables.differences(connection, settings, pipeline)]
        if "pipelines" not in control_plane or migrations.pipeline_version(connection, pipeline) is None:
            steps.append(f"register version {pipeline.digest[:12]} of {pipeline.name}")
    return steps


def _to_build(
    connection: Connection[Any], pipeline: Pipeline, existing: set[str], control_plane: set[str]
) -> dict[str, str]:
    """Rollup -> its table, of those that ``apply`` empties or adds while their table may have rows already."""
    states = rollup_states(connection).get(pipeline.name, {}) if "rollups" in control_plane else {}
    return {
        name: rollup.of
        for name, rollup in pipeline.rollups.items()
        if rollup.of in existing and (name not in existing or states.get(name) != "ready")
    }


def _existing(connection: Connection[Any], schema: str) -> set[str]:
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (schema,))
        return {row[0] for row in cursor.fetchall()}


def request_start(settings: Settings, pipelines: Iterable[Pipeline]) -> None:
    """Request that every stream runs, except those that a person stopped."""
    with session(settings, Account.STREAM) as connection:
        for pipeline in pipelines:
            row = stream_rows.read_stream(connection, pipeline.name)
            if row is None or row.requested_by == STACK:
                stream_rows.request_state(connection, pipeline.name, "running", STACK)


def stop_streams(settings: Settings, seconds: float) -> list[str]:
    """Request that every running stream stops, and wait for their drivers to exit.

    Returns:
        The streams that were running, if a driver of them is still alive after that many seconds; otherwise none.
    """
    with session(settings, Account.STREAM) as connection:
        running = [row.stream for row in stream_rows.read_streams(connection) if row.desired_state == "running"]
        for stream in running:
            stream_rows.request_state(connection, stream, "stopped", STACK)
    return [] if wait_stopped(settings, running, seconds) else running


def wait_stopped(settings: Settings, streams: list[str], seconds: float) -> bool:
    """Wait until no driver of these streams is alive; returns whether that happened in time."""
    deadline, view = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        with session(settings, Account.READ) as connection:
            rows = [row for row in stream_rows.read_streams(connection) if row.stream in streams]
        # Only a watcher that has seen the database all the while can find a silent driver lost.
        view = next((View.after(view, row.now) for row in rows), None)
        if not any(observe(row, viewed_seconds=view.seconds if view else 0).is_alive for row in rows):
            return True
        time.sleep(0.25)
    return False
