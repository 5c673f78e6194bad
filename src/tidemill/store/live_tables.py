"""Compares the tables of the database with what ``apply`` declares: columns, keys, constraints and options.

``apply`` lets the database itself describe each declaration, by a temporary table, and records the description in
``objects``. What describes the table itself otherwise is a difference. Indexes that are not unique decide nothing about
a row, and may be added and dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import StructureError
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import dialect_of, translated
from tidemill.store.ownership import objects_of
from tidemill.store.sql.identifiers import in_schema

_DECLARED = "_declared"
_PLAIN_INDEX = re.compile(r"(?:FULLTEXT |SPATIAL )?KEY ")
_COUNTER = re.compile(r" AUTO_INCREMENT=\d+")


def record_declared(connection: Connection[Any], settings: Settings, statements: Mapping[str, str]) -> None:
    """Record how the database describes each declaration.

    Args:
        connection: as the migrate account, in the control schema.
        settings: names of the schemas.
        statements: name of a table -> the statement that creates it.
    """
    schema = settings.db_data
    with translated(), connection.cursor() as cursor:
        for name, statement in statements.items():
            body = statement.partition(in_schema(schema, name))[2]
            temporary = in_schema(schema, _DECLARED)
            for sql in dialect_of(connection).create_temporary(temporary, body):
                cursor.execute(sql)
            lines = _describe(cursor, temporary)
            cursor.execute(f"DROP TEMPORARY TABLE {temporary}")
            cursor.execute("UPDATE objects SET description = %s WHERE object = %s", ("\n".join(lines), name))


def differences(connection: Connection[Any], settings: Settings, pipeline: Pipeline) -> Iterator[str]:
    """One sentence for each table of a pipeline that is not as it was declared when it was applied.

    Triggers are found by an account that may see them, as that of ``apply`` may.
    """
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT object, description FROM objects"
            " WHERE pipeline = %s AND object IN %s AND description IS NOT NULL ORDER BY object",
            (pipeline.name, tuple(objects_of(pipeline))),
        )
        declared = {str(name): set(str(text).split("\n")) for name, text in cursor.fetchall()}
        for name, lines in declared.items():
            try:
                with translated():
                    live = set(_describe(cursor, in_schema(settings.db_data, name)))
            except StructureError as error:
                yield f"table {name} cannot be read: {error.value}"
                continue
            cursor.execute(
                "SELECT trigger_name FROM information_schema.triggers"
                " WHERE event_object_schema = %s AND event_object_table = %s",
                (settings.db_data, name),
            )
            found = [f"has the trigger {trigger}" for (trigger,) in cursor.fetchall()]
            found += [f"has {line}" for line in sorted(live - lines)]
            found += [f"lacks {line}" for line in sorted(lines - live)]
            if found:
                yield f"table {name} differs from its declaration: it {', '.join(found)}"


def check_tables(connection: Connection[Any], settings: Settings, pipeline: Pipeline) -> None:
    """Check that every table of a pipeline is as it was declared.

    Raises:
        StructureError: names the first one that is not, with its differences.
    """
    for difference in differences(connection, settings, pipeline):
        raise StructureError("TM-STORE-TABLE-DIFFERS", value=difference)


def _describe(cursor: Any, table: str) -> list[str]:
    """What decides which rows a table holds: its columns, unique keys, constraints and options, in no order."""
    cursor.execute(f"SHOW CREATE TABLE {table}")
    _, *lines = str(cursor.fetchone()[1]).splitlines() or [""]
    described = [_COUNTER.sub("", line.strip().rstrip(",")) for line in lines]
    return [line for line in described if not _PLAIN_INDEX.match(line)] or ["a view"]
