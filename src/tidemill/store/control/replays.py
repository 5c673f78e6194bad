"""Rows of ``replays``: what was requested, which job is running it, and its progress."""

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
from tidemill.store.write.context import Range

COUNTED = ("written", "duplicate", "stale", "filtered", "quarantined", "gap", "unselected", "warned")
"""The counts that a replay reports of its commits."""


@dataclass(frozen=True)
class Replay:
    """One row of ``replays``. Times are naive UTC."""

    id: int
    stream: str
    pipeline_version: int
    selection: dict[str, Any]
    """``asked``: what a person requested; ``plan``: the same in offsets; ``result``: what the replay did."""
    requested_by: str
    state: str
    """``requested``, ``running``, ``done`` or ``failed``; a failed replay can be run again."""
    records: int
    """Records read so far; a second pass counts them again."""
    retracted_rows: int
    """Rows of older pipeline versions that this version does not produce any more, which the replay deleted."""
    last_error: str | None
    requested_at: datetime
    ended_at: datetime | None


def request_replay(
    connection: Connection[Any], stream: str, pipeline_version: int, selection: dict[str, Any], by: str
) -> int:
    """Insert a replay that is to be run; returns its id."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO replays (stream, pipeline_version, selection, requested_by) VALUES (%s, %s, %s, %s)",
            (stream, pipeline_version, json.dumps(selection), by[:128]),
        )
        return int(cursor.lastrowid)


def read(connection: Connection[Any], replay_id: int) -> Replay:
    """One replay.

    Raises:
        StreamError: there is no replay of this id.
    """
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(
            "SELECT id, stream, pipeline_version, selection, requested_by, state, records, retracted_rows, last_error,"
            " requested_at, ended_at FROM replays WHERE id = %s",
            (replay_id,),
        )
        row = cursor.fetchone()
    if row is None:
        raise StreamError("TM-STORE-NO-REPLAY", value=replay_id)
    return Replay(**{**row, "selection": json.loads(row["selection"])})


@contextmanager
def locked(connection: Connection[Any], replay_id: int) -> Iterator[None]:
    """Prevent other jobs from running the same replay, until the block ends or the connection breaks.

    Raises:
        StreamError: another job is running it.
    """
    name = f"tidemill replay {replay_id}"
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
        (acquired,) = cursor.fetchone() or (0,)
    if not acquired:
        raise StreamError("TM-STORE-REPLAY-LOCKED", value=replay_id)
    try:
        yield
    finally:
        # Suppressed: a broken connection holds no lock, and the error that broke it is the one to report.
        with suppress(TidemillError), translated(), connection.cursor() as cursor:
            cursor.execute("SELECT RELEASE_LOCK(%s)", (name,))


def begin(connection: Connection[Any], replay_id: int) -> None:
    """Mark a replay as running."""
    _set(connection, replay_id, "state = 'running', last_error = NULL, ended_at = NULL")


def progress(connection: Connection[Any], replay_id: int) -> None:
    """Update how many records were read so far, from the ledger."""
    read = "SELECT SUM(until_offset - from_offset - gap_rows - unselected_rows) FROM commits WHERE replay_id = %s"
    _set(connection, replay_id, f"records = COALESCE(({read}), 0)", replay_id)


def update_plan(connection: Connection[Any], replay_id: int, plan: dict[str, Any]) -> None:
    """Replace the plan of a replay by a more exact one than when it was requested."""
    selection = json.dumps(read(connection, replay_id).selection | {"plan": plan})
    _set(connection, replay_id, "selection = %s", selection)


def finish(connection: Connection[Any], replay_id: int, result: dict[str, Any]) -> None:
    """Mark a replay as done; its result is stored beside the request."""
    selection = json.dumps(read(connection, replay_id).selection | {"result": result})
    _set(connection, replay_id, "state = 'done', selection = %s, ended_at = UTC_TIMESTAMP(6)", selection)


def fail(connection: Connection[Any], replay_id: int, reason: str) -> None:
    """Mark a replay as failed; its commits stay, and it may be run again. A replay that is done stays done."""
    changes = "state = 'failed', last_error = %s, ended_at = UTC_TIMESTAMP(6)"
    _set(connection, replay_id, changes, reason[:4000], unless_done=True)


def _set(connection: Connection[Any], replay_id: int, changes: str, *values: object, unless_done: bool = False) -> None:
    condition = " AND state <> 'done'" if unless_done else ""
    with translated(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE replays SET {changes} WHERE id = %s{condition}", (*values, replay_id))


def committed(connection: Connection[Any], replay_id: int) -> dict[tuple[int, int], int]:
    """Progress of a replay's batches: (batch, partition) -> the offset up to which it is committed."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT batch_id, partition_id, MAX(until_offset) FROM commits WHERE replay_id = %s"
            " GROUP BY batch_id, partition_id",
            (replay_id,),
        )
        return {(int(batch), int(partition)): int(until) for batch, partition, until in cursor.fetchall()}


def totals(connection: Connection[Any], replay_id: int, batches: range) -> dict[str, int]:
    """The sums over a range of a replay's batches: ``records`` and :data:`COUNTED`."""
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
    """The ranges of commits, within a range of a replay's batches, in which Kafka did not have every offset."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT partition_id, from_offset, until_offset FROM commits WHERE replay_id = %s AND gap_rows > 0"
            " AND batch_id >= %s AND batch_id < %s ORDER BY partition_id, from_offset",
            (replay_id, batches.start, batches.stop),
        )
        return [Range(*map(int, row)) for row in cursor.fetchall()]


def count_retracted(connection: Connection[Any], replay_id: int, rows: int) -> None:
    """Add to the count of retracted rows, in the transaction that deletes them."""
    with translated(), connection.cursor() as cursor:
        cursor.execute("UPDATE replays SET retracted_rows = retracted_rows + %s WHERE id = %s", (rows, replay_id))
