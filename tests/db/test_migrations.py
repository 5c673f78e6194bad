"""The control plane is created once and upgraded from there on; an interrupted run is continued by the next one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from support.databases import empty_control_schema
from support.errors import coded
from tidemill.config import Account, Settings
from tidemill.errors import StoreError
from tidemill.store.connection import session
from tidemill.store.migrations import BASE, migrate_control

UPGRADES = {
    "0001_note.sql": "-- Why.\nALTER TABLE topics\n    ADD COLUMN IF NOT EXISTS note VARCHAR(8) NULL",
    "0002_index.sql": "ALTER TABLE topics ADD INDEX IF NOT EXISTS by_note (note)",
}


@contextmanager
def fresh(settings: Settings) -> Iterator[Connection[Any]]:
    """A connection as the migrate account to an empty control schema."""
    with empty_control_schema(settings) as own, session(own, Account.MIGRATE) as connection:
        yield connection


@pytest.fixture
def folder(mariadb: Settings, tmp_path: Path) -> Path:
    """A folder of SQL with three tables and no upgrade."""
    (tmp_path / "sql" / "control").mkdir(parents=True)
    (tmp_path / "sql" / "upgrades").mkdir()
    for name in ("offsets", "streams", "topics"):
        shutil.copy(mariadb.root / "sql" / "control" / f"{name}.sql", tmp_path / "sql" / "control")
    return tmp_path / "sql"


def add_upgrades(folder: Path) -> None:
    """A later version of the product has upgrades."""
    for name, statement in UPGRADES.items():
        (folder / "upgrades" / name).write_text(statement)


def query(connection: Connection[Any], statement: str) -> list[Any]:
    """The first column of the rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return [row[0] for row in cursor.fetchall()]


def state(connection: Connection[Any]) -> tuple[list[str], list[str], list[str]]:
    """Tables, what is recorded as applied, and the columns and indexes of ``topics``."""
    tables = sorted(query(connection, "SHOW TABLES"))
    applied = sorted(query(connection, "SELECT file FROM schema_versions")) if "schema_versions" in tables else []
    shape = "topics" in tables and [*query(connection, "DESCRIBE topics"), *indexes(connection)]
    return tables, applied, shape or []


def indexes(connection: Connection[Any]) -> list[str]:
    """The names of the indexes of ``topics``."""
    return query(
        connection,
        "SELECT DISTINCT index_name FROM information_schema.statistics"
        " WHERE table_schema = DATABASE() AND table_name = 'topics'",
    )


class Interrupted(Exception):
    """What ends a run before one of its statements."""


@contextmanager
def interrupted_before(connection: Connection[Any], number: int) -> Iterator[None]:
    """The run inside the block ends before the statement of this number, counted from 1."""
    sent = 0

    class Interrupting(Cursor):
        def execute(self, query: Any, args: Any = None) -> Any:
            nonlocal sent
            sent += 1
            if sent == number:
                raise Interrupted
            return super().execute(query, args)

    connection.cursorclass = Interrupting
    try:
        yield
    finally:
        connection.cursorclass = Cursor


def test_a_new_schema_gets_every_table_once(mariadb: Settings) -> None:
    """The tables are those of ``sql/control``; a second run changes nothing."""
    sql = mariadb.root / "sql"
    names = sorted(path.stem for path in (sql / "control").glob("*.sql"))
    upgrades = sorted(path.name for path in (sql / "upgrades").glob("*.sql"))
    with fresh(mariadb) as connection:
        assert migrate_control(connection, sql) == names
        tables, applied, _ = state(connection)
        assert tables == sorted([*names, "schema_versions"])
        assert applied == sorted([*upgrades, BASE])
        assert migrate_control(connection, sql) == []


def test_an_upgrade_that_is_added_later_runs_once(mariadb: Settings, folder: Path) -> None:
    """On a schema that was created before it; a new schema counts as upgraded."""
    with fresh(mariadb) as connection:
        assert migrate_control(connection, folder) == ["offsets", "streams", "topics"]
        before = state(connection)
        add_upgrades(folder)
        assert migrate_control(connection, folder) == list(UPGRADES)
        tables, applied, shape = state(connection)
        assert (tables, applied) == (before[0], sorted([*UPGRADES, BASE]))
        assert {*shape} - {*before[2]} == {"note", "by_note"}
        assert migrate_control(connection, folder) == []
    with fresh(mariadb) as connection:
        assert migrate_control(connection, folder) == ["offsets", "streams", "topics"]
        assert state(connection)[:2] == (before[0], sorted([*UPGRADES, BASE]))
        assert migrate_control(connection, folder) == []


@pytest.mark.parametrize("later", [False, True], ids=["new", "upgraded"])
def test_a_run_that_was_interrupted_is_continued(mariadb: Settings, folder: Path, later: bool) -> None:
    """Before whichever statement it ends: the next run leaves what an undisturbed one leaves."""
    add_upgrades(folder)
    base = folder.parent / "base"
    shutil.copytree(folder, base)
    for name in UPGRADES:
        (base / "upgrades" / name).unlink()
    with fresh(mariadb) as connection:
        if later:
            migrate_control(connection, base)
        migrate_control(connection, folder)
        expected = state(connection)
    point, done = 0, False
    while not done:
        point += 1
        with fresh(mariadb) as connection:
            if later:
                migrate_control(connection, base)
            try:
                with interrupted_before(connection, point):
                    migrate_control(connection, folder)
                done = True
            except Interrupted:
                migrate_control(connection, folder)
            assert state(connection) == expected, f"interrupted before statement {point}"
            assert migrate_control(connection, folder) == []
    assert point > 8  # the run was interrupted, and before each of its statements


def test_a_development_version_is_refused_and_left_alone(mariadb: Settings) -> None:
    """Its tables have other columns; the error names the schema and what to do."""
    with empty_control_schema(mariadb) as own, session(own, Account.MIGRATE) as connection:
        for statement in (
            "CREATE TABLE migrations (name VARCHAR(128) NOT NULL PRIMARY KEY)",
            "CREATE TABLE streams (stream VARCHAR(128) NOT NULL PRIMARY KEY, wanted VARCHAR(8) NOT NULL)",
            "INSERT INTO migrations VALUES ('0001_streams.sql')",
        ):
            connection.cursor().execute(statement)
        before = [query(connection, f"SHOW CREATE TABLE {name}") for name in query(connection, "SHOW TABLES")]
        with pytest.raises(StoreError, check=coded("TM-STORE-DEVELOPMENT-SCHEMA", value=own.db_control)) as caught:
            migrate_control(connection, mariadb.root / "sql")
        assert "TIDEMILL_DB_CONTROL" in str(caught.value)
        assert query(connection, "SHOW TABLES") == ["migrations", "streams"]
        assert before == [query(connection, f"SHOW CREATE TABLE {name}") for name in query(connection, "SHOW TABLES")]
        assert query(connection, "SELECT name FROM migrations") == ["0001_streams.sql"]
