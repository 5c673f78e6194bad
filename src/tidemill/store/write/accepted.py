"""What a table must accept because its stage, which is made as the table is declared, has accepted it.

A table that does not is another one than is declared: no record is at fault, and none is lost or quarantined for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymysql.connections import Connection

from tidemill.errors import StoreError, StructureError, Transient
from tidemill.store.connection import translated
from tidemill.store.structure_errors import as_declared


@contextmanager
def accepted(table: str) -> Iterator[None]:
    """A statement that writes staged rows.

    Raises:
        StructureError: the database refuses it.
    """
    try:
        with translated():
            yield
    except StoreError as error:
        if isinstance(error, Transient | StructureError):
            raise
        value = f"table {table}: {as_declared(str(error.value))}"
        raise StructureError("TM-STORE-TABLE-DIFFERS", value=value) from error


def check_each_key(connection: Connection[Any], count: str, table: str, keys: int) -> None:
    """Check that each staged key has its row: with another unique index, the row of another key may be there instead.

    Args:
        connection: in the transaction that has inserted or locked the rows.
        count: the statement that counts the staged keys that have a row.
        table: name of the table.
        keys: how many are staged.

    Raises:
        StructureError: a key has no row.
    """
    with connection.cursor() as cursor:
        cursor.execute(count)
        (known,) = cursor.fetchone() or (0,)
    if known != keys:
        value = f"table {table}: another unique index than that of its key refuses {keys - known} rows"
        raise StructureError("TM-STORE-TABLE-DIFFERS", value=value)
