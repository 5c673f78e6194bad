"""The hook of the connection type ``tidemill``: PyMySQL underneath, no C library."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook
from pymysql.connections import Connection
from sqlalchemy.engine import URL

from tidemill.airflow.connections import CONN_ID, open_connection


class TidemillHook(DbApiHook):
    """Airflow's access to the operational database, for its own SQL operators and for Tidemill's."""

    conn_name_attr = "conn_id"
    default_conn_name = CONN_ID
    conn_type = "tidemill"
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
        """Turn autocommit on or off."""
        conn.autocommit(autocommit)

    def get_autocommit(self, conn: Connection[Any]) -> bool:
        """Whether each statement is a transaction of its own."""
        return bool(conn.get_autocommit())

    @property
    def sqlalchemy_url(self) -> URL:
        """The connection as an SQLAlchemy URL; its text form hides the password."""
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
        """Pass a value to PyMySQL as it is: PyMySQL converts each type itself."""
        return cell

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Labels and placeholders of the connection's form in Airflow."""
        extra = '{"tls": false, "dialect": "mariadb"}'
        return {"relabeling": {"schema": "Control schema"}, "placeholders": {"extra": extra}}
