"""Creates what pipeline folders declare: control plane, tables, rollups, views, versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import StoreError
from tidemill.spec.schema import Pipeline
from tidemill.spec.tombstones import deletes_from
from tidemill.store import live_tables, ownership
from tidemill.store.connection import dialect_of, translated
from tidemill.store.maintenance import rollup_backfill
from tidemill.store.sql import dialect, identifiers

SCHEMA_VERSIONS = """
CREATE TABLE IF NOT EXISTS schema_versions (
    file VARCHAR(128) NOT NULL PRIMARY KEY,
    applied_at DATETIME(6) NOT NULL DEFAULT UTC_TIMESTAMP(6)
)
"""
"""What was applied to a control plane: its tables, recorded as ``control``, and each file of ``sql/upgrades``."""
BASE = "control"


def migrate_control(connection: Connection[Any], folder: Path) -> list[str]:
    """Create the control plane's tables, or upgrade those of an earlier version.

    A new schema gets the tables as ``sql/control`` describes them, and counts as upgraded. An existing one gets the
    files of ``sql/upgrades`` that it lacks, in order of name. A run that was interrupted is continued by the next one:
    each statement of ``sql/control`` creates a table only if it is missing.

    Args:
        connection: as the migrate account, in the control schema.
        folder: ``sql``, which holds ``control/`` (one table a file) and ``upgrades/`` (one statement a file).

    Returns:
        The names of the tables that were created and of the upgrades that were run.

    Raises:
        StoreError: the control plane is of a development version and cannot be upgraded; nothing was changed.
    """
    upgrades = sorted((folder / "upgrades").glob("*.sql"))
    with translated(), connection.cursor() as cursor:
        _refuse_development_schema(connection)
        _run(connection, SCHEMA_VERSIONS)
        cursor.execute("SELECT file FROM schema_versions")
        applied = {row[0] for row in cursor.fetchall()}
        if BASE in applied:
            missing = [path for path in upgrades if path.name not in applied]
            for path in missing:
                _run(connection, path.read_text(encoding="utf-8"))
                cursor.execute("INSERT INTO schema_versions (file) VALUES (%s)", (path.name,))
            return [path.name for path in missing]
        tables = sorted((folder / "control").glob("*.sql"))
        for path in tables:
            _run(connection, path.read_text(encoding="utf-8"))
        for name in (*(path.name for path in upgrades), BASE):  # the base last: without it this starts again
            cursor.execute("INSERT IGNORE INTO schema_versions (file) VALUES (%s)", (name,))
        return [path.stem for path in tables]


def _run(connection: Connection[Any], statement: str) -> None:
    with connection.cursor() as cursor:
        for sql in dialect_of(connection).control(statement):
            cursor.execute(sql)


def _refuse_development_schema(connection: Connection[Any]) -> None:
    """Refuse a control plane from before the first release, which recorded its versions in a table ``migrations``."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT DATABASE()")
        row = cursor.fetchone()
        schema = row[0] if row else None
        if _exists(connection, str(schema), "migrations"):
            raise StoreError("TM-STORE-DEVELOPMENT-SCHEMA", value=schema)


def planned_objects(settings: Settings, pipeline: Pipeline) -> dict[str, str]:
    """The statements that ``apply`` may run for a pipeline, by the name of the table or view that each creates."""
    schema, d = settings.db_data, dialect(settings.db_dialect)
    objects = {name: d.create_table(schema, name, table) for name, table in pipeline.tables.items()}
    for name in deletes_from(pipeline):
        objects[identifiers.deletion_markers(name)] = d.create_deletion_markers(schema, name, pipeline.tables[name])
    for name, rollup in pipeline.rollups.items():
        table = pipeline.tables[rollup.of]
        objects[name] = d.create_rollup(schema, name, rollup, table)
        objects[identifiers.rollup_cursor(name)] = d.create_rollup_cursor(schema, name, table)
    for model in pipeline.models.values():
        table = pipeline.tables[model.table]
        for scores in (model.score.table, identifiers.pending(model.score.table)):
            objects[scores] = d.create_scores(schema, scores, model, table)
    for name in {model.table: None for model in pipeline.models.values()}:
        objects[f"{name}_scored"] = d.create_scored_view(settings.db_control, schema, pipeline, name)
    return objects


def apply_pipeline(connection: Connection[Any], settings: Settings, pipeline: Pipeline) -> int:
    """Create what is missing for a pipeline and register its version.

    A table that exists with other columns is refused: this function never alters a table. A refused pipeline has no row
    in the control plane that it had not before.

    Args:
        connection: as the migrate account.
        settings: schemas.
        pipeline: checked.

    Returns:
        The pipeline's version: the existing one if the folder's content is what was applied last.

    Raises:
        StructureError: another pipeline owns a table, or a table exists that no pipeline owns.
        StoreError: a table exists with other columns.
    """
    schema = settings.db_data
    with translated(), connection.cursor() as cursor:
        # A rollup that is created with its table counts every row from the first; the next driver backfills any other.
        new = {name for name in pipeline.tables if not _exists(connection, schema, name)}
        ownership.check_claims(connection, settings, pipeline)
        for name in pipeline.rollups:
            _check_rollup(connection, schema, name, pipeline)
        for name in (name for name in pipeline.tables if name not in new):
            _check_columns(connection, schema, name, pipeline)
        objects = planned_objects(settings, pipeline)
        views = {f"{model.table}_scored" for model in pipeline.models.values()}
        ownership.claim(connection, settings, pipeline)
        for name in (name for name in objects if name not in views):
            cursor.execute(objects[name])
        live_tables.record_declared(connection, settings, {n: sql for n, sql in objects.items() if n not in views})
        live_tables.check_tables(connection, settings, pipeline)
        # After all that the database may refuse, so that a refused pipeline leaves no row in the control plane. Before
        # the views, which join this table: without a row for each model they would show no rows.
        for model in pipeline.models:
            cursor.execute("INSERT IGNORE INTO models (pipeline, model) VALUES (%s, %s)", (pipeline.name, model))
        for name in sorted(views):
            cursor.execute(objects[name])
        for name, rollup in pipeline.rollups.items():
            rollup_backfill.register(connection, pipeline, name, ready=rollup.of in new)
            rollup_backfill.restart_backfill(connection, schema, pipeline, name)
        rollup_backfill.abandon_undeclared(connection, pipeline)
        if pipeline_version(connection, pipeline) is None:
            # Content that was applied before the last version gets a new version, too: its rows are newer.
            cursor.execute(
                "INSERT INTO pipelines (pipeline, version, digest)"
                " SELECT %(name)s, COALESCE(MAX(version), 0) + 1, %(digest)s FROM pipelines WHERE pipeline = %(name)s",
                {"name": pipeline.name, "digest": pipeline.digest},
            )
    version = pipeline_version(connection, pipeline)
    assert version is not None  # registered above
    return version


def pipeline_version(connection: Connection[Any], pipeline: Pipeline) -> int | None:
    """The version a folder's content was applied as, or None if it is not what was applied last."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT version, digest FROM pipelines WHERE pipeline = %s ORDER BY version DESC LIMIT 1", (pipeline.name,)
        )
        row = cursor.fetchone()
    return int(row[0]) if row and row[1] == pipeline.digest else None


def _exists(connection: Connection[Any], schema: str, name: str) -> bool:
    return _comment(connection, schema, name) is not None


def _comment(connection: Connection[Any], schema: str, name: str) -> str | None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_comment FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
            (schema, name),
        )
        row = cursor.fetchone()
    return str(row[0]) if row else None


def _check_rollup(connection: Connection[Any], schema: str, name: str, pipeline: Pipeline) -> None:
    comment = _comment(connection, schema, name)
    if comment is not None and comment != identifiers.rollup_definition(pipeline.rollups[name]):
        raise StoreError("TM-STORE-ROLLUP-CHANGED", rollup=f"{schema}.{name}", value=comment)


def _check_columns(connection: Connection[Any], schema: str, name: str, pipeline: Pipeline) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
            (schema, name),
        )
        existing = [row[0] for row in cursor.fetchall()]
    comment, table = _comment(connection, schema, name), pipeline.tables[name]
    if comment and comment != identifiers.table_definition(table):
        value = f"{comment}, this is {identifiers.table_definition(table)}"
        raise StoreError("TM-STORE-TABLE-CHANGED", table=f"{schema}.{name}", value=value)
    declared = [*pipeline.tables[name].columns, *identifiers.SYSTEM_COLUMNS]
    if set(existing) != set(declared):
        differing = sorted(set(existing) ^ set(declared))
        raise StoreError("TM-STORE-COLUMNS-CHANGED", table=f"{schema}.{name}", value=", ".join(differing))
