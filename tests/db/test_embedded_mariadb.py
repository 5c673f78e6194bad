"""The embedded MariaDB: its settings and what each account may do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pymysql
import pytest
from pymysql.cursors import Cursor

from tidemill.config import Account, Settings
from tidemill.devstack import control, jars
from tidemill.devstack.servers import mariadb as server
from tidemill.devstack.stack import Stack
from tidemill.errors import SetupError

TABLE_ACCESS_DENIED = 1142
DATABASE_ACCESS_DENIED = 1044
LOGIN_DENIED = 1045


def connect(settings: Settings, user: str, password: str, schema: str | None = None) -> pymysql.Connection[Cursor]:
    """A connection that commits each statement."""
    return pymysql.connect(
        host="127.0.0.1",
        port=settings.db_port,
        user=user,
        password=password,
        database=schema,
        autocommit=True,
        ssl_disabled=True,
    )


def run(settings: Settings, account: Account, statement: str) -> tuple[tuple[object, ...], ...]:
    """Run one statement in the schema of the operational tables as one account."""
    password = settings.password(account).get_secret_value()
    with (
        connect(settings, settings.user(account), password, settings.db_data) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
        return tuple(cursor.fetchall())


@pytest.fixture
def table(mariadb: Settings) -> Iterator[str]:
    """A table that the migrate account has made."""
    run(mariadb, Account.MIGRATE, "CREATE TABLE privileges (id INT PRIMARY KEY, name VARCHAR(10))")
    yield "privileges"
    run(mariadb, Account.MIGRATE, "DROP TABLE privileges")


def test_stream_writes_rows_and_makes_temporary_tables(mariadb: Settings, table: str) -> None:
    """The stream account can do what a commit needs, bulk load and temporary tables included."""
    password = mariadb.password(Account.STREAM).get_secret_value()
    with (
        connect(mariadb, mariadb.user(Account.STREAM), password, mariadb.db_data) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"CREATE TEMPORARY TABLE staged LIKE {table}")
        cursor.execute("INSERT INTO staged VALUES (1, 'one'), (2, 'two')")
        cursor.execute(f"INSERT INTO {table} SELECT * FROM staged ON DUPLICATE KEY UPDATE id = {table}.id")
        cursor.execute(f"UPDATE staged s STRAIGHT_JOIN {table} t ON t.id = s.id SET t.name = 'uno' WHERE t.id = 1")
        cursor.execute(f"DELETE FROM {table} WHERE id = 2")
        cursor.execute("TRUNCATE staged")
        cursor.execute("DROP TEMPORARY TABLE staged")
        cursor.execute("SELECT @@local_infile")
        assert cursor.fetchone() == (1,)
    assert run(mariadb, Account.READ, f"SELECT * FROM {table}") == ((1, "uno"),)


@pytest.mark.parametrize(
    ("account", "statement", "refusal"),
    [
        (Account.STREAM, "CREATE TABLE more (id INT)", TABLE_ACCESS_DENIED),
        (Account.STREAM, "ALTER TABLE privileges ADD COLUMN more INT", TABLE_ACCESS_DENIED),
        (Account.STREAM, "DROP TABLE privileges", TABLE_ACCESS_DENIED),
        (Account.READ, "INSERT INTO privileges VALUES (1, 'one')", TABLE_ACCESS_DENIED),
        (Account.READ, "UPDATE privileges SET name = 'x'", TABLE_ACCESS_DENIED),
        (Account.READ, "DELETE FROM privileges", TABLE_ACCESS_DENIED),
        (Account.READ, "CREATE TEMPORARY TABLE more (id INT)", DATABASE_ACCESS_DENIED),
        (Account.READ, "SELECT * FROM mysql.global_priv", TABLE_ACCESS_DENIED),
        (Account.MIGRATE, "CREATE DATABASE another", DATABASE_ACCESS_DENIED),
    ],
)
def test_accounts_may_do_no_more_than_they_need(
    mariadb: Settings, table: str, account: Account, statement: str, refusal: int
) -> None:
    """What an account does not need, the server refuses it."""
    with pytest.raises(pymysql.err.MySQLError) as error:
        run(mariadb, account, statement)
    assert error.value.args[0] == refusal


@pytest.mark.parametrize("user", ["root", "", "tidemill_stream"])
def test_nobody_gets_in_without_a_password(mariadb: Settings, user: str) -> None:
    """The accounts without a password that a new server has are gone."""
    with pytest.raises(pymysql.err.OperationalError) as error:
        connect(mariadb, user, "")
    assert error.value.args[0] == LOGIN_DENIED


def test_sessions_start_as_the_write_path_expects(mariadb: Settings) -> None:
    """READ COMMITTED, UTC, strict, and a commit that is on the disk when it is answered."""
    [found] = run(
        mariadb,
        Account.STREAM,
        "SELECT @@tx_isolation, @@time_zone, @@sql_mode LIKE '%STRICT_TRANS_TABLES%',"
        " @@innodb_flush_log_at_trx_commit, @@log_bin, @@collation_database, @@character_set_database",
    )
    assert found == ("READ-COMMITTED", "+00:00", 1, 1, 0, "utf8mb4_nopad_bin", "utf8mb4")


def test_server_starts_again_with_its_rows_and_with_new_passwords(own: Settings) -> None:
    """Lost secrets are made anew and given to the accounts at the next start; the rows are still there."""
    with Stack(own, parts=["mariadb"]) as stack:
        stack.start()
        run(own, Account.MIGRATE, "CREATE TABLE kept AS SELECT 7 AS seven")
        old = own.password(Account.READ).get_secret_value()
    own.secrets_file.unlink()
    with Stack(own, parts=["mariadb"]) as stack:
        stack.start()
        assert run(own, Account.READ, "SELECT seven FROM kept") == ((7,),)
        with pytest.raises(pymysql.err.OperationalError):
            connect(own, own.user(Account.READ), old)


def test_interrupted_initialisation_is_done_again(own: Settings) -> None:
    """A data folder that was being made when the machine stopped is made anew, not taken for a whole one."""
    half = own.state / "mariadb" / "data.new" / "mysql"
    half.mkdir(parents=True)
    (half / "global_priv.MAD").write_text("half")
    with Stack(own, parts=["mariadb"]) as stack:
        stack.start()
        assert run(own, Account.READ, "SELECT 1") == ((1,),)


def test_server_that_cannot_start_says_why(own: Settings) -> None:
    """A setting that the server refuses comes out as its own error line, and nothing is left running."""
    own = own.model_copy(update={"db_buffer_pool": "plenty"})
    with pytest.raises(SetupError, match=r"mariadb ended with exit code \d+ while it started: .*buffer_pool_size"):
        Stack(own, parts=["mariadb"]).start()
    assert control.components(own) == {}


@pytest.mark.full
def test_a_newer_server_on_the_path_makes_and_serves_the_data(
    own: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack whose embedded server is older runs the one of the PATH, and goes on with it at its next start. No newer
    one can be had everywhere, so the same binary is on the PATH, and what counts as embedded is one release older."""
    base = server.unpack(jars.part(own, "db")[0], own.state)
    shutil.copytree(base, tmp_path / "other")
    monkeypatch.setenv("PATH", f"{tmp_path / 'other' / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(server, "EMBEDDED", (11, 4, 4))
    for _ in range(2):
        with Stack(own, parts=["mariadb"]) as stack:
            stack.start()
            process = psutil.Process(stack.children["mariadb"].pid)
            assert process.exe() == str(tmp_path / "other" / "bin" / "mariadbd")
            assert run(own, Account.READ, "SELECT 1") == ((1,),)
    assert (own.state / "mariadb" / "series").read_text() == "11.4"
