"""The database from within Airflow's API server, which looks connections up otherwise than a task does."""

from __future__ import annotations

from typing import Any

from airflow.models.connection import Connection as AirflowConnection
from airflow.sdk.exceptions import AirflowNotFoundException
from pymysql.connections import Connection

from tidemill.airflow.hook import CONN_ID, open_connection
from tidemill.errors import ConfigError


def server_connection() -> Connection[Any]:
    """As the account that may write wishes. Airflow's connection has it, on whatever machine the server runs.

    Raises:
        DatabaseUnavailable: it cannot be reached.
        ConfigError: Airflow has no such connection, or the database refuses its account.
    """
    try:
        return open_connection(AirflowConnection.get_connection_from_secrets(CONN_ID))
    except AirflowNotFoundException:
        raise ConfigError("Airflow has no such connection", value=CONN_ID, remedy="see docs/guide/airflow.md") from None
