"""The owner of each table and view of the operational schema: one pipeline, which the control plane records.

Two pipelines that wrote one table would count its rows twice in a rollup, and a replay of one would retract the rows of
the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import StructureError
from tidemill.spec.declared_objects import declared_objects
from tidemill.spec.schema import Pipeline
from tidemill.spec.tombstones import deletes_from
from tidemill.store.connection import translated
from tidemill.store.sql import identifiers


def objects_of(pipeline: Pipeline) -> dict[str, str]:
    """Every table and view of a pipeline -> its kind: table, rollup, scores, view or internal."""
    internal = [identifiers.deletion_markers(name) for name in deletes_from(pipeline)]
    internal += [identifiers.rollup_cursor(name) for name in pipeline.rollups]
    internal += [identifiers.pending(model.score.table) for model in pipeline.models.values()]
    return {**dict.fromkeys(internal, "internal"), **declared_objects(pipeline)}


def check_claims(connection: Connection[Any], settings: Settings, pipeline: Pipeline) -> None:
    """Check that a pipeline may own what it declares. It only reads.

    An owner whose object no longer exists has given it up. What exists without an owner belongs to the pipeline only if
    the pipeline was applied before owners were recorded.

    Raises:
        StructureError: an object has another owner, or exists and was not made by ``apply``.
    """
    objects = objects_of(pipeline)
    owners, existing = _owners(connection, objects), _existing(connection, settings.db_data, objects)
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM pipelines WHERE pipeline = %s", (pipeline.name,))
        (versions,) = cursor.fetchone() or (0,)
        cursor.execute("SELECT COUNT(*) FROM objects WHERE pipeline = %s", (pipeline.name,))
        (owned,) = cursor.fetchone() or (0,)
    is_known = bool(versions) and not owned
    for name, kind in objects.items():
        owner = owners.get(name)
        if name not in existing or owner == pipeline.name:
            continue
        if owner is not None:
            raise _owned(name, kind, owner)
        if not is_known:
            raise StructureError("TM-STORE-OBJECT-EXISTS", value=f"{settings.db_data}.{name}", kind=kind)


def claim(connection: Connection[Any], settings: Settings, pipeline: Pipeline) -> None:
    """Record a pipeline as the owner of what it declares; after :func:`check_claims`.

    Raises:
        StructureError: another pipeline has claimed an object at the same time.
    """
    objects = objects_of(pipeline)
    existing = _existing(connection, settings.db_data, objects)
    with translated(), connection.cursor() as cursor:
        gone = [(name, pipeline.name) for name in objects if name not in existing]
        cursor.executemany("DELETE FROM objects WHERE object = %s AND pipeline <> %s", gone)
        cursor.executemany(
            "INSERT IGNORE INTO objects (object, pipeline, kind) VALUES (%s, %s, %s)",
            [(name, pipeline.name, kind) for name, kind in objects.items()],
        )
    check_ownership(connection, pipeline)


def check_ownership(connection: Connection[Any], pipeline: Pipeline) -> None:
    """Check that no other pipeline owns what this one writes or retracts.

    Raises:
        StructureError: another pipeline owns an object.
    """
    objects = objects_of(pipeline)
    for name, owner in _owners(connection, objects).items():
        if owner != pipeline.name:
            raise _owned(name, objects[name], owner)


def _owned(name: str, kind: str, owner: str) -> StructureError:
    return StructureError("TM-STORE-OBJECT-OWNED", value=name, kind=kind, owner=owner)


def _owners(connection: Connection[Any], objects: Iterable[str]) -> dict[str, str]:
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT object, pipeline FROM objects WHERE object IN %s", (tuple(objects),))
        return {str(name): str(owner) for name, owner in cursor.fetchall()}


def _existing(connection: Connection[Any], schema: str, objects: Iterable[str]) -> set[str]:
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_name IN %s",
            (schema, tuple(objects)),
        )
        return {str(row[0]) for row in cursor.fetchall()}
