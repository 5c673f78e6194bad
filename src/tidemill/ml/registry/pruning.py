"""Remove the scores and the artifacts of model versions that are no longer needed.

The champion, the published version, versions that wait for a person and the newest few are kept. Rows of
``model_versions`` leave much later (:mod:`tidemill.store.maintenance.history`). A model with a running refresh is
skipped. Artifacts behind a URI that is not ``file:`` are kept, too: only a Spark job reaches them, and pruning starts
none.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings, folder_of
from tidemill.ml.refresh import running_refreshes
from tidemill.ml.registry.versions import lock_model
from tidemill.spec.schema import Model, Pipeline
from tidemill.store.connection import dialect_of, translated
from tidemill.store.maintenance.history import NEWEST_KEPT
from tidemill.store.sql import identifiers
from tidemill.store.steps import pause_for_others, run_step

BATCH_SCORES = 5_000


@dataclass
class PruneCounts:
    """How much was removed of a pipeline's models, or would be in a dry run."""

    scores: int = 0
    pending_scores: int = 0
    """Of versions that are no longer champion, which are not published any more."""
    artifacts: int = 0
    """Folders."""


def prune_versions(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, *, dry_run: bool = False
) -> PruneCounts:
    """Remove scores and artifacts of the versions that a pipeline's models no longer need.

    Args:
        connection: as the stream account, in autocommit mode, in the control schema.
        settings: schemas, and the folder of the artifacts.
        pipeline: the pipeline of the models.
        dry_run: only count.
    """
    counts = PruneCounts()
    for name, model in pipeline.models.items():
        needed = _needed(connection, pipeline.name, name)
        if needed is None:
            continue
        pending = identifiers.pending(model.score.table)
        pruner = _ScorePruner(connection, settings.db_data, (pipeline.name, name), model, dry_run)
        counts.scores += pruner.remove(model.score.table, needed)
        counts.pending_scores += pruner.remove(pending, needed, champion_only=True)
        counts.artifacts += _remove_artifacts(connection, settings, (pipeline.name, name), dry_run=dry_run)
    return counts


@dataclass(frozen=True)
class _Needed:
    """The versions of a model that are read, or that a person may roll back to."""

    champion: int | None
    all: frozenset[int]


def _needed(connection: Connection[Any], pipeline: str, model: str) -> _Needed | None:
    """None while a refresh is running, or where nothing was ever trained."""
    if running_refreshes(connection, pipeline, model):
        return None
    with translated(), connection.cursor() as cursor:
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
class _ScorePruner:
    """Removes scores of one model in small transactions, each of which locks the model's row."""

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
            # Publication and promotion lock the same row and may change what is needed: each transaction reads it.
            champion, published = lock_model(self.connection, *self.of)
            if version == champion or (version == published and not champion_only):
                return 0
            return int(cursor.execute(statement, {"version": version, "rows": BATCH_SCORES}))

        removed = 0
        while True:
            began = time.monotonic()
            batch = run_step(self.connection, remove)
            removed += batch
            if batch < BATCH_SCORES:
                return removed
            pause_for_others(began)


def _remove_artifacts(
    connection: Connection[Any], settings: Settings, of: tuple[str, str], *, dry_run: bool = False
) -> int:
    """Remove folders of versions that are not needed, and of trainings that ended before they recorded a version."""
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
        candidates = [path for path in (*old, *own.glob(".refresh-*")) if path is not None]
        # Only in the model's own folder: a person may have recorded an artifact that is elsewhere.
        folders = [path for path in candidates if path.parent == own and path.is_dir()]
        if not dry_run:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            kept = ", ".join(map(str, sorted(needed.all)))
            cursor.execute(
                f"DELETE FROM portable_models WHERE pipeline = %s AND model = %s AND version NOT IN ({kept})", of
            )
        return len(folders)

    return run_step(connection, remove)
