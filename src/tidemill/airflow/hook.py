"""The database as an Airflow connection: type ``tidemill``, PyMySQL underneath, no C library."""

from __future__ import annotations

import ssl
from typing import Any, Protocol

from airflow.providers.common.sql.hooks.sql import DbApiHook
from pymysql.connections import Connection
from sqlalchemy.engine import URL

from tidemill.store.connection import DatabaseConnection, translated
from tidemill.store.sql import dialect

CONN_ID = "tidemill_db"
"""The connection that everything of ours in Airflow uses. Its account is the stream account."""
CONN_TYPE = "tidemill"


class ConnectionLike(Protocol):
    """What an Airflow connection says; the task SDK and the server have a class each for it."""

    host: str | None
    port: int | None
    login: str | None
    password: str | None
    schema: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The ``extra`` field, decoded."""


def open_connection(target: ConnectionLike, *, schema: str | None = None) -> Connection[Any]:
    """Connect as an Airflow connection says, in autocommit mode and UTC.

    In its extra ``{"tls": true}`` asks for TLS, and ``{"dialect": "mysql"}`` names another database than MariaDB.

    Raises:
        DatabaseUnavailable: it cannot be reached.
        ConfigError: it refuses the account, or there is no such dialect.
    """
    tls = bool(target.extra_dejson.get("tls", False))
    spoken = dialect(str(target.extra_dejson.get("dialect", "mariadb")))
    with translated():
        return DatabaseConnection(
            spoken,
            host=target.host or "127.0.0.1",
            port=target.port or 3306,
            user=target.login,
            password=target.password or "",
            database=schema or target.schema or None,
            read_timeout=60,
            write_timeout=60,
            ssl=ssl.create_default_context() if tls else None,
            ssl_disabled=not tls,
        )


class TidemillHook(DbApiHook):
    """Airflow's way to the operational database, for its SQL operators and for ours."""

    conn_name_attr = "conn_id"
    default_conn_name = CONN_ID
    conn_type = CONN_TYPE
    hook_name = "Tidemill database"
    supports_autocommit = True
    supports_executemany = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._schema: str | None = kwargs.get("schema")

    def get_conn(self) -> Connection[Any]:
        """A new connection, in autocommit mode."""
        return open_connection(self.connection, schema=self._schema)

    def set_autocommit(self, conn: Connection[Any], autocommit: bool) -> None:
        """As the connection's method does."""
        conn.autocommit(autocommit)

    def get_autocommit(self, conn: Connection[Any]) -> bool:
        """Whether each statement is a transaction of its own."""
        return bool(conn.get_autocommit())

    @property
    def sqlalchemy_url(self) -> URL:
        """The connection as SQLAlchemy writes it; its text form hides the password."""
        target = self.connection
        return URL.create(
            "mysql+pymysql",
            username=target.login,
            password=target.password,
            host=target.host,
            port=target.port,
            database=self._schema or target.schema,
        )

    def get_uri(self) -> str:
        """The connection as a URL, password included: for libraries, never for a log."""
        return self.sqlalchemy_url.render_as_string(hide_password=False)

    @staticmethod
    def _serialize_cell(cell: Any, conn: Any = None) -> Any:
        """Cells go to PyMySQL as they are; it knows how to write each type."""
        return cell

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """What the connection's form shows."""
        extra = '{"tls": false, "dialect": "mariadb"}'
        return {"relabeling": {"schema": "Control schema"}, "placeholders": {"extra": extra}}
