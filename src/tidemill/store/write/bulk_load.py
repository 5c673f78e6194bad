"""Loads Arrow tables into a stage table.

With LOAD DATA LOCAL; if the server does not accept files, with multi-row statements of the same outcome. Both send
every value as text, so that the database converts it by the same rules.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pyarrow as pa
import pyarrow.compute as pc
import pymysql
from pymysql.connections import Connection
from pymysql.constants import ER

from tidemill.errors import DatabaseFull, DatabaseUnavailable, StoreError
from tidemill.store.connection import translated
from tidemill.store.sql.identifiers import quote
from tidemill.store.write.encoding import VALUES, encode, lines_of, slices
from tidemill.store.write.halving import find_refused

__all__ = ["bulk_load", "encode", "load_file", "reason_of", "rejected_rows"]

log = logging.getLogger(__name__)

_MEMORY = Path("/dev/shm")  # noqa: S108 -- a file here is memory; it is made with mode 0600 and a random name
_STATEMENT = (1_000, 2**20)
"""Rows and bytes of one multi-row statement, before quoting."""
_NO_FILES = {
    ER.NOT_ALLOWED_COMMAND,
    3948,  # MySQL: disabled on one of both sides
    3950,  # MySQL: rejected by the client
    4166,  # MariaDB: disabled on one of both sides
    2068,  # MySQL's client library: rejected
}
_ROW = re.compile(r" ?at row (\d+)\Z")
"""The number of the row, which ends a message; before it there may be a value with the same words."""
_STAGED_COLUMN = re.compile(r"(?:`[^`]*`\.){1,2}(`[^`]*`)\Z")
"""A column with the names of the stage table and of its schema, which mean nothing to the reader of a reason."""


@contextmanager
def load_file(table: pa.Table) -> Iterator[str]:
    """The path of a temporary file with the encoded rows, in memory if there is space; deleted after the block.

    Raises:
        DatabaseFull: there is no space for it.
    """
    folders = [str(_MEMORY)] if os.access(_MEMORY, os.W_OK) else []
    folders.append(tempfile.gettempdir())
    for folder in folders:
        descriptor, name = tempfile.mkstemp(prefix="tidemill-", suffix=".tsv", dir=folder)
        try:
            try:
                _write(descriptor, table)
            except OSError as error:
                if error.errno not in _NO_SPACE:
                    raise
                if folder == folders[-1]:
                    raise DatabaseFull("TM-STORE-LOAD-NO-SPACE", value=" and ".join(folders)) from error
                continue
            yield name
            return
        finally:
            Path(name).unlink()


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _write(descriptor: int, table: pa.Table) -> None:
    """Write all rows, or raise OSError."""
    size = 0
    with os.fdopen(descriptor, "wb") as file:
        for buffer in encode(table):
            size += file.write(buffer)
        file.flush()
        if (written := os.fstat(file.fileno()).st_size) != size:
            raise OSError(errno.ENOSPC, f"{written} of {size} bytes were written")


_without_files: WeakSet[Connection[Any]] = WeakSet()
"""Connections whose server does not accept files. A new connection tries LOAD DATA again."""
_warned = False


def bulk_load(connection: Connection[Any], statement: str, table: pa.Table, columns: Sequence[str]) -> int:
    """Load rows with a strict LOAD DATA statement of the dialect, or with multi-row statements of the same outcome.

    Returns:
        Affected rows as the database counts them (a replaced row counts twice).

    Raises:
        DatabaseUnavailable, DatabaseFull: transient; no row is at fault.
        StoreError: a value does not fit. Rows before it may have been loaded.
    """
    rows = table.select(list(columns))
    loaded = _load(connection, statement, rows)
    if loaded is None:
        insert = _Insert(connection, statement, rows.column_names)
        affected = sum(insert.send(_values(part)) for part in slices(rows, *_STATEMENT))
    else:
        affected, warnings = loaded
        if warnings:  # a server for which REPLACE does not make the load strict
            raise StoreError("TM-STORE-VALUE-CONVERTED", value=f"{ER.WARN_DATA_TRUNCATED}: {warnings[0]}")
    if affected < rows.num_rows:
        raise DatabaseFull("TM-STORE-LOAD-INCOMPLETE", value=f"{affected} of {rows.num_rows}")
    return affected


def rejected_rows(
    connection: Connection[Any], statement: str, table: pa.Table, columns: Sequence[str], *, one_by_one: bool = False
) -> dict[int, str]:
    """Offset -> why the database rejects the row, for every such row.

    The lenient load warns instead of failing, and most warnings contain the number of the row. A row that violates a
    constraint, as bad JSON does, is left out, and its warning has no number; such warnings come in the order of the
    rows.

    Args:
        connection: over which to load.
        statement: a lenient LOAD DATA into an empty table without a key; the table's contents are undefined afterwards.
        table: the rows with ``_offset``. MariaDB lists 65,535 warnings: no more than that many values.
        columns: of the statement, including ``_offset``.
        one_by_one: insert the rows strictly, in ever smaller groups: slow, and finds every row that a strict load
            refuses.
    """
    rows = table.select(list(columns))
    if unencodable := _unencodable(rows):
        kept = rows.filter(pc.invert(pc.is_in(rows["_offset"], pa.array(unencodable, rows["_offset"].type))))
        return unencodable | rejected_rows(connection, statement, kept, columns, one_by_one=one_by_one)
    if one_by_one:
        return _insert_in_groups(connection, statement, rows)
    with translated(), connection.cursor() as cursor:
        cursor.execute("SET SESSION max_error_count = 65535")
        loaded = _load(connection, statement, rows)
        cursor.execute("SET SESSION max_error_count = DEFAULT")
        if loaded is None:
            return _insert_in_groups(connection, statement, rows)
        affected, warnings = loaded
        offsets = rows["_offset"].to_pylist()
        rejected: dict[int, str] = {}
        without_number = []
        for text in warnings:
            match = _ROW.search(text)
            if match and 1 <= int(match[1]) <= len(offsets):
                rejected.setdefault(offsets[int(match[1]) - 1], _as_reason(text))
            else:
                without_number.append(_as_reason(text))
        if affected < rows.num_rows:
            cursor.execute(f"SELECT `_offset` FROM {_target(statement)}")
            present = {int(row[0]) for row in cursor.fetchall()}
            left_out = [offset for offset in offsets if offset not in present]
            missing = ["the database left the row out"] * (len(left_out) - len(without_number))
            rejected = dict(zip(left_out, [*without_number, *missing], strict=False)) | rejected
    return rejected


def _unencodable(rows: pa.Table) -> dict[int, str]:
    """Offset -> why a row cannot be sent at all, for every such row."""

    def attempt(group: Sequence[int]) -> None:
        for _ in encode(rows.slice(group[0], len(group))):
            pass

    refused = find_refused(range(rows.num_rows), attempt)
    return {rows["_offset"][index].as_py(): f"{error.what}: {error.value}" for index, error in refused}


def reason_of(error: StoreError) -> str:
    """Why a statement was refused, as the reason of a quarantined record."""
    return _as_reason(re.sub(r"^\d+: ", "", str(error.value)))


def _as_reason(message: str) -> str:
    """A message of the database without what only its statement knows: the number of a row and the stage table."""
    return _STAGED_COLUMN.sub(r"\1", _ROW.sub("", message))


def _insert_in_groups(connection: Connection[Any], statement: str, rows: pa.Table) -> dict[int, str]:
    """Offset -> reason of the rows that the database refuses to insert."""
    insert = _Insert(connection, statement, rows.column_names)
    rejected: dict[int, str] = {}
    for part in slices(rows, *_STATEMENT):
        numbered = list(zip(part["_offset"].to_pylist(), _values(part), strict=True))
        refused = find_refused(numbered, lambda group: insert.send([value for _, value in group]))
        rejected |= {offset: reason_of(error) for (offset, _), error in refused}
    return rejected


def _load(connection: Connection[Any], statement: str, rows: pa.Table) -> tuple[int, list[str]] | None:
    """Affected rows and warnings of a LOAD DATA; None if the server does not accept files."""
    if connection in _without_files:
        return None
    with load_file(rows) as path, translated(), connection.cursor() as cursor:
        try:
            affected = int(cursor.execute(statement, {"file": path}))
            if not cursor.warning_count:
                return affected, []
            cursor.execute("SHOW WARNINGS")
            # A note is about digits or blanks that were cut off, which an INSERT does without any message.
            return affected, [text for level, _number, text in cursor.fetchall() if level != "Note"]
        except AttributeError as error:
            # PyMySQL raises this when it finishes the file over a connection that broke meanwhile.
            if connection.open:
                raise
            raise DatabaseUnavailable("TM-STORE-UNAVAILABLE", value="connection lost during a bulk load") from error
        except pymysql.Error as error:
            number = error.args[0] if error.args else None
            if number == ER.FILE_NOT_FOUND:
                raise DatabaseFull("TM-STORE-LOAD-FILE-LOST", value=error.args[1]) from error
            if number not in _NO_FILES:
                raise
    _without_files.add(connection)
    _warn_once()
    return None


def _warn_once() -> None:
    global _warned  # noqa: PLW0603 -- once in each process
    if not _warned:
        _warned = True
        log.warning(
            "the database does not accept LOAD DATA LOCAL (local_infile is off); rows are sent as multi-row"
            " statements, which is slower"
        )


class _Insert:
    """Multi-row statements with the outcome of a strict LOAD DATA."""

    def __init__(self, connection: Connection[Any], statement: str, columns: Sequence[str]) -> None:
        names = ", ".join(quote(name) for name in columns)
        self._connection = connection
        self._opening = f"REPLACE INTO {_target(statement)} ({names}) VALUES ".encode()
        with translated(), connection.cursor() as cursor:
            cursor.execute("SELECT @@max_allowed_packet")
            [(self._limit,)] = cursor.fetchall()

    def send(self, rows: list[bytes]) -> int:
        """Send one statement; returns the affected rows."""
        text = self._opening + b",".join(rows)
        # If it were sent, the server would close the connection, which looks like a server that is unavailable.
        if len(text) >= self._limit:
            raise StoreError("TM-STORE-PACKET-TOO-LARGE", value=f"{len(text)} bytes")
        with translated():
            return int(self._connection.query(text))


def _values(part: pa.Table) -> list[bytes]:
    """Each row in parentheses, as an INSERT has it after VALUES."""
    return [value for lines in lines_of(part, VALUES) for value in lines.to_pylist()]


def _target(statement: str) -> str:
    """The table that a LOAD DATA statement loads."""
    match = re.search(r" INTO TABLE (\S+)", statement)
    assert match is not None
    return match[1]
