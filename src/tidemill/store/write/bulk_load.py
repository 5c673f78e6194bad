"""Arrow -> the bytes of a bulk load -> a stage table.

LOAD DATA is the way. Where the server takes no files, the same rows go as multi-row statements, with the same
outcome. Both send every value as text, so that the database converts it by the same rules.
"""

from __future__ import annotations

import errno
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

from tidemill.errors import DatabaseFull, DatabaseUnavailable, StoreError, Transient
from tidemill.store.connection import translated
from tidemill.store.sql.identifiers import quote
from tidemill.store.write.encoding import VALUES, encode, lines_of, pieces

__all__ = ["bulk_load", "encode", "load_file", "reason_of", "refusals"]

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
_ROW = re.compile(r" ?at row (\d+)")


@contextmanager
def load_file(table: pa.Table) -> Iterator[str]:
    """The encoded rows as a file of this machine, in memory if it has room, for the length of a block.

    Raises:
        DatabaseFull: there is no room for it.
    """
    places = [str(_MEMORY)] if os.access(_MEMORY, os.W_OK) else []
    places.append(tempfile.gettempdir())
    for place in places:
        descriptor, name = tempfile.mkstemp(prefix="tidemill-", suffix=".tsv", dir=place)
        try:
            try:
                _write(descriptor, table)
            except OSError as error:
                if error.errno not in _NO_SPACE:
                    raise
                if place == places[-1]:
                    raise DatabaseFull(
                        "no space left for the rows of a bulk load", value=" and ".join(places), remedy="make room"
                    ) from error
                continue
            yield name
            return
        finally:
            Path(name).unlink()


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _write(descriptor: int, table: pa.Table) -> None:
    """Write all the rows or raise OSError."""
    size = 0
    with os.fdopen(descriptor, "wb") as file:
        for buffer in encode(table):
            size += file.write(buffer)
        file.flush()
        if (found := os.fstat(file.fileno()).st_size) != size:
            raise OSError(errno.ENOSPC, f"{found} of {size} bytes were written")


_without_files: WeakSet[Connection[Any]] = WeakSet()
"""Connections whose server takes no files. A new connection asks again."""
_told = False


def bulk_load(connection: Connection[Any], statement: str, table: pa.Table, columns: Sequence[str]) -> int:
    """Load rows by a strict LOAD DATA statement of the dialect, or by multi-row statements of the same outcome.

    Returns:
        Rows affected, as the database counts them (a replaced row counts twice).

    Raises:
        DatabaseUnavailable, DatabaseFull: transient; no row is at fault.
        StoreError: a value does not fit. Rows before it may have been loaded.
    """
    rows = table.select(list(columns))
    loaded = _load(connection, statement, rows)
    if loaded is None:
        insert = _Insert(connection, statement, rows.column_names)
        affected = sum(insert.send(_values(piece)) for piece in pieces(rows, *_STATEMENT))
    else:
        affected, warnings = loaded
        if warnings:  # a server that does not take REPLACE for strict
            raise StoreError("the database would change a value", value=f"{ER.WARN_DATA_TRUNCATED}: {warnings[0]}")
    if affected < rows.num_rows:
        raise DatabaseFull("fewer rows were loaded than sent", value=f"{affected} of {rows.num_rows}")
    return affected


def refusals(
    connection: Connection[Any], statement: str, table: pa.Table, columns: Sequence[str], *, one_by_one: bool = False
) -> dict[int, str]:
    """Offset -> why the database does not take the row, of every such row.

    The lenient load warns instead of failing, and most warnings name the row. A row that breaks a constraint, as bad
    JSON does, is left out and its warning names none; such warnings come in the order of the rows.

    Args:
        connection: as which to try.
        statement: a lenient LOAD DATA into an empty table without a key, which may hold anything afterwards.
        table: the rows with ``_offset``. MariaDB lists 65,535 warnings: no more than that many values.
        columns: of the statement, ``_offset`` among them.
        one_by_one: try rows strictly, in ever smaller groups: slow, and sure to find whatever a strict load refuses.
    """
    rows = table.select(list(columns))
    if unwritable := _unwritable(rows):
        kept = rows.filter(pc.invert(pc.is_in(rows["_offset"], pa.array(unwritable, rows["_offset"].type))))
        return unwritable | refusals(connection, statement, kept, columns, one_by_one=one_by_one)
    if one_by_one:
        return _tried(connection, statement, rows)
    with translated(), connection.cursor() as cursor:
        cursor.execute("SET SESSION max_error_count = 65535")
        loaded = _load(connection, statement, rows)
        cursor.execute("SET SESSION max_error_count = DEFAULT")
        if loaded is None:
            return _tried(connection, statement, rows)
        affected, warnings = loaded
        offsets = rows["_offset"].to_pylist()
        refused: dict[int, str] = {}
        nameless = []
        for text in warnings:
            if found := _ROW.search(text):
                refused.setdefault(offsets[int(found[1]) - 1], _ROW.sub("", text))
            else:
                nameless.append(text)
        if affected < rows.num_rows:
            cursor.execute(f"SELECT `_offset` FROM {_target(statement)}")
            present = {int(row[0]) for row in cursor.fetchall()}
            left_out = [offset for offset in offsets if offset not in present]
            reasons = [*nameless, *["the database left the row out"] * (len(left_out) - len(nameless))]
            refused = dict(zip(left_out, reasons, strict=False)) | refused
    return refused


def _unwritable(rows: pa.Table) -> dict[int, str]:
    """Offset -> why a row cannot even be sent, of every such row."""
    found: dict[int, str] = {}
    waiting = [rows]
    while waiting:
        group = waiting.pop()
        try:
            for _ in encode(group):
                pass
        except StoreError as error:
            half = group.num_rows // 2
            if half:
                waiting += [group.slice(0, half), group.slice(half)]
            else:
                found[group["_offset"][0].as_py()] = f"{error.what}: {error.value}"
    return found


def reason_of(error: StoreError) -> str:
    """What a person is told of a row for which a statement was refused."""
    return _ROW.sub("", re.sub(r"^\d+: ", "", str(error.value)))


def _tried(connection: Connection[Any], statement: str, rows: pa.Table) -> dict[int, str]:
    """Refused rows by their offset, found by halving what is refused."""
    insert = _Insert(connection, statement, rows.column_names)
    refused: dict[int, str] = {}
    for piece in pieces(rows, *_STATEMENT):
        waiting = [list(zip(piece["_offset"].to_pylist(), _values(piece), strict=True))]
        while waiting:
            group = waiting.pop()
            try:
                insert.send([value for _, value in group])
            except StoreError as error:
                if isinstance(error, Transient):
                    raise
                half = len(group) // 2
                if half:
                    waiting += [group[:half], group[half:]]
                else:
                    refused[group[0][0]] = reason_of(error)
    return refused


def _load(connection: Connection[Any], statement: str, rows: pa.Table) -> tuple[int, list[str]] | None:
    """Rows affected by a LOAD DATA and what it warns of; None where the server takes no files."""
    if connection in _without_files:
        return None
    with load_file(rows) as path, translated(), connection.cursor() as cursor:
        try:
            affected = int(cursor.execute(statement, {"file": path}))
            if not cursor.warning_count:
                return affected, []
            cursor.execute("SHOW WARNINGS")
            # A note tells of digits and blanks that were cut off, as every INSERT does without a word.
            return affected, [text for level, _number, text in cursor.fetchall() if level != "Note"]
        except AttributeError as error:
            # PyMySQL ends the file over a connection that it closed because it broke meanwhile.
            if connection.open:
                raise
            raise DatabaseUnavailable(
                "the database cannot be reached", value="lost in the middle of a bulk load"
            ) from error
        except pymysql.Error as error:
            number = error.args[0] if error.args else None
            if number == ER.FILE_NOT_FOUND:
                raise DatabaseFull("the file of a bulk load was lost", value=error.args[1]) from error
            if number not in _NO_FILES:
                raise
    _without_files.add(connection)
    _tell()
    return None


def _tell() -> None:
    global _told  # noqa: PLW0603 -- once a process
    if not _told:
        _told = True
        print(  # noqa: T201 -- standard output is the driver's log
            "the database takes no files (local_infile is off): rows go as multi-row statements, which is slower",
            flush=True,
        )


class _Insert:
    """Multi-row statements that do what a LOAD DATA would, strictly."""

    def __init__(self, connection: Connection[Any], statement: str, columns: Sequence[str]) -> None:
        names = ", ".join(quote(name) for name in columns)
        self._connection = connection
        self._opening = f"REPLACE INTO {_target(statement)} ({names}) VALUES ".encode()
        with translated(), connection.cursor() as cursor:
            cursor.execute("SELECT @@max_allowed_packet")
            [(self._limit,)] = cursor.fetchall()

    def send(self, rows: list[bytes]) -> int:
        """Rows affected by one statement."""
        text = self._opening + b",".join(rows)
        # Sent all the same, it would cost the connection and look like a server that is away.
        if len(text) >= self._limit:
            raise StoreError("a statement would be longer than max_allowed_packet", value=f"{len(text)} bytes")
        with translated():
            return int(self._connection.query(text))


def _values(piece: pa.Table) -> list[bytes]:
    """Each row in parentheses, as it stands after VALUES."""
    return [value for lines in lines_of(piece, VALUES) for value in lines.to_pylist()]


def _target(statement: str) -> str:
    """The table that a LOAD DATA statement loads."""
    found = re.search(r" INTO TABLE (\S+)", statement)
    assert found is not None
    return found[1]
