"""What Airflow's connections hold: the database is in ``tidemill_db``, the cluster in ``spark_default``.

Tasks and triggers look a connection up through the task SDK, and Airflow's API server through its own models, so there
is one function for each.
"""

from __future__ import annotations

import ssl
from typing import Any, Protocol

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import ConfigError
from tidemill.store.connection import DatabaseConnection, translated
from tidemill.store.sql import dialect
from tidemill.supervisor import cluster
from tidemill.supervisor.cluster import Cluster

CONN_ID = "tidemill_db"
"""Id of the database's Airflow connection. Its account is the stream account."""


class ConnectionLike(Protocol):
    """The fields of an Airflow connection; the task SDK and the API server have a class each for it."""

    host: str | None
    port: int | None
    login: str | None
    password: str | None
    schema: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The ``extra`` field, decoded."""


def open_connection(target: ConnectionLike, *, schema: str | None = None) -> Connection[Any]:
    """Connect to the database that an Airflow connection names, in autocommit mode and UTC.

    The connection's ``extra`` turns TLS on with ``{"tls": true}``, and ``{"dialect": "mysql"}`` names another database
    than MariaDB.

    Raises:
        DatabaseUnavailable: the database cannot be reached.
        ConfigError: the database rejects the account, or the dialect is unknown.
    """
    tls = bool(target.extra_dejson.get("tls", False))
    with translated():
        return DatabaseConnection(
            dialect(str(target.extra_dejson.get("dialect", "mariadb"))),
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


def open_in_api_server() -> Connection[Any]:
    """Connect to the database from within Airflow's API server, with the stream account.

    Raises:
        DatabaseUnavailable: the database cannot be reached.
        ConfigError: Airflow has no such connection, or the database rejects its account.
    """
    # Only the API server needs Airflow's models, and loads them anyway.
    from airflow.models.connection import Connection as AirflowConnection  # noqa: PLC0415

    try:
        return open_connection(AirflowConnection.get_connection_from_secrets(CONN_ID))
    except AirflowNotFoundException:
        raise ConfigError("TM-AIRFLOW-CONNECTION-MISSING", value=CONN_ID) from None


def find_cluster(settings: Settings) -> Cluster:
    """The cluster that Airflow's connection ``spark_default`` names; without one, the settings' Spark master.

    Raises:
        StreamError: the connection asks for something that streams do not support.
    """
    try:
        target = BaseHook.get_connection(cluster.CONN_ID)
    except AirflowNotFoundException:  # and no other error: an Airflow that does not answer may well have a cluster
        return Cluster(settings.spark_master)
    return cluster.cluster_of(target)
