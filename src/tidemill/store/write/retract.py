"""Rows that a newer pipeline version does not make any more, and how they leave their tables.

A replay rewrites the rows that the new version still makes. What then still carries an older version within the
replayed ranges comes from records that are filtered or quarantined now, or that make a row of another key.
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
from tidemill.store.sql.replay import STILL_OUTDATED
from tidemill.store.steps import run_step
from tidemill.store.write.fencing import check_pipeline_version, check_topic_generation
from tidemill.store.write.ledger_rows import Range, WriteContext
from tidemill.store.write.merge import TableTarget, prepare_tombstones, remove_rows

ROWS = 2_000
"""Rows that leave in one transaction."""
_BACKOFF = Backoff(longest_seconds=1.0, attempts=20)


@dataclass(frozen=True)
class OutdatedRows:
    """A row of an older version: its key and the record that made it."""

    key: tuple[Any, ...]
    partition: int
    offset: int


Spare = Callable[[list[OutdatedRows]], list[OutdatedRows]]
"""Leaves out the rows that stay although the new version does not make them."""


def find_outdated(
    connection: Connection[Any],
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
    ranges: Iterable[Range],
) -> Iterator[tuple[str, list[OutdatedRows]]]:
    """The rows of older versions than the claimant's whose records are in the ranges: table after table, in parts.

    Reads every table once. No part is read before the one before it was dealt with.
    """
    spans = list(ranges)
    values: dict[str, Any] = {
        "since_commit": write_context.since_commit,
        "pipeline_version": write_context.pipeline_version,
        "rows": ROWS,
    }
    for place, span in enumerate(spans):
        values |= {f"p{place}": span.partition, f"a{place}": span.start, f"b{place}": span.until}
    for name, table in pipeline.tables.items():
        last: dict[str, Any] = {}
        while True:
            sql = dialect_of(connection).outdated_rows(settings.db_data, name, table, len(spans), after=bool(last))
            with translated(), connection.cursor() as cursor:
                cursor.execute(sql, values | last)
                found = [OutdatedRows(tuple(row[:-2]), int(row[-2]), int(row[-1])) for row in cursor.fetchall()]
            if found:
                yield name, found
            if len(found) < ROWS:
                break
            last = {f"k{place}": value for place, value in enumerate(found[-1].key)}


def count_outdated(
    connection: Connection[Any],
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
    ranges: Iterable[Range],
    spare: Spare,
) -> int:
    """How many rows of older versions there are whose records are in the ranges and are not spared."""
    return sum(len(spare(rows)) for _, rows in find_outdated(connection, settings, pipeline, write_context, ranges))


def retract_outdated(
    connection: Connection[Any],
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
    ranges: Iterable[Range],
    spare: Spare,
) -> int:
    """Take the rows that no record makes any more out of the tables and their rollups, beside the running stream.

    Every transaction counts them in the replay's row.

    Args:
        connection: autocommit, as the stream account.
        settings: schemas.
        pipeline: the new version.
        claimant: of a replay that has been through the ranges.
        ranges: of the topic's present incarnation.
        spare: whatever it leaves out stays.

    Returns:
        Rows retracted.

    Raises:
        Fenced: the stream has a newer version meanwhile, or its topic was made again.
    """
    gone = 0
    for name, rows in find_outdated(connection, settings, pipeline, write_context, ranges):
        if leaving := spare(rows):
            target = TableTarget(connection, settings.db_data, pipeline, name)
            prepare_tombstones(target)
            gone += run_step(connection, partial(_retract, target, write_context, leaving), _BACKOFF)
    return gone


def _retract(target: TableTarget, write_context: WriteContext, rows: list[OutdatedRows], cursor: Any) -> int:
    """One transaction. Rows that were written since they were found stay."""
    connection = target.connection
    empty = target.dialect.clear_tombstones(target.schema, target.name)
    put = target.dialect.insert_tombstone(target.schema, target.name, target.table)
    values: dict[str, Any] = {
        "since_commit": write_context.since_commit,
        "pipeline_version": write_context.pipeline_version,
    }
    removed = 0
    target = replace(target, incomplete=incomplete_rollups(connection, target.pipeline))
    for partition, found in groupby(sorted(rows, key=attrgetter("partition")), attrgetter("partition")):
        cursor.execute(empty)
        cursor.executemany(put, [(*row.key, row.offset) for row in found])
        removed += remove_rows(target, STILL_OUTDATED, values | {"partition": partition})
    assert write_context.replay_id is not None  # only replays retract rows
    replays.count_retracted(connection, write_context.replay_id, removed)
    check_topic_generation(connection, write_context)
    check_pipeline_version(connection, write_context.stream, write_context.pipeline_version)
    return removed


def count_rewritable(settings: Settings, pipeline: Pipeline, write_context: WriteContext, partition: int) -> int:
    """Of the rows that this worker staged last: how many would rewrite the row that an older version made."""
    values = {
        "partition": partition,
        "since_commit": write_context.since_commit,
        "pipeline_version": write_context.pipeline_version,
    }
    found, connection = 0, worker_connection(settings)
    with translated(), connection.cursor() as cursor:
        for name, table in pipeline.tables.items():
            cursor.execute(dialect_of(connection).count_rewritable(settings.db_data, name, table), values)
            (rows,) = cursor.fetchone() or (0,)
            found += int(rows)
    return found
