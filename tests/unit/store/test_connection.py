"""A connection and the dialect of its database. No server is asked."""

from pathlib import Path

import pytest
from pymysql.connections import Connection

from support.errors import coded
from tidemill import config
from tidemill.config import Account
from tidemill.errors import ConfigError
from tidemill.store.connection import DatabaseConnection, connect, dialect_of
from tidemill.store.sql import DIALECTS


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_a_session_begins_as_its_dialect_says(name: str) -> None:
    """Strictness, time zone, isolation and collation are the dialect's, and the connection knows which it is."""
    connection = DatabaseConnection(DIALECTS[name], defer_connect=True)
    assert dialect_of(connection).name == name
    assert connection.init_command == DIALECTS[name].session()
    assert connection.collation == DIALECTS[name].collation


def test_a_connection_that_does_not_know_its_database_is_no_use() -> None:
    """Nothing is guessed: statements for another database may mean another thing."""
    with pytest.raises(TypeError, match="was not made by DatabaseConnection"):
        dialect_of(Connection(defer_connect=True))


def test_an_unknown_dialect_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    """The error names the dialects that exist."""
    settings = config.load(
        {"TIDEMILL_STATE": str(tmp_path), "TIDEMILL_DB_DIALECT": "postgres", "TIDEMILL_DB_PORT": "1"}
    )
    with pytest.raises(ConfigError, check=coded("TM-STORE-UNKNOWN-DIALECT", value="postgres")):
        connect(settings, Account.READ)
