"""Replays in the control plane: what was asked for, who works on it, how far it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.errors import StreamError, TidemillError
from tidemill.store.connection import translated
from tidemill.store.write.ledger_rows import Range

COUNTED = ("written", "duplicate", "stale", "filtered", "quarantined", "gap", "unselected", "warned")
"""What a replay tells of its commits."""


@dataclass(frozen=True)
class Replay:
    """One row of ``replays``. Times are naive UTC."""

    id: int
    stream: str
    pipeline_version: int
    selection: dict[str, Any]
    """``asked``: what a person wanted; ``plan``: what that is in offsets; ``result``: what came of it."""
    requested_by: str
    state: str
    """``asked``, ``running``, ``done`` or ``failed``; a failed one can be run again."""
    records: int
    """Read again so far; a second pass counts them twice."""
    retracted_rows: int
    """Rows of older pipeline versions that this version does not make any more."""
    last_error: str | None
    requested_at: datetime
    ended_at: datetime | None


def request_replay(
    connection: Connection[Any], stream: str, pipeline_version: int, selection: dict[str, Any], by: str
) -> int:
    """Write down a replay that is to be run; returns its id."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO replays (stream, pipeline_version, selection, requested_by) VALUES (%s, %s, %s, %s)",
            (stream, pipeline_version, json.dumps(selection), by[:128]),
        )
        return int(cursor.lastrowid)


def read(connection: Connection[Any], replay_id: int) -> Replay:
    """One replay.

    Raises:
        StreamError: there is none of this id.
    """
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(
            "SELECT id, stream, pipeline_version, selection, requested_by, state, records, retracted_rows, last_error,"
            " requested_at, ended_at FROM replays WHERE id = %s",
            (replay_id,),
        )
        row = cursor.fetchone()
    if row is None:
        raise StreamError("there is no such replay", value=replay_id, remedy="ask for one with ./tidemill replay")
    return Replay(**{**row, "selection": json.loads(row["selection"])})


@contextmanager
def held(connection: Connection[Any], replay_id: int) -> Iterator[None]:
    """Keep other jobs from working on the same replay, for as long as this connection lives.

    Raises:
        StreamError: one does already.
    """
    name = f"tidemill replay {replay_id}"
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
        (taken,) = cursor.fetchone() or (0,)
    if not taken:
        raise StreamError("another job works on this replay", value=replay_id, remedy="wait for it")
    try:
        yield
    finally:
        # Suppressed: a connection that broke holds nothing any more, and what broke it is the news.
        with suppress(TidemillError), translated(), connection.cursor() as cursor:
            cursor.execute("SELECT RELEASE_LOCK(%s)", (name,))


def begin(connection: Connection[Any], replay_id: int) -> None:
    """A job works on it."""
    _set(connection, replay_id, "state = 'running', last_error = NULL, ended_at = NULL")


def progress(connection: Connection[Any], replay_id: int) -> None:
    """Say how many records were read by now, as the ledger has it."""
    read = "SELECT SUM(until_offset - from_offset - gap_rows - unselected_rows) FROM commits WHERE replay_id = %s"
    _set(connection, replay_id, f"records = COALESCE(({read}), 0)", replay_id)


def settle_plan(connection: Connection[Any], replay_id: int, plan: dict[str, Any]) -> None:
    """Its plan says more than it did when the replay was asked for."""
    selection = json.dumps(read(connection, replay_id).selection | {"plan": plan})
    _set(connection, replay_id, "selection = %s", selection)


def finish(connection: Connection[Any], replay_id: int, result: dict[str, Any]) -> None:
    """It is done; its result is kept beside what was asked for."""
    selection = json.dumps(read(connection, replay_id).selection | {"result": result})
    _set(connection, replay_id, "state = 'done', selection = %s, ended_at = UTC_TIMESTAMP(6)", selection)


def fail(connection: Connection[Any], replay_id: int, reason: str) -> None:
    """Its job has failed; what is committed stays, and the job may be run again. A finished replay stays so."""
    changes = "state = 'failed', last_error = %s, ended_at = UTC_TIMESTAMP(6)"
    _set(connection, replay_id, changes, reason[:4000], unless_done=True)


def _set(connection: Connection[Any], replay_id: int, changes: str, *values: object, unless_done: bool = False) -> None:
    condition = " AND state <> 'done'" if unless_done else ""
    with translated(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE replays SET {changes} WHERE id = %s{condition}", (*values, replay_id))


def committed(connection: Connection[Any], replay_id: int) -> dict[tuple[int, int], int]:
    """How far a replay's batches are: (batch, partition) -> the offset up to which it is committed."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT batch_id, partition_id, MAX(until_offset) FROM commits WHERE replay_id = %s"
            " GROUP BY batch_id, partition_id",
            (replay_id,),
        )
        return {(int(batch), int(partition)): int(until) for batch, partition, until in cursor.fetchall()}


def totals(connection: Connection[Any], replay_id: int, batches: range) -> dict[str, int]:
    """What became of the records of some of a replay's batches: ``records`` and :data:`COUNTED`."""
    sums = ", ".join(f"COALESCE(SUM({name}_rows), 0)" for name in COUNTED)
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"SELECT COALESCE(SUM(until_offset - from_offset - gap_rows - unselected_rows), 0), {sums} FROM commits"
            " WHERE replay_id = %s AND batch_id >= %s AND batch_id < %s",
            (replay_id, batches.start, batches.stop),
        )
        row = cursor.fetchone()
    assert row is not None  # an aggregate without GROUP BY has one row
    return dict(zip(("records", *COUNTED), map(int, row), strict=True))


def with_gaps(connection: Connection[Any], replay_id: int, batches: range) -> list[Range]:
    """The ranges of some of a replay's commits in which Kafka did not have every offset."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT partition_id, from_offset, until_offset FROM commits WHERE replay_id = %s AND gap_rows > 0"
            " AND batch_id >= %s AND batch_id < %s ORDER BY partition_id, from_offset",
            (replay_id, batches.start, batches.stop),
        )
        return [Range(*map(int, row)) for row in cursor.fetchall()]


def count_retracted(connection: Connection[Any], replay_id: int, rows: int) -> None:
    """Count rows that leave a table. In the transaction that removes them."""
    with translated(), connection.cursor() as cursor:
        cursor.execute("UPDATE replays SET retracted_rows = retracted_rows + %s WHERE id = %s", (rows, replay_id))
