"""Maintenance of one pipeline's part of the database: compacts the ledger and removes what is too old.

Safe while streams, replays and other maintenance run: every step is a small transaction that changes no sum, and the
next run continues where one was interrupted.
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
from tidemill.store.control.incidents import QUARANTINE_FULL
from tidemill.store.maintenance.compaction import compact
from tidemill.store.maintenance.history import remove_history
from tidemill.store.maintenance.retention import MaintainedTable, purge_quarantined, remove_old_markers, remove_old_rows
from tidemill.store.migrations import pipeline_version


@dataclass
class MaintenanceResult:
    """What maintenance did for one pipeline, or would do in a dry run."""

    pipeline: str
    merged_commits: int = 0
    """By how many rows the ledger became shorter."""
    removed_rows: dict[str, int] = field(default_factory=dict)
    """By table, of those with a retention."""
    removed_markers: dict[str, int] = field(default_factory=dict)
    """Removed deletion markers by table."""
    purged_records: int = 0
    """Removed from the quarantine."""
    removed_history: dict[str, int] = field(default_factory=dict)
    """By table of the control plane: what was long over."""
    notes: list[str] = field(default_factory=list)
    """What was left to a later run, and why."""


def maintain(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, *, dry_run: bool = False
) -> MaintenanceResult:
    """Maintain one pipeline.

    Args:
        connection: as the stream account, in autocommit mode, in the control schema.
        settings: names of the schemas, and numbers of days.
        pipeline: which is maintained.
        dry_run: change nothing, and return what would change.

    Raises:
        Contention: every attempt of a step gave way to other transactions; the steps before it are committed.
    """
    now = _now(connection)
    result = MaintenanceResult(pipeline.name)
    result.merged_commits = compact(
        connection, pipeline.name, now - timedelta(days=settings.ledger_days), dry_run=dry_run
    )
    result.removed_history = remove_history(
        connection, pipeline.name, now - timedelta(days=settings.history_days), dry_run=dry_run
    )
    if not dry_run:
        _close_full_quarantine(connection, pipeline.name)
    _maintain_tables(connection, settings, pipeline, (now, dry_run), result)
    if _replaying(connection, pipeline.name):
        result.notes.append("a replay is running: deletion markers and quarantine were left unchanged")
        return result
    cutoff = now - timedelta(days=settings.quarantine_days)
    result.purged_records = purge_quarantined(connection, pipeline.name, cutoff, dry_run=dry_run)
    return result


def _maintain_tables(
    connection: Connection[Any],
    settings: Settings,
    pipeline: Pipeline,
    at: tuple[datetime, bool],
    result: MaintenanceResult,
) -> None:
    now, dry_run = at
    version = pipeline_version(connection, pipeline)
    if version is None:
        result.notes.append("the folder has unapplied changes: rows and deletion markers were left unchanged")
        return
    for name, table in pipeline.tables.items():
        if table.retention is None:
            continue
        maintained = MaintainedTable(connection, settings.db_data, pipeline, name, version)
        try:
            cutoff = now - timedelta(days=table.retention.days)
            result.removed_rows[name] = remove_old_rows(maintained, cutoff, dry_run=dry_run)
        except Fenced:
            result.notes.append(f"the stream runs a newer version of the pipeline: rows of {name} were left unchanged")
    if _replaying(connection, pipeline.name):
        return
    # A quarantined record may still be replayed, and must not restore a row that was deleted since.
    days = max(settings.ledger_days, settings.quarantine_days)
    commit = _newest_commit(connection, pipeline.name, now - timedelta(days=days))
    for name in deletes_from(pipeline):
        maintained = MaintainedTable(connection, settings.db_data, pipeline, name, version)
        result.removed_markers[name] = remove_old_markers(maintained, commit, dry_run=dry_run)


def _close_full_quarantine(connection: Connection[Any], stream: str) -> None:
    """Close yesterday's incident: on another day the quarantine keeps bytes again."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE incidents SET closed_at = UTC_TIMESTAMP(6)"
            " WHERE subject = %s AND kind = %s AND closed_at IS NULL AND opened_at < UTC_DATE()",
            (f"stream {stream}", QUARANTINE_FULL),
        )


def _now(connection: Connection[Any]) -> datetime:
    """The time of the database's clock, which all processes share. Naive UTC."""
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT UTC_TIMESTAMP(6)")
        row = cursor.fetchone()
    assert row is not None  # a SELECT without FROM has one row
    now: datetime = row[0]
    return now


def _newest_commit(connection: Connection[Any], stream: str, before: datetime) -> int:
    with translated(), connection.cursor() as cursor:
        # In order of their ids the old ones come first, and compaction has left few of them.
        cursor.execute(
            "SELECT id FROM commits WHERE stream = %s AND committed_at >= %s ORDER BY id LIMIT 1", (stream, before)
        )
        first_kept = cursor.fetchone()
        below = "" if first_kept is None else f" AND id < {int(first_kept[0])}"
        cursor.execute(f"SELECT COALESCE(MAX(id), 0) FROM commits WHERE stream = %s{below}", (stream,))
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def _replaying(connection: Connection[Any], stream: str) -> bool:
    """Whether a replay may be running. One that was requested more than a week ago counts as abandoned."""
    with translated(), connection.cursor() as cursor:
        return bool(
            cursor.execute(
                "SELECT 1 FROM replays WHERE stream = %s AND state IN ('requested', 'running')"
                " AND requested_at > UTC_TIMESTAMP(6) - INTERVAL 7 DAY LIMIT 1",
                (stream,),
            )
        )
