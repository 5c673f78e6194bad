"""Backfills rollups over tables that had rows before the rollup was added, step by step while the stream writes.

An incomplete rollup counts the rows up to a cursor, the greatest key counted so far. Every commit updates the rollup
for its rows up to the cursor, and holds a shared lock on the rollup's row in ``rollups``; every step holds an exclusive
lock on that row, counts the next rows by key and moves the cursor. So each row is counted once: by a step, or by the
commit that comes after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Account, Settings
from tidemill.retry import Backoff
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import dialect_of, session, translated
from tidemill.store.sql import identifiers
from tidemill.store.steps import run_step
from tidemill.store.write.fencing import check_fencing_token

STEP_ROWS = 20_000
"""Rows that the first step counts: commits wait as long as it takes."""
STEP_SECONDS = 1.0
"""A step that took less is followed by a larger one, or a fast stream of rising keys could stay ahead forever; one that
took more is followed by a smaller one, or a large table would delay the stream."""
_GROWTH = 1.5
_BACKOFF = Backoff(longest_seconds=0.2, attempts=20)


def incomplete_rollups(connection: Connection[Any], pipeline: Pipeline) -> frozenset[str]:
    """The pipeline's rollups that do not count all rows yet; a shared lock keeps this so until the transaction ends."""
    if not pipeline.rollups:
        return frozenset()
    lock = dialect_of(connection).share_lock
    with translated(), connection.cursor() as cursor:
        cursor.execute(f"SELECT rollup FROM rollups WHERE pipeline = %s AND state <> 'ready' {lock}", (pipeline.name,))
        return frozenset(str(row[0]) for row in cursor.fetchall())


def rollup_states(connection: Connection[Any]) -> dict[str, dict[str, str]]:
    """Pipeline -> rollup -> ``building``, ``ready`` or ``abandoned``. Takes no lock."""
    found: dict[str, dict[str, str]] = {}
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT pipeline, rollup, state FROM rollups ORDER BY pipeline, rollup")
        for pipeline, rollup, state in cursor.fetchall():
            found.setdefault(str(pipeline), {})[str(rollup)] = str(state)
    return found


def building_rollups(connection: Connection[Any]) -> dict[str, list[str]]:
    """Pipeline -> its rollups that are being built, so that readers see a part of each. Takes no lock."""
    return {
        pipeline: [rollup for rollup, state in states.items() if state == "building"]
        for pipeline, states in rollup_states(connection).items()
    }


def describe_building(rollups: Iterable[str]) -> list[str]:
    """A sentence on each rollup that readers must not take for complete."""
    return [
        f"rollup {name} is being built beside the stream and is incomplete until a driver is done" for name in rollups
    ]


def register(connection: Connection[Any], pipeline: Pipeline, name: str, *, ready: bool) -> None:
    """Insert the state of a new rollup: ``ready`` if it counts its table from the first row. Existing rows stay."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT IGNORE INTO rollups (pipeline, rollup, state) VALUES (%s, %s, %s)",
            (pipeline.name, name, "ready" if ready else "building"),
        )


def abandon_undeclared(connection: Connection[Any], pipeline: Pipeline) -> None:
    """Mark the rollups that this pipeline version does not declare, because commits do not update them any more."""
    known = list(pipeline.rollups)
    among = f" AND rollup NOT IN ({', '.join(['%s'] * len(known))})" if known else ""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE rollups SET state = 'abandoned', changed_at = UTC_TIMESTAMP(6) WHERE pipeline = %s{among}",
            (pipeline.name, *known),
        )


def restart_backfill(connection: Connection[Any], schema: str, pipeline: Pipeline, name: str) -> None:
    """Empty an abandoned rollup, so that it is backfilled again; any other stays as it is."""
    with translated(), connection.cursor() as cursor:
        connection.begin()
        cursor.execute(
            "SELECT state FROM rollups WHERE pipeline = %s AND rollup = %s FOR UPDATE", (pipeline.name, name)
        )
        row = cursor.fetchone()
        if row and row[0] == "abandoned":
            for table in (name, identifiers.rollup_cursor(name)):
                cursor.execute(dialect_of(connection).empty(schema, table))
            cursor.execute(
                "UPDATE rollups SET state = 'building', rows_built = 0, changed_at = UTC_TIMESTAMP(6)"
                " WHERE pipeline = %s AND rollup = %s",
                (pipeline.name, name),
            )
        connection.commit()


def backfill_all(
    settings: Settings, pipeline: Pipeline, epoch: int, go_on: Callable[[], bool], rows: int = STEP_ROWS
) -> list[str]:
    """Backfill the incomplete rollups of a pipeline while the stream writes.

    Args:
        settings: where the database is.
        pipeline: declares the rollups.
        epoch: of the calling driver. It must hold the lease, so that no driver writes that does not know a rollup.
        go_on: called before each step; False ends the backfill.
        rows: counted in the first step.

    Returns:
        The rollups that this call has completed.

    Raises:
        Fenced: another driver has acquired the lease.
    """
    completed = []
    with session(settings, Account.STREAM) as connection:
        for name in sorted(incomplete_rollups(connection, pipeline) & set(pipeline.rollups)):
            rollup = pipeline.rollups[name]
            with translated(), connection.cursor() as cursor:
                for sql in dialect_of(connection).create_delta(
                    settings.db_data, name, rollup, pipeline.tables[rollup.of]
                ):
                    cursor.execute(sql)
            size = rows
            while go_on():
                began = time.monotonic()
                if run_step(connection, partial(_step, connection, settings, pipeline, name, (epoch, size)), _BACKOFF):
                    completed.append(name)
                    break
                quick = time.monotonic() - began < STEP_SECONDS
                size = int(size * _GROWTH) if quick else max(1, int(size / _GROWTH))
    return completed


def _step(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, name: str, of: tuple[int, int], cursor: Any
) -> bool:
    """Count the next rows; returns whether all are counted."""
    schema, rollup, (epoch, rows) = settings.db_data, pipeline.rollups[name], of
    table, d = pipeline.tables[rollup.of], dialect_of(connection)
    cursor.execute(d.empty(schema, identifiers.delta(name)))
    cursor.execute("SELECT state FROM rollups WHERE pipeline = %s AND rollup = %s FOR UPDATE", (pipeline.name, name))
    row = cursor.fetchone()
    if not row or row[0] != "building":
        return True
    first = not cursor.execute(d.first_row(schema, identifiers.rollup_cursor(name)))
    cursor.execute(d.next_cursor(schema, name, rollup, table, first=first), {"rows": rows})
    until = cursor.fetchone()
    if until:
        values = {f"k{index}": value for index, value in enumerate(until)}
        for statement in d.backfill_rollup(schema, name, rollup, table, first=first):
            cursor.execute(statement, values)
    cursor.execute(
        "UPDATE rollups SET state = %s, rows_built = rows_built + %s, changed_at = UTC_TIMESTAMP(6)"
        " WHERE pipeline = %s AND rollup = %s",
        ("building" if until else "ready", rows if until else 0, pipeline.name, name),
    )
    check_fencing_token(connection, pipeline.name, epoch)
    return until is None
