"""Connections to the database, and its errors classed by number.

A Python worker of Spark lives through many batches, so the connection of a worker is kept here, in a module of an
installed package, and not in the closure of a batch.
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
    TidemillError,
)
from tidemill.store.sql import Dialect, dialect

# Numbers of MariaDB and MySQL unless a comment says otherwise; the client's own are 2000 to 2100.
_AWAY = {
    CR.CR_CONNECTION_ERROR,
    CR.CR_CONN_HOST_ERROR,
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_HANDSHAKE_ERR,
    CR.CR_SERVER_LOST,
    CR.CR_COMMANDS_OUT_OF_SYNC,
    CR.CR_MALFORMED_PACKET,
    CR.CR_SERVER_LOST_EXTENDED,
    # Full of connections, or out of threads or memory for one more.
    ER.CON_COUNT_ERROR,
    ER.OUTOFMEMORY,
    ER.OUT_OF_RESOURCES,
    ER.CANT_CREATE_THREAD,
    ER.TOO_MANY_USER_CONNECTIONS,
    ER.USER_LIMIT_REACHED,
    # Going down, or told to end this connection or its statement.
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
    # The line between us broke, as the server saw it.
    ER.ABORTING_CONNECTION,
    ER.NEW_ABORTING_CONNECTION,
    ER.NET_READ_ERROR_FROM_PIPE,
    ER.NET_FCNTL_ERROR,
    ER.NET_PACKETS_OUT_OF_ORDER,
    ER.NET_READ_ERROR,
    ER.NET_READ_INTERRUPTED,
    ER.NET_ERROR_ON_WRITE,
    ER.NET_WRITE_INTERRUPTED,
    ER.UNKNOWN_COM_ERROR,  # Galera: the node is not part of its cluster at the moment
    *(9001, 9002, 9003, 9004, 9005),  # TiDB: placement driver or storage out of reach, busy, or without a region
}
_READ_ONLY = {1792, 1836}  # a read-only transaction, read-only mode
_FULL = {
    20,  # the server's own file layer: disk full
    ER.DISK_FULL,
    ER.RECORD_FILE_FULL,
    ER.LOCK_TABLE_FULL,
    1878,  # a temporary file could not be written
    3019,  # MySQL: undo log full
}
_FILE_LAYER = {1, 2, 3, ER.ERROR_ON_WRITE, ER.GET_ERRNO}
"""The server's file layer says no more by its number; that there is no space left stands in the text, as an errno."""
_NO_SPACE = re.compile(r"(?:error|errno|errcode):? (?:28|122)\b", re.IGNORECASE)  # ENOSPC, EDQUOT
_CONTENTION = {
    ER.LOCK_DEADLOCK,
    ER.LOCK_WAIT_TIMEOUT,
    ER.CHECKREAD,  # MariaDB with innodb_snapshot_isolation: the row changed since the transaction's snapshot
    1637,  # too many transactions at once
    *(8002, 8022, 8028, 9007),  # TiDB: rolled back for a conflict of writes or a change of the schema
}
_DENIED = {
    ER.ACCESS_DENIED_ERROR,
    ER.DBACCESS_DENIED_ERROR,
    ER.TABLEACCESS_DENIED_ERROR,
    ER.COLUMNACCESS_DENIED_ERROR,
    ER.SPECIFIC_ACCESS_DENIED_ERROR,
    ER.HOST_NOT_PRIVILEGED,
    1698,  # the account may not log in with a password
}


class DatabaseConnection(Connection):
    """A connection that knows which statements its database takes; in autocommit mode, UTC, READ COMMITTED, strict."""

    def __init__(self, spoken: Dialect, **options: Any) -> None:
        """Connect, as PyMySQL's ``options`` say; its own errors are raised."""
        self.dialect = spoken
        super().__init__(
            charset="utf8mb4",
            # Expressions compare as the tables do: by bytes, blanks at the end included.
            collation=spoken.collation,
            autocommit=True,
            connect_timeout=10,
            init_command=spoken.session(),
            **options,
        )


def dialect_of(connection: Connection[Any]) -> Dialect:
    """The dialect of the database that a connection leads to.

    Raises:
        TypeError: the connection was not made by :class:`DatabaseConnection`.
    """
    if isinstance(connection, DatabaseConnection):
        return connection.dialect
    raise TypeError(f"{connection!r} does not know its database")


def connect(settings: Settings, account: Account, *, schema: str | None = None) -> Connection[Any]:
    """Open a connection in autocommit mode, UTC, READ COMMITTED and strict.

    Args:
        settings: where the database is.
        account: as whom.
        schema: default schema; the control plane's if None.

    Raises:
        DatabaseUnavailable: it cannot be reached.
        ConfigError: it refuses the account, or there is no such dialect.
    """
    spoken = dialect(settings.db_dialect)
    with translated():
        connection = DatabaseConnection(
            spoken,
            host=settings.db_host,
            port=settings.db_port,
            user=settings.user(account),
            password=settings.password(account).get_secret_value(),
            database=schema or settings.db_control,
            local_infile=True,
            ssl=ssl.create_default_context() if settings.db_tls else None,
            ssl_disabled=not settings.db_tls,
        )
    _end_with_silence(connection)
    return connection


def _end_with_silence(connection: Connection[Any]) -> None:
    """Let the kernel give up a connection whose server has vanished without a word, within a minute.

    It asks the server's kernel and not the server, so that a statement may take as long as it needs.
    """
    line: socket.socket | None = getattr(connection, "_sock", None)
    if line is None or line.family not in (socket.AF_INET, socket.AF_INET6):
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        if hasattr(socket, option):  # Linux has all of them, others some
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


# Ask after 20 s without a byte, then every 10 s, four times. TCP_USER_TIMEOUT does the same for bytes under way.
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
        except pymysql.Error:  # it broke while it said goodbye; nothing is left to do
            connection._force_close()  # type: ignore[attr-defined]


@contextmanager
def translated() -> Iterator[None]:
    """Turn PyMySQL's errors into ours, by number.

    By the text only where one number stands for several things: 1290 for every option that forbids a statement, and
    the numbers of the server's file layer for every error of a file.

    Raises:
        DatabaseUnavailable: transient; the outcome of a statement under way is unknown.
        DatabaseReadOnly: transient; nothing was written, and another connection may find another server.
        DatabaseFull: transient; nothing was written. The transaction is still open.
        Contention: transient. After a deadlock the transaction is rolled back; after a lock-wait time-out only its
            last statement is, so roll back.
        ConfigError: the account is refused, or what it wants to do is.
        StoreError: anything else the database refuses.
    """
    try:
        yield
    except pymysql.Error as error:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        text = str(error.args[1]) if len(error.args) > 1 else str(error)
        # PyMySQL's own «packet sequence» and «closed» errors carry no number.
        broken = not number and isinstance(error, pymysql.InterfaceError | pymysql.InternalError)
        raise _ours(CR.CR_SERVER_LOST if broken else number, text) from error


def _ours(number: int, text: str) -> TidemillError:
    value = f"{number}: {text}"
    if number in _CONTENTION:
        return Contention("the database gave way to another transaction", value=value)
    if number in _READ_ONLY or (number == ER.OPTION_PREVENTS_STATEMENT and "read-only" in text):
        return DatabaseReadOnly(
            "the database takes no writes now", value=value, remedy="is TIDEMILL_DB_HOST the primary?"
        )
    if number in _AWAY:
        return DatabaseUnavailable("the database cannot be reached", value=value, remedy="is it up? ./tidemill status")
    if number in _FULL or (number in _FILE_LAYER and _NO_SPACE.search(text)):
        return DatabaseFull("the database has no space left", value=value, remedy="make room on its disk")
    if number in _DENIED:
        return ConfigError("the database refuses the account", value=text, remedy="check its password and grants")
    return StoreError("the database refused a statement", value=value)


_of_worker: dict[tuple[str, int, str], Connection[Any]] = {}


def worker_connection(settings: Settings) -> Connection[Any]:
    """This process's own connection for writing rows, opened once and again after it was lost."""
    place = (settings.db_host, settings.db_port, settings.user(Account.STREAM))
    connection = _of_worker.get(place)
    if connection is None or not connection.open:
        connection = _of_worker[place] = connect(settings, Account.STREAM)
    return connection


def drop_worker_connection(settings: Settings) -> None:
    """Forget this process's connection after it failed."""
    connection = _of_worker.pop((settings.db_host, settings.db_port, settings.user(Account.STREAM)), None)
    if connection is not None:
        close(connection)
