"""Errors of structure, grant or function: no record is quarantined because of them, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from support.databases import root
from support.writes import Writer
from tidemill.errors import StructureError
from tidemill.store.connection import drop_worker_connection

ROWS = [(1, "red", 10, 1), (2, "blue", 20, 1)]
LATER = [(1, "red", 11, 2), (3, "red", 30, 2), (4, "blue", 40, 2)]


@dataclass(frozen=True)
class Damage:
    """What somebody does to the database while a stream writes, and how it is undone."""

    breaks: str
    restores: str
    names: str
    """What the sentence names."""
    pipeline: Callable[[Writer], Any] | None = None
    """Another pipeline that the writer writes; None for its own."""


def counting_by(expression: str) -> Callable[[Writer], Any]:
    """The writer's pipeline with a rollup by another expression. ``check`` does not see it."""

    def change(writer: Writer) -> Any:
        rollup = writer.pipeline.rollups[writer.rollup]
        by = {"team": rollup.by["team"].model_copy(update={"expr": expression})}
        return writer.pipeline.model_copy(update={"rollups": {writer.rollup: rollup.model_copy(update={"by": by})}})

    return change


TABLE, ROLLUP = "{data}.t_{name}", "{data}.r_{name}"
DAMAGES = {
    "table": Damage(f"RENAME TABLE {TABLE} TO {TABLE}_gone", f"RENAME TABLE {TABLE}_gone TO {TABLE}", "t_{name}"),
    "column": Damage(
        f"ALTER TABLE {TABLE} RENAME COLUMN points TO gone",
        f"ALTER TABLE {TABLE} RENAME COLUMN gone TO points",
        "table t_{name}: ",
    ),
    "column without a default": Damage(
        f"ALTER TABLE {TABLE} ADD COLUMN more INT NOT NULL", f"ALTER TABLE {TABLE} DROP COLUMN more", "table t_{name}: "
    ),
    "rollup": Damage(f"RENAME TABLE {ROLLUP} TO {ROLLUP}_gone", f"RENAME TABLE {ROLLUP}_gone TO {ROLLUP}", "r_{name}"),
    "column of the rollup": Damage(
        f"ALTER TABLE {ROLLUP} RENAME COLUMN n TO gone",
        f"ALTER TABLE {ROLLUP} RENAME COLUMN gone TO n",
        "rollup r_{name}: ",
    ),
    "grant": Damage(
        "REVOKE INSERT ON {data}.* FROM {account}",
        "GRANT INSERT ON {data}.* TO {account}",
        "table t_{name}: ",
    ),
    "function": Damage(
        "DO 0",
        "CREATE FUNCTION {control}.one_for(t TEXT) RETURNS VARCHAR(8) DETERMINISTIC RETURN t;"
        " GRANT EXECUTE ON {control}.* TO {account}",
        "rollup r_{name}: ",
        counting_by("one_for(team)"),
    ),
    "view in place of the table": Damage(
        f"RENAME TABLE {TABLE} TO {TABLE}_gone; CREATE VIEW {TABLE} AS SELECT DISTINCT * FROM {TABLE}_gone",
        f"DROP VIEW {TABLE}; RENAME TABLE {TABLE}_gone TO {TABLE}",
        "table t_{name}: ",
    ),
    "trigger that refuses": Damage(
        f"CREATE TRIGGER {TABLE}_refuses BEFORE INSERT ON {TABLE} FOR EACH ROW SIGNAL SQLSTATE '45000'",
        f"DROP TRIGGER {TABLE}_refuses",
        "table t_{name}: ",
    ),
    "foreign key": Damage(
        f"CREATE TABLE {TABLE}_parent (id BIGINT NOT NULL PRIMARY KEY) SELECT id FROM {TABLE};"
        f"ALTER TABLE {TABLE} ADD CONSTRAINT no_orphans FOREIGN KEY (id) REFERENCES {TABLE}_parent (id)",
        f"ALTER TABLE {TABLE} DROP FOREIGN KEY no_orphans",
        "table t_{name}: ",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_structure_ends_the_stream_and_quarantines_nothing(entity: Writer, damage: Damage) -> None:
    """The sentence names what the author declared; restored, every record is written and counted once."""
    with entity.connection.cursor() as cursor:
        cursor.execute("SELECT CURRENT_USER()")
        [(account,)] = cursor.fetchall()
    names = {
        "name": entity.pipeline.name,
        "data": entity.settings.db_data,
        "control": entity.settings.db_control,
        "account": "@".join(f"'{part}'" for part in account.split("@")),
    }
    entity.write(ROWS)
    own = entity.pipeline
    with root(entity.settings) as run:
        entity.pipeline = damage.pipeline(entity) if damage.pipeline else own
        for statement in damage.breaks.format(**names).split(";"):
            run(statement)
        try:
            drop_worker_connection(entity.settings)
            with pytest.raises(StructureError) as raised:
                entity.write(LATER)
            assert damage.names.format(**names) in raised.value.sentence
            assert "_stage_" not in raised.value.sentence
        finally:
            for statement in damage.restores.format(**names).split(";"):
                run(statement)
            drop_worker_connection(entity.settings)
    assert entity.positions[0] == len(ROWS)
    entity.write(LATER)
    assert entity.rows() == [(1, "red", 11, 2), (2, "blue", 20, 1), (3, "red", 30, 2), (4, "blue", 40, 2)]
    assert entity.groups() == {"red": (2, 41), "blue": (2, 60)}
    refused = f"SELECT COUNT(*) FROM {entity.settings.db_control}.quarantine WHERE stream = '{own.name}'"
    assert entity.query(refused) == [(0,)]
    entity.pipeline = own
    assert entity.verify() == []
