"""The connection type ``tidemill``: known to Airflow, and good for its own SQL operators."""

import datetime as dt
import json
from contextlib import closing

import pytest
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import BaseHook
from sqlalchemy import text

from tidemill.airflow.hook import TidemillHook
from tidemill.config import Account, Settings
from tidemill.errors import ConfigError, DatabaseUnavailable
from tidemill.store.connection import dialect_of


@pytest.fixture
def hook(connections: Settings) -> TidemillHook:
    """The hook of the default connection."""
    return TidemillHook()


def test_airflow_finds_the_hook_by_the_connection_type(connections: Settings) -> None:
    """The package registers it by its entry point."""
    assert isinstance(BaseHook.get_hook("tidemill_db"), TidemillHook)


def test_airflows_own_operator_runs_a_query_through_it(connections: Settings) -> None:
    """Names of parameters are bound, never pasted."""
    operator = SQLExecuteQueryOperator(
        task_id="ask",
        conn_id="tidemill_db",
        sql="SELECT %(word)s AS word, CURRENT_USER() LIKE %(user)s AS mine",
        parameters={"word": "it's", "user": f"{connections.user(Account.STREAM)}@%"},
    )
    assert list(operator.execute({})) == [("it's", 1)]


def test_statements_of_one_run_are_one_transaction_unless_asked_otherwise(hook: TidemillHook) -> None:
    """Airflow switches the mode by the hook's methods."""
    connection = hook.get_conn()
    assert hook.get_autocommit(connection)
    hook.set_autocommit(connection, False)
    assert not hook.get_autocommit(connection)
    connection.close()


def test_rows_are_inserted_with_the_types_python_gave_them(hook: TidemillHook) -> None:
    """A time, bytes and None arrive as such, not as their text."""
    row = (dt.datetime(2026, 3, 1, 12, 30, 0, 250_000), b"\\x00'", None, 7)
    connection = hook.get_conn()
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE kept (at DATETIME(6), raw BLOB, nothing INT, number INT)")
        cells = [TidemillHook._serialize_cell(cell) for cell in row]
        cursor.execute("INSERT INTO kept VALUES (%s, %s, %s, %s)", cells)
        cursor.execute("SELECT * FROM kept")
        assert cursor.fetchone() == row
    connection.close()


def test_sessions_are_in_utc(hook: TidemillHook) -> None:
    """The control plane's times are."""
    assert hook.get_first("SELECT @@session.time_zone") == ("+00:00",)


def test_a_connection_knows_its_database(hook: TidemillHook) -> None:
    """MariaDB where the extra names no other: operators ask the connection for its statements."""
    with closing(hook.get_conn()) as connection:
        assert dialect_of(connection).name == "mariadb"


def test_sqlalchemy_reaches_the_same_schema_and_its_text_hides_the_password(
    hook: TidemillHook, connections: Settings
) -> None:
    """Libraries that want an engine get one."""
    with hook.get_sqlalchemy_engine().connect() as connection:
        assert connection.execute(text("SELECT DATABASE()")).scalar() == connections.db_control
    assert connections.password(Account.STREAM).get_secret_value() not in str(hook.sqlalchemy_url)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"port": 1}, DatabaseUnavailable),
        ({"password": "wrong"}, ConfigError),
        ({"extra": {"dialect": "postgres"}}, ConfigError),
    ],
    ids=["unavailable", "rejected", "unknown dialect"],
)
def test_a_connection_that_fails_has_a_typed_error(
    connections: Settings, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], error: type[Exception]
) -> None:
    """Unavailable is transient, rejected is not."""
    known = BaseHook.get_connection("tidemill_db")
    fields = ("conn_type", "host", "port", "schema", "login", "password")
    other = {name: getattr(known, name) for name in fields} | changes
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", json.dumps(other))
    with pytest.raises(error):
        TidemillHook("elsewhere").get_conn()
