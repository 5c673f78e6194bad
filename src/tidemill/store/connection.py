"""Connections to the database, and the classification of its errors by number.

A Python worker of Spark processes many batches, so the connection of a worker is kept here, in a module of an installed
package, and not in the closure of a batch.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CR, ER

from tidemill.config import Account, Settings
from tidemill.errors import (
    ConfigError,
    Contention,
    DatabaseFull,
    DatabaseReadOnly,
    DatabaseUnavailable,
    StoreError,
    StructureError,
    TidemillError,
)
from tidemill.store.sql import Dialect, dialect
from tidemill.store.structure_errors import GRANTS, STRUCTURE, as_declared

# Numbers of MariaDB and MySQL unless a comment names another database; the client's own are 2000 to 2100.
_UNAVAILABLE = {
    CR.CR_CONNECTION_ERROR,
    CR.CR_CONN_HOST_ERROR,
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_HANDSHAKE_ERR,
    CR.CR_SERVER_LOST,
    CR.CR_COMMANDS_OUT_OF_SYNC,
    CR.CR_MALFORMED_PACKET,
    CR.CR_SERVER_LOST_EXTENDED,
    # No connection, thread or memory left for another client.
    ER.CON_COUNT_ERROR,
    ER.OUTOFMEMORY,
    ER.OUT_OF_RESOURCES,
    ER.CANT_CREATE_THREAD,
    ER.TOO_MANY_USER_CONNECTIONS,
    ER.USER_LIMIT_REACHED,
    # Shutting down, or an administrator ended the connection or its statement.
    ER.SERVER_SHUTDOWN,
    ER.NORMAL_SHUTDOWN,
    ER.SHUTDOWN_COMPLETE,
    ER.FORCING_CLOSE,
    ER.QUERY_INTERRUPTED,
    1927,  # MariaDB: connection was killed
    1969,  # MariaDB: max_statement_time
    3024,  # MySQL: max_execution_time
    3032,  # MySQL: offline mode
    3168,  # MySQL: not available
    3169,  # MySQL: session was killed
    4031,  # MySQL: disconnected for inactivity
    # The network connection broke, as the server saw it.
    ER.ABORTING_CONNECTION,
    ER.NEW_ABORTING_CONNECTION,
    ER.NET_READ_ERROR_FROM_PIPE,
    ER.NET_FCNTL_ERROR,
    ER.NET_PACKETS_OUT_OF_ORDER,
    ER.NET_READ_ERROR,
    ER.NET_READ_INTERRUPTED,
    ER.NET_ERROR_ON_WRITE,
    ER.NET_WRITE_INTERRUPTED,
    ER.UNKNOWN_COM_ERROR,  # Galera: the node is not part of its cluster at present
    *(9001, 9002, 9003, 9004, 9005),  # TiDB: placement driver or storage unreachable, busy, or without a region
}
_READ_ONLY_MODE = 1836
_READ_ONLY = {1792, _READ_ONLY_MODE}  # 1792: a read-only transaction
_FULL = {
    20,  # the server's own file layer: disk full
    ER.DISK_FULL,
    ER.RECORD_FILE_FULL,
    ER.LOCK_TABLE_FULL,
    1878,  # a temporary file could not be written
    3019,  # MySQL: undo log full
}
_FILE_LAYER = {1, 2, 3, ER.ERROR_ON_WRITE, ER.GET_ERRNO}
"""Any error of the server's file layer; that no space is left is only in the text, as an errno."""
_NO_SPACE = re.compile(r"(?:error|errno|errcode):? (?:28|122)\b", re.IGNORECASE)  # ENOSPC, EDQUOT
_CONTENTION = {
    ER.LOCK_DEADLOCK,
    ER.LOCK_WAIT_TIMEOUT,
    ER.CHECKREAD,  # MariaDB with innodb_snapshot_isolation: the row changed since the transaction's snapshot
    1637,  # too many transactions at once
    ER.TABLE_DEF_CHANGED,  # since the transaction's snapshot
    *(8002, 8022, 8028, 9007),  # TiDB: rolled back for a conflict of writes or a change of the schema
}
_DENIED = {
    ER.ACCESS_DENIED_ERROR,
    ER.DBACCESS_DENIED_ERROR,
    ER.HOST_NOT_PRIVILEGED,
    1698,  # the account may not log in with a password
}


class DatabaseConnection(Connection):
    """A connection that knows the dialect of its database; in autocommit mode, UTC, READ COMMITTED, strict."""

    def __init__(self, dialect: Dialect, **options: Any) -> None:
        """Connect with PyMySQL's ``options``; raises PyMySQL's own errors."""
        self.dialect = dialect
        super().__init__(
            charset="utf8mb4",
            # Expressions compare as the tables do: by bytes, trailing blanks included.
            collation=dialect.collation,
            autocommit=True,
            connect_timeout=10,
            init_command=dialect.session(),
            **options,
        )


def dialect_of(connection: Connection[Any]) -> Dialect:
    """The dialect of the database of a connection.

    Raises:
        TypeError: the connection was not made by :class:`DatabaseConnection`.
    """
    if isinstance(connection, DatabaseConnection):
        return connection.dialect
    raise TypeError(f"{connection!r} was not made by DatabaseConnection")


def connect(settings: Settings, account: Account, *, schema: str | None = None) -> Connection[Any]:
    """Open a connection in autocommit mode, UTC, READ COMMITTED and strict.

    Args:
        settings: where the database is.
        account: which account to log in with.
        schema: default schema; the control plane's if None.

    Raises:
        DatabaseUnavailable: it cannot be reached.
        ConfigError: it denies access to the account, or there is no such dialect.
    """
    with translated():
        connection = DatabaseConnection(
            dialect(settings.db_dialect),
            host=settings.db_host,
            port=settings.db_port,
            user=settings.user(account),
            password=settings.password(account).get_secret_value(),
            database=schema or settings.db_control,
            local_infile=True,
            ssl=ssl.create_default_context() if settings.db_tls else None,
            ssl_disabled=not settings.db_tls,
        )
    _detect_dead_server(connection)
    return connection


def _detect_dead_server(connection: Connection[Any]) -> None:
    """Let the kernel close a connection whose server disappeared without closing it, within a minute.

    TCP keepalive asks the server's kernel and not the server, so a statement may take as long as it needs.
    """
    tcp: socket.socket | None = getattr(connection, "_sock", None)
    if tcp is None or tcp.family not in (socket.AF_INET, socket.AF_INET6):
        return
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        if hasattr(socket, option):  # Linux has all of them, other systems some
            tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


# Probe after 20 s without a byte, then every 10 s, four times. TCP_USER_TIMEOUT does the same for unacknowledged bytes.
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 60_000}


@contextmanager
def session(settings: Settings, account: Account, *, schema: str | None = None) -> Iterator[Connection[Any]]:
    """A connection for the length of a block."""
    connection = connect(settings, account, schema=schema)
    try:
        with translated():
            yield connection
    finally:
        close(connection)


def close(connection: Connection[Any]) -> None:
    """Close a connection, whatever state it is in."""
    if connection.open:
        try:
            connection.close()
        except pymysql.Error:  # it broke while it was being closed
            connection._force_close()  # type: ignore[attr-defined]


@contextmanager
def translated() -> Iterator[None]:
    """Translate PyMySQL's errors into errors of :mod:`tidemill.errors`, by number.

    The text decides only where one number has several meanings: 1290 is any option that prevents a statement, and the
    numbers of the server's file layer are any error of a file.

    Raises:
        DatabaseUnavailable: transient; the outcome of a running statement is unknown.
        DatabaseReadOnly: transient; nothing was written, and a new connection may reach another server.
        DatabaseFull: transient; nothing was written. The transaction is still open.
        Contention: transient. After a deadlock the transaction is rolled back; after a lock-wait time-out only its
            last statement is, so the caller rolls back.
        ConfigError: the account may not log in, or may not use the schema.
        StructureError: a table, column, function, grant or trigger is missing or in the way; no record is at fault.
        StoreError: the database refuses the statement for any other reason.
    """
    try:
        yield
    except pymysql.Error as error:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        text = str(error.args[1]) if len(error.args) > 1 else str(error)
        # PyMySQL's own «packet sequence» and «closed» errors carry no number.
        broken = not number and isinstance(error, pymysql.InterfaceError | pymysql.InternalError)
        raise _translate(CR.CR_SERVER_LOST if broken else number, text) from error


@contextmanager
def naming(declared: str) -> Iterator[None]:
    """Let an error of structure begin with the table or rollup that the author declared, unless it has a name already.

    Args:
        declared: such as ``rollup delays_by_hour``; the database's message may name only a column.
    """
    try:
        yield
    except StructureError as error:
        if not str(error.value).startswith(("table ", "rollup ")):
            error.value = f"{declared}: {error.value}"
        raise


def _translate(number: int, text: str) -> TidemillError:
    if number == ER.OPTION_PREVENTS_STATEMENT and "read-only" in text:
        number = _READ_ONLY_MODE
    if number in _FILE_LAYER and _NO_SPACE.search(text):
        number = ER.DISK_FULL
    value = f"{number}: {as_declared(text)}"
    if number in _DENIED:
        return ConfigError("TM-STORE-ACCESS-DENIED", value=text)
    for numbers, kind, code in _STORE_ERRORS:
        if number in numbers:
            return kind(code, value=value)
    return StoreError("TM-STORE-STATEMENT-REFUSED", value=value)


_STORE_ERRORS: tuple[tuple[set[int], type[StoreError], str], ...] = (
    (_CONTENTION, Contention, "TM-STORE-CONTENTION"),
    (_READ_ONLY, DatabaseReadOnly, "TM-STORE-READ-ONLY"),
    (_UNAVAILABLE, DatabaseUnavailable, "TM-STORE-UNAVAILABLE"),
    (_FULL, DatabaseFull, "TM-STORE-FULL"),
    (GRANTS, StructureError, "TM-STORE-GRANT-MISSING"),
    (STRUCTURE, StructureError, "TM-STORE-STRUCTURE"),
)
"""No number is in two of the sets."""


_worker_connections: dict[tuple[str, int, str], Connection[Any]] = {}


def worker_connection(settings: Settings) -> Connection[Any]:
    """This process's own connection for writing rows, opened once and opened again after it was lost."""
    server = (settings.db_host, settings.db_port, settings.user(Account.STREAM))
    connection = _worker_connections.get(server)
    if connection is None or not connection.open:
        connection = _worker_connections[server] = connect(settings, Account.STREAM)
    return connection


def drop_worker_connection(settings: Settings) -> None:
    """Close this process's connection after it failed; the next caller opens another one."""
    connection = _worker_connections.pop((settings.db_host, settings.db_port, settings.user(Account.STREAM)), None)
    if connection is not None:
        close(connection)
