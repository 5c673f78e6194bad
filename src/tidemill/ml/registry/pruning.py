"""Model versions that nobody will read again: their scores, and their artifacts on disk.

The champion, the published version, what waits for a person and the newest few stay; so does every row of
``model_versions``. A model with a refresh under way is left alone. So are artifacts behind a URI that is not ``file:``:
only Spark reaches those, and nothing here starts one.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings, folder_of
from tidemill.ml.registry.versions import lock_model
from tidemill.spec.schema import Model, Pipeline
from tidemill.store.connection import dialect_of, translated
from tidemill.store.sql import identifiers
from tidemill.store.steps import pause_for_others, run_step

NEWEST_KEPT = 3
"""Versions that stay whatever became of them."""
BATCH_SCORES = 5_000
_REFRESH_HOURS = 24
"""A refresh that has been running for longer is none any more: each of its tasks may take two hours."""


@dataclass
class PruneCounts:
    """What was removed of a pipeline's models, or would be."""

    scores: int = 0
    pending_scores: int = 0
    """Of versions that are no longer champion: nobody will publish them."""
    artifacts: int = 0


def prune_versions(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, *, dry_run: bool = False
) -> PruneCounts:
    """Remove what is left of the versions that a pipeline's models no longer need.

    Args:
        connection: as the stream account, in autocommit mode, in the control schema.
        settings: schemas, and where artifacts are.
        pipeline: whose models.
        dry_run: only count.
    """
    done = PruneCounts()
    for name, model in pipeline.models.items():
        needed = _needed(connection, pipeline.name, name)
        if needed is None:
            continue
        waiting = identifiers.pending(model.score.table)
        sweep = _Sweep(connection, settings.db_data, (pipeline.name, name), model, dry_run)
        done.scores += sweep.remove(model.score.table, needed)
        done.pending_scores += sweep.remove(waiting, needed, champion_only=True)
        done.artifacts += _remove_artifacts(connection, settings, (pipeline.name, name), dry_run=dry_run)
    return done


@dataclass(frozen=True)
class _Needed:
    """The versions of a model that somebody reads or may want back."""

    champion: int | None
    all: frozenset[int]


def _needed(connection: Connection[Any], pipeline: str, model: str) -> _Needed | None:
    """None while a refresh is under way, or where nothing was ever trained."""
    with translated(), connection.cursor() as cursor:
        busy = cursor.execute(
            "SELECT 1 FROM refreshes WHERE pipeline = %s AND model = %s AND state = 'running'"
            " AND started_at > UTC_TIMESTAMP(6) - INTERVAL %s HOUR LIMIT 1",
            (pipeline, model, _REFRESH_HOURS),
        )
        if busy:
            return None
        cursor.execute(
            "SELECT champion_version, published_version FROM models WHERE pipeline = %s AND model = %s",
            (pipeline, model),
        )
        champion, published = cursor.fetchone() or (None, None)
        cursor.execute(
            "SELECT version FROM model_versions WHERE pipeline = %s AND model = %s ORDER BY version DESC LIMIT %s",
            (pipeline, model, NEWEST_KEPT),
        )
        newest = {int(row[0]) for row in cursor.fetchall()}
        cursor.execute(
            "SELECT version FROM model_versions WHERE pipeline = %s AND model = %s AND state = 'waiting'",
            (pipeline, model),
        )
        newest |= {int(row[0]) for row in cursor.fetchall()}
    if not newest:
        return None
    return _Needed(champion, frozenset(newest | {v for v in (champion, published) if v is not None}))


@dataclass(frozen=True)
class _Sweep:
    """Scores of one model that leave in small transactions, each of which holds the model's row."""

    connection: Connection[Any]
    schema: str
    of: tuple[str, str]
    model: Model
    dry_run: bool

    def remove(self, table: str, needed: _Needed, *, champion_only: bool = False) -> int:
        keep = {needed.champion} if champion_only else needed.all
        with translated(), self.connection.cursor() as cursor:
            cursor.execute(dialect_of(self.connection).scored_versions(self.schema, table))
            old = [int(row[0]) for row in cursor.fetchall() if row[0] not in keep]
            if self.dry_run:
                return sum(self._count(cursor, table, version) for version in old)
        return sum(self._remove_version(table, version, champion_only) for version in old)

    def _count(self, cursor: Any, table: str, version: int) -> int:
        cursor.execute(dialect_of(self.connection).count_version(self.schema, table), {"version": version})
        return int(cursor.fetchone()[0])

    def _remove_version(self, table: str, version: int, champion_only: bool) -> int:
        statement = dialect_of(self.connection).remove_scores(self.schema, table, self.model)

        def remove(cursor: Any) -> int:
            # Publication and judgement hold the same row: what they make of a version is asked each time.
            champion, published = lock_model(self.connection, *self.of)
            if version == champion or (version == published and not champion_only):
                return 0
            return int(cursor.execute(statement, {"version": version, "rows": BATCH_SCORES}))

        removed = 0
        while True:
            began = time.monotonic()
            gone = run_step(self.connection, remove)
            removed += gone
            if gone < BATCH_SCORES:
                return removed
            pause_for_others(began)


def _remove_artifacts(
    connection: Connection[Any], settings: Settings, of: tuple[str, str], *, dry_run: bool = False
) -> int:
    """Folders of versions that are not needed, and of trainings that never came to a version."""
    models = settings.models_folder
    if models is None:
        return 0

    def remove(cursor: Any) -> int:
        lock_model(connection, *of)
        needed = _needed(connection, *of)
        if needed is None:
            return 0
        cursor.execute("SELECT version, artifact FROM model_versions WHERE pipeline = %s AND model = %s", of)
        own = models / of[0] / of[1]
        old = [folder_of(artifact) for version, artifact in cursor.fetchall() if int(version) not in needed.all]
        # Only in our own folder: an artifact may have been put elsewhere by hand.
        found = [path for path in (*old, *own.glob(".refresh-*")) if path is not None]
        folders = [path for path in found if path.parent == own and path.is_dir()]
        if not dry_run:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            kept = ", ".join(map(str, sorted(needed.all)))
            cursor.execute(
                f"DELETE FROM portable_models WHERE pipeline = %s AND model = %s AND version NOT IN ({kept})", of
            )
        return len(folders)

    return run_step(connection, remove)
