"""Each table and view of the operational schema has one owner, whichever of its kinds it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.databases import root
from support.errors import coded
from support.writes import Writer, make_writer
from tidemill.config import Account, Settings
from tidemill.errors import SpecError, StructureError
from tidemill.spec import Pipeline
from tidemill.spec.declared_objects import refuse_shared
from tidemill.store.connection import session
from tidemill.store.migrations import apply_pipeline
from tidemill.store.ownership import check_ownership, objects_of
from tidemill.store.write.retract import retract_outdated


def renamed(writer: Writer, **objects: str) -> Pipeline:
    """The writer's pipeline under another name, with other names of its table and its rollup."""
    own = writer.pipeline
    name = f"{own.name}_second"
    table, rollup = objects.get("table", f"t_{name}"), objects.get("rollup", f"r_{name}")
    [declared] = own.rollups.values()
    return own.model_copy(
        update={
            "name": name,
            "digest": "another",
            "tables": {table: own.tables[writer.table]},
            "rollups": {rollup: declared.model_copy(update={"of": table})},
        }
    )


def applied(settings: Settings, pipeline: Pipeline) -> int:
    """The version that the pipeline is applied as."""
    with session(settings, Account.MIGRATE) as connection:
        return apply_pipeline(connection, settings, pipeline)


SHARED: dict[str, Callable[[Writer], dict[str, str]]] = {
    "table": lambda writer: {"table": writer.table},
    "rollup": lambda writer: {"rollup": writer.rollup},
    "rollup as a table": lambda writer: {"table": writer.rollup},
    "table as a rollup": lambda writer: {"rollup": writer.table},
    "both": lambda writer: {"table": writer.table, "rollup": writer.rollup},
}


@pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)
def test_a_second_owner_is_refused(entity: Writer, shared: Callable[[Writer], dict[str, str]]) -> None:
    """The sentence names the owner; nothing is made, counted or registered, and the owner goes on."""
    entity.write([(1, "red", 100, 1), (2, "red", 400, 1)])
    second = renamed(entity, **shared(entity))
    with pytest.raises(StructureError, check=coded("TM-STORE-OBJECT-OWNED", owner=entity.pipeline.name)):
        applied(entity.settings, second)
    for table in ("pipelines", "rollups", "objects"):
        rows = f"SELECT COUNT(*) FROM {entity.settings.db_control}.{table} WHERE pipeline = '{second.name}'"
        assert entity.query(rows) == [(0,)]
    assert entity.query(f"SHOW TABLES LIKE '%{second.name}%'") == []
    assert entity.groups() == {"red": (2, 500)}
    assert applied(entity.settings, entity.pipeline) == entity.version
    assert entity.verify() == []
    with pytest.raises(SpecError, check=coded("TM-SPEC-OBJECT-SHARED", owner=entity.pipeline.name)):
        refuse_shared([entity.pipeline, second])


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE {} (id INT)", "CREATE TABLE {} LIKE {}", "CREATE VIEW {} AS SELECT 1"]
)
@pytest.mark.parametrize("kind", ["table", "rollup"])
def test_a_table_that_apply_did_not_make_is_refused(entity: Writer, statement: str, kind: str) -> None:
    """Whatever its columns: somebody else writes it. Once it is gone, the pipeline is applied."""
    second = renamed(entity)
    name = next(iter(second.tables if kind == "table" else second.rollups))
    full, like = f"{entity.settings.db_data}.{name}", f"{entity.settings.db_data}.{entity.table}"
    with root(entity.settings) as run:
        run(statement.format(full, like))
        with pytest.raises(StructureError, check=coded("TM-STORE-OBJECT-EXISTS", value=full, kind=kind)):
            applied(entity.settings, second)
        run(f"DROP {'VIEW' if 'VIEW' in statement else 'TABLE'} {full}")
    assert applied(entity.settings, second) == 1


def test_what_its_owner_has_dropped_has_a_new_owner(mariadb: Settings, tmp_path: Path) -> None:
    """Dropped in the database, it is free; the former owner writes and retracts it no more."""
    former = make_writer(mariadb, tmp_path, "entity")
    second = renamed(former, table=former.table, rollup=former.rollup)
    with root(mariadb) as run:
        for name in objects_of(former.pipeline):
            run(f"DROP TABLE {mariadb.db_data}.{name}")
    assert applied(mariadb, second) == 1
    with session(mariadb, Account.STREAM) as connection:
        check_ownership(connection, second)
        context: Any = replace(former.write_context, replay_id=1)
        with pytest.raises(StructureError, check=coded("TM-STORE-OBJECT-OWNED", owner=second.name)):
            retract_outdated(connection, mariadb, former.pipeline, context, [], list)
    former.connection.close()


def test_a_pipeline_from_before_owners_were_recorded_keeps_its_tables(entity: Writer) -> None:
    """The upgrade knows no owners; the next apply records them."""
    with root(entity.settings) as run:
        own = f"{entity.settings.db_control}.objects WHERE pipeline = '{entity.pipeline.name}'"
        run(f"DELETE FROM {own}")
        assert applied(entity.settings, entity.pipeline) == entity.version
        assert run(f"SELECT COUNT(*) FROM {own}") == len(objects_of(entity.pipeline))


def test_two_folders_that_declare_one_object_are_refused_together(entity: Writer) -> None:
    """No server is asked; a pipeline beside itself, or beside one with names of its own, is right."""
    refuse_shared([entity.pipeline, renamed(entity), entity.pipeline])
    shared = coded("TM-SPEC-OBJECT-SHARED", value=entity.table, kind="table")
    with pytest.raises(SpecError, check=shared):
        refuse_shared([entity.pipeline, renamed(entity), renamed(entity, table=entity.table)])
