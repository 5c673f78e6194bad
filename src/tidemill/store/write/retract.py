"""Retracts outdated rows: those that a newer pipeline version does not produce any more.

A replay rewrites the rows that the new version still produces. Rows of the replayed ranges that still have an older
version come from records that are filtered or quarantined now, or that produce a row with another key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.retry import Backoff
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import dialect_of, translated, worker_connection
from tidemill.store.control import replays
from tidemill.store.maintenance.rollup_backfill import incomplete_rollups
from tidemill.store.ownership import check_ownership
from tidemill.store.sql.replay import STILL_OUTDATED
from tidemill.store.steps import run_step
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.fencing import check_pipeline_version, check_topic_generation
from tidemill.store.write.merge import TableTarget, prepare_tombstones, remove_rows

ROWS = 2_000
"""Rows that one transaction deletes."""
_BACKOFF = Backoff(longest_seconds=1.0, attempts=20)


@dataclass(frozen=True)
class OutdatedRow:
    """A row of an older pipeline version: its key and the record that produced it."""

    key: tuple[Any, ...]
    partition: int
    offset: int


Spare = Callable[[list[OutdatedRow]], list[OutdatedRow]]
"""Returns the rows without those that are to stay although the new version does not produce them."""


def find_outdated(
    connection: Connection[Any],
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
    ranges: Iterable[Range],
) -> Iterator[tuple[str, list[OutdatedRow]]]:
    """The rows of older versions than the replay's whose records are in the ranges: table after table, in parts.

    Reads every table once. A part is read when the caller asks for it, after it has processed the one before.
    """
    spans = list(ranges)
    values: dict[str, Any] = {**write_context.row_context(0).parameters(), "rows": ROWS}
    for index, span in enumerate(spans):
        values |= {f"p{index}": span.partition, f"a{index}": span.start, f"b{index}": span.until}
    for name, table in pipeline.tables.items():
        last: dict[str, Any] = {}
        while True:
            sql = dialect_of(connection).outdated_rows(settings.db_data, name, table, len(spans), after=bool(last))
            with translated(), connection.cursor() as cursor:
                cursor.execute(sql, values | last)
                rows = [OutdatedRow(tuple(row[:-2]), int(row[-2]), int(row[-1])) for row in cursor.fetchall()]
            if rows:
                yield name, rows
            if len(rows) < ROWS:
                break
            last = {f"k{index}": value for index, value in enumerate(rows[-1].key)}


def count_outdated(
    connection: Connection[Any],
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
    ranges: Iterable[Range],
    spare: Spare,
) -> int:
    """How many rows of older versions :func:`retract_outdated` would delete."""
    return sum(len(spare(rows)) for _, rows in find_outdated(connection, settings, pipeline, write_context, ranges))


def retract_outdated(
    connection: Connection[Any],
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
    ranges: Iterable[Range],
    spare: Spare,
) -> int:
    """Delete the rows that no record produces any more and subtract them from the rollups, while the stream runs.

    Every transaction adds their number to the replay's row.

    Args:
        connection: in autocommit mode, as the stream account.
        settings: names of the schemas.
        pipeline: the new version.
        write_context: of a replay that has processed the ranges.
        ranges: of the topic's present generation.
        spare: selects rows that stay.

    Returns:
        Number of rows retracted.

    Raises:
        Fenced: a newer pipeline version has acquired the lease meanwhile, or the topic was recreated.
    """
    retracted = 0
    check_ownership(connection, pipeline)
    for name, rows in find_outdated(connection, settings, pipeline, write_context, ranges):
        if leaving := spare(rows):
            target = TableTarget(connection, settings.db_data, pipeline, name)
            prepare_tombstones(target)
            retracted += run_step(connection, partial(_retract, target, write_context, leaving), _BACKOFF)
    return retracted


def _retract(target: TableTarget, write_context: WriteContext, rows: list[OutdatedRow], cursor: Any) -> int:
    """One transaction. Rows that were written to since they were found stay."""
    connection = target.connection
    clear = target.dialect.clear_tombstones(target.schema, target.name)
    insert = target.dialect.insert_tombstone(target.schema, target.name, target.table)
    removed = 0
    target = replace(target, incomplete=incomplete_rollups(connection, target.pipeline))
    for partition, group in groupby(sorted(rows, key=attrgetter("partition")), attrgetter("partition")):
        cursor.execute(clear)
        cursor.executemany(insert, [(*row.key, row.offset) for row in group])
        removed += remove_rows(target, STILL_OUTDATED, write_context.row_context(partition).parameters())
    assert write_context.replay_id is not None  # only replays retract rows
    replays.count_retracted(connection, write_context.replay_id, removed)
    check_topic_generation(connection, write_context)
    check_pipeline_version(connection, write_context.stream, write_context.pipeline_version)
    return removed


def count_rewritable(settings: Settings, pipeline: Pipeline, write_context: WriteContext, partition: int) -> int:
    """How many of the rows that this worker staged last would rewrite the row of an older pipeline version."""
    values = write_context.row_context(partition).parameters()
    count, connection = 0, worker_connection(settings)
    with translated(), connection.cursor() as cursor:
        for name, table in pipeline.tables.items():
            cursor.execute(dialect_of(connection).count_rewritable(settings.db_data, name, table), values)
            (rows,) = cursor.fetchone() or (0,)
            count += int(rows)
    return count
