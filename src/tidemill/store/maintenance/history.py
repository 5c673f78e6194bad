"""Removes what the control plane remembers of things that are long over, except what is in use.

Of a model these are in use: its champion, the published version, versions that wait for a person and the newest few;
the refreshes that they come from, the newest of each outcome, and the newest that measured drift; the decisions about
them, and the newest of each verdict. A model with a running refresh is skipped.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from pymysql.connections import Connection

from tidemill.store.connection import translated
from tidemill.store.steps import run_step

NEWEST_KEPT = 3
"""The newest versions of a model are kept in whatever state they are."""
BATCH_ROWS = 500
"""Rows of one table that a transaction removes."""

KEPT = {
    "commits": "TIDEMILL_LEDGER_DAYS: older ones are merged into one row for each partition and pipeline version",
    "commit_tables": "TIDEMILL_LEDGER_DAYS: merged with their commits",
    "quarantine": "TIDEMILL_QUARANTINE_DAYS",
    "quarantine_bytes": "TIDEMILL_HISTORY_DAYS",
    "decisions": "TIDEMILL_HISTORY_DAYS",
    "drift": "TIDEMILL_HISTORY_DAYS, with its refresh",
    "evaluations": "TIDEMILL_HISTORY_DAYS, with its refresh",
    "incidents": "TIDEMILL_HISTORY_DAYS after they were closed",
    "model_versions": "TIDEMILL_HISTORY_DAYS",
    "refreshes": "TIDEMILL_HISTORY_DAYS",
    "replays": "TIDEMILL_HISTORY_DAYS after they ended",
    "portable_models": "those of the versions in use; others are removed with their artifacts",
    "heartbeats": "one row for each stream",
    "leases": "one row for each stream",
    "ledger_sums": "one row for each Kafka partition of a generation of a topic",
    "models": "one row for each model",
    "offsets": "one row for each Kafka partition",
    "objects": "one row for each table and view of the operational schema",
    "pipelines": "one row for each change of a folder that a person has applied; rows name these versions",
    "rollups": "one row for each rollup",
    "streams": "one row for each stream",
    "suspect_ranges": "one row for each Kafka partition",
    "topics": "one row for each topic of a stream",
}
"""Table of the control plane -> for how long its rows are kept, or why they cannot grow without bound."""

_OVER = {
    "incidents": "closed_at < %(cutoff)s",
    "quarantine_bytes": "stream = %(pipeline)s AND day < %(cutoff)s",
    "replays": "stream = %(pipeline)s AND ended_at < %(cutoff)s AND state IN ('done', 'failed')",
}
_MODELS = """
SELECT model FROM models WHERE pipeline = %(pipeline)s UNION SELECT model FROM refreshes WHERE pipeline = %(pipeline)s
UNION SELECT model FROM decisions WHERE pipeline = %(pipeline)s
"""
_OF = "pipeline = %(pipeline)s AND model = %(model)s"
_OLD_VERSIONS = f"""
SELECT version FROM model_versions WHERE {_OF} AND created_at < %(cutoff)s AND version NOT IN %(used)s
    AND (INSTR(artifact, '://') = 0 OR artifact LIKE 'file:%%')
"""
_USED_REFRESHES = f"""
SELECT refresh_id FROM model_versions WHERE {_OF} AND version NOT IN %(old)s
UNION SELECT MAX(id) FROM refreshes WHERE {_OF} GROUP BY state, scored_version
UNION SELECT MAX(id) FROM refreshes WHERE {_OF} AND id IN (SELECT refresh_id FROM drift)
"""
_OLD_REFRESHES = f"""
SELECT id FROM refreshes WHERE {_OF} AND ended_at < %(cutoff)s AND id NOT IN %(used)s ORDER BY id LIMIT %(rows)s
"""
_OLD_DECISIONS = f"""
SELECT id FROM decisions WHERE {_OF} AND decided_at < %(cutoff)s AND version NOT IN %(versions)s AND id NOT IN (
    SELECT id FROM (SELECT MAX(id) AS id FROM decisions WHERE {_OF} GROUP BY verdict) AS newest)
ORDER BY id LIMIT %(rows)s
"""


def remove_history(
    connection: Connection[Any], pipeline: str, cutoff: datetime, *, dry_run: bool = False
) -> dict[str, int]:
    """Remove what was over before ``cutoff`` (naive UTC); returns table -> rows that were, or would be, removed.

    Args:
        connection: as the stream account, in autocommit mode, in the control schema.
        pipeline: whose models, replays and incidents; incidents of a pipeline that is gone leave with any other's.
        cutoff: naive UTC.
        dry_run: only count, up to one transaction's rows of each model.
    """
    removed = Counter[str]()
    for table, condition in _OVER.items():
        values: dict[str, object] = {"pipeline": pipeline, "cutoff": cutoff}
        removed[table] = _remove_all(connection, table, condition, values, dry_run=dry_run)
    with translated(), connection.cursor() as cursor:
        cursor.execute(_MODELS, {"pipeline": pipeline})
        models = [str(row[0]) for row in cursor.fetchall()]
    for model in models:
        values_of = {"pipeline": pipeline, "model": model, "cutoff": cutoff, "rows": BATCH_ROWS}
        while True:
            step = run_step(connection, lambda cursor, of=values_of: _remove_of_model(cursor, of, dry_run=dry_run))  # type: ignore[misc]  # bound
            removed.update(step)
            if dry_run or max(step.values(), default=0) < BATCH_ROWS:
                break
    return {table: rows for table, rows in removed.items() if rows}


def _remove_all(
    connection: Connection[Any], table: str, condition: str, values: dict[str, object], *, dry_run: bool
) -> int:
    if dry_run:
        with translated(), connection.cursor() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM {table} WHERE {condition}", values)
            row = cursor.fetchone()
        return int(row[0]) if row else 0
    removed = 0
    while True:
        statement = f"DELETE FROM {table} WHERE {condition} LIMIT {BATCH_ROWS}"
        step = run_step(connection, lambda cursor, sql=statement: int(cursor.execute(sql, values)))  # type: ignore[misc]  # bound
        removed += step
        if step < BATCH_ROWS:
            return removed


def _remove_of_model(cursor: Any, of: dict[str, object], *, dry_run: bool) -> dict[str, int]:
    """One transaction for one model, whose row it locks: promotion, publication and rollback lock it, too."""
    cursor.execute(f"SELECT champion_version, published_version FROM models WHERE {_OF} FOR UPDATE", of)
    versions = {version for version in cursor.fetchone() or () if version is not None}
    if cursor.execute(f"SELECT id FROM refreshes WHERE {_OF} AND state = 'running' LIMIT 1", of):
        return {}
    cursor.execute(f"SELECT version FROM model_versions WHERE {_OF} ORDER BY version DESC LIMIT {NEWEST_KEPT}", of)
    versions |= _numbers(cursor)
    cursor.execute(f"SELECT version FROM model_versions WHERE {_OF} AND state = 'waiting'", of)
    versions |= _numbers(cursor)
    cursor.execute(_OLD_VERSIONS, of | {"used": [*versions, -1]})
    old_versions = _numbers(cursor)
    removed = {"model_versions": len(old_versions)}
    if old_versions and not dry_run:
        cursor.execute(f"DELETE FROM model_versions WHERE {_OF} AND version IN %(old)s", of | {"old": [*old_versions]})
    cursor.execute(_USED_REFRESHES, of | {"old": [*old_versions, -1]})
    cursor.execute(_OLD_REFRESHES, of | {"used": [*_numbers(cursor), -1]})
    refreshes = _numbers(cursor)
    cursor.execute(_OLD_DECISIONS, of | {"versions": [*versions, -1]})
    found = {"refreshes": ("id", refreshes), "decisions": ("id", _numbers(cursor))}
    found |= dict.fromkeys(("evaluations", "drift"), ("refresh_id", refreshes))
    for table, (column, ids) in found.items():
        statement = f"SELECT {column} FROM" if dry_run else "DELETE FROM"
        removed[table] = int(cursor.execute(f"{statement} {table} WHERE {column} IN %s", ([*ids, -1],)))
    return removed


def _numbers(cursor: Any) -> set[int]:
    return {int(row[0]) for row in cursor.fetchall() if row[0] is not None}
