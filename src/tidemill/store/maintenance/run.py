"""Upkeep of one pipeline's part of the database: a shorter ledger, and nothing kept for longer than it is of use.

Safe beside running streams, replays and other maintenance: every step is a small transaction that leaves all sums as
they were, and what a step did not come to is left to the next run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import Fenced
from tidemill.spec.schema import Pipeline
from tidemill.spec.tombstones import deletes_from
from tidemill.store.connection import translated
from tidemill.store.maintenance.compaction import compact
from tidemill.store.maintenance.retention import Place, purge_quarantined, remove_old_markers, remove_old_rows
from tidemill.store.migrations import pipeline_version


@dataclass
class MaintenanceResult:
    """What maintenance did for one pipeline, or would do."""

    pipeline: str
    merged_commits: int = 0
    """Rows that the ledger has less."""
    removed_rows: dict[str, int] = field(default_factory=dict)
    """By table with a retention."""
    removed_markers: dict[str, int] = field(default_factory=dict)
    """Keys deleted by tombstones that were forgotten, by table."""
    forgotten_records: int = 0
    """Of the quarantine."""
    notes: list[str] = field(default_factory=list)
    """What was left for another time, and why."""


def maintain(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, *, dry_run: bool = False
) -> MaintenanceResult:
    """Maintain one pipeline.

    Args:
        connection: as the stream account, in autocommit mode, in the control schema.
        settings: schemas and days.
        pipeline: whose.
        dry_run: change nothing and say what would change.

    Raises:
        Contention: a step never had its turn; all before it stays done.
    """
    now = _now(connection)
    kept = MaintenanceResult(pipeline.name)
    kept.merged_commits = compact(
        connection, pipeline.name, now - timedelta(days=settings.ledger_days), dry_run=dry_run
    )
    _keep_tables(connection, settings, pipeline, (now, dry_run), kept)
    if _replaying(connection, pipeline.name):
        kept.notes.append("a replay is under way: deletion markers and quarantine stay as they are")
        return kept
    cutoff = now - timedelta(days=settings.quarantine_days)
    kept.forgotten_records = purge_quarantined(connection, pipeline.name, cutoff, dry_run=dry_run)
    return kept


def _keep_tables(
    connection: Connection[Any],
    settings: Settings,
    pipeline: Pipeline,
    at: tuple[datetime, bool],
    kept: MaintenanceResult,
) -> None:
    now, dry_run = at
    version = pipeline_version(connection, pipeline)
    if version is None:
        kept.notes.append("the folder is not applied as it stands: rows and deletion markers stay as they are")
        return
    for name, table in pipeline.tables.items():
        if table.retention is None:
            continue
        place = Place(connection, settings.db_data, pipeline, name, version)
        try:
            cutoff = now - timedelta(days=table.retention.days)
            kept.removed_rows[name] = remove_old_rows(place, cutoff, dry_run=dry_run)
        except Fenced:
            kept.notes.append(f"the stream runs a newer version of the pipeline: rows of {name} stay as they are")
    if _replaying(connection, pipeline.name):
        return
    # A quarantined record may still be replayed, and must not bring a row back that was deleted since.
    days = max(settings.ledger_days, settings.quarantine_days)
    commit = _newest_commit(connection, pipeline.name, now - timedelta(days=days))
    for name in deletes_from(pipeline):
        place = Place(connection, settings.db_data, pipeline, name, version)
        kept.removed_markers[name] = remove_old_markers(place, commit, dry_run=dry_run)


def _now(connection: Connection[Any]) -> datetime:
    """The database's clock: the only one that all sides share. Naive UTC."""
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT UTC_TIMESTAMP(6)")
        row = cursor.fetchone()
    assert row is not None  # a SELECT without FROM has one row
    now: datetime = row[0]
    return now


def _newest_commit(connection: Connection[Any], stream: str, before: datetime) -> int:
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT COALESCE(MAX(id), 0) FROM commits WHERE stream = %s AND committed_at < %s", (stream, before)
        )
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def _replaying(connection: Connection[Any], stream: str) -> bool:
    """Whether a replay may be at work. One that was asked for more than a week ago has been forgotten."""
    with translated(), connection.cursor() as cursor:
        return bool(
            cursor.execute(
                "SELECT 1 FROM replays WHERE stream = %s AND state IN ('requested', 'running')"
                " AND requested_at > UTC_TIMESTAMP(6) - INTERVAL 7 DAY LIMIT 1",
                (stream,),
            )
        )
