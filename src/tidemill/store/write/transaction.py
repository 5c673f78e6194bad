"""The one transaction: rows, rollups, quarantine, ledger and the position in Kafka, wholly or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pyarrow as pa
from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import Contention, DatabaseFull, DatabaseUnavailable, StoreError, Transient
from tidemill.failpoints import reach
from tidemill.retry import Backoff
from tidemill.spec.schema import Pipeline, TableKind
from tidemill.store.connection import drop_worker_connection, translated, worker_connection
from tidemill.store.maintenance.rollup_backfill import incomplete_rollups
from tidemill.store.scoring.live_scoring import ScoredCommit, live_models, notify_unscored, prepare_scores, score_commit
from tidemill.store.sql.identifiers import NO_PARTITION
from tidemill.store.write import ledger_rows
from tidemill.store.write.bad_rows import rejected_by_rollups
from tidemill.store.write.fencing import (
    NO_GENERATION,
    check_fencing_token,
    check_pipeline_version,
    check_topic_generation,
)
from tidemill.store.write.ledger_rows import Batch, Counts, Range, Rejected, WriteContext
from tidemill.store.write.merge import Merged, Staged, TableTarget, merge_rows, prepare, without

__all__ = ["Batch", "Counts", "Range", "ReadRaw", "Rejected", "WriteContext", "write_batch"]

COMMIT_BACKOFF = Backoff(attempts=8)
"""For a transaction that is run again from memory, after contention or a lost connection."""

ReadRaw = Callable[[Iterable[int]], dict[int, Rejected]]
"""Offsets of one partition -> their records as Kafka holds them, as far as it still does."""


def write_batch(
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
    batch: Batch,
    *,
    read_raw: ReadRaw | None = None,
    dry_run: bool = False,
) -> Counts:
    """Commit one Kafka partition of one batch, exactly once.

    Runs again from memory after contention, and after a lost connection, whose outcome is settled by reading the
    position: it stands where this batch ends if, and only if, the commit happened.

    Args:
        settings: where the database is.
        pipeline: whose tables are written.
        claimant: on whose behalf.
        batch: what to write.
        read_raw: reads the bytes of records that only the database refuses; without it they are quarantined without.
        dry_run: do everything and roll it back.

    Raises:
        Fenced: another driver has the stream, or moved its position.
        StoreError: the database refuses the rows, or stays away.
    """
    attempts = itertools.count()

    def attempt() -> Counts:
        is_first = next(attempts) == 0
        try:
            connection = worker_connection(settings)
            if not is_first:
                ledger_rows.await_outcome(connection, write_context, batch.range)
            return _Transaction(connection, settings, pipeline, write_context, batch).run(read_raw, dry_run=dry_run)
        except Exception as error:
            # Whatever it was, the connection may be in the middle of a transaction.
            _roll_back(settings, keep=isinstance(error, Contention | DatabaseFull))
            raise
        except BaseException:  # a task that is killed, too: the transaction ends with its connection
            drop_worker_connection(settings)
            raise

    return COMMIT_BACKOFF.run(attempt)


def _roll_back(settings: Settings, *, keep: bool) -> None:
    """End the transaction that failed, by the end of its connection unless that is fit for another one."""
    if keep:
        try:
            with translated():
                worker_connection(settings).rollback()
        except DatabaseUnavailable:
            keep = False
    if not keep:
        drop_worker_connection(settings)


class _Transaction:
    """One attempt to commit a batch over one connection."""

    def __init__(
        self,
        connection: Connection[Any],
        settings: Settings,
        pipeline: Pipeline,
        write_context: WriteContext,
        batch: Batch,
    ) -> None:
        self.connection, self.settings, self.pipeline = connection, settings, pipeline
        self.write_context, self.batch = write_context, batch

    def run(self, read_raw: ReadRaw | None = None, *, dry_run: bool = False) -> Counts:
        done = ledger_rows.committed(self.connection, self.write_context, self.batch.batch_id, self.batch.range)
        if done is not None and not dry_run:
            return done
        reach("before stage")
        # Staged before the transaction begins: loading takes no lock that anybody waits for.
        left, staged, refused = self._stage({})
        prepare_scores(self.connection, self.settings, self.pipeline, staged)
        reach("after stage")
        while True:
            rejected = [*self.batch.rejected, *self._with_bytes(refused, read_raw)]
            try:
                counts = self._commit(left, staged, rejected, dry_run=dry_run)
                break
            except StoreError as error:
                if isinstance(error, Transient):
                    raise
                more = self._unfit(refused)
                if not more:
                    raise
            left, staged, refused = self._stage(refused | more)
        reach("after COMMIT")
        return counts

    def _commit(
        self,
        left: list[tuple[str, pa.Table]],
        staged: dict[str, Staged],
        rejected: list[Rejected],
        *,
        dry_run: bool,
    ) -> Counts:
        """The transaction itself."""
        with translated(), self.connection.cursor() as cursor:
            self.connection.begin()
            building = incomplete_rollups(self.connection, self.pipeline)
            commit_id = ledger_rows.open_row(self.connection, self.write_context, self.batch)
            settled = {
                name: merge_rows(
                    self._target(name, building), staged[name], self._values(commit_id), with_offsets=self._several
                )
                for name in staged
            }
            self._score(commit_id, [name for name, found in settled.items() if found.written], dry_run=dry_run)
            counts = self._count(commit_id, left, settled, rejected)
            ledger_rows.quarantine(self.connection, self.write_context, self.batch, rejected, commit_id)
            ledger_rows.close_row(self.connection, counts)
            if self._several:
                ledger_rows.count_tables(self.connection, counts, self._count_tables(counts, staged, settled))
            self._finish()
            reach("before COMMIT")
            cursor.execute("ROLLBACK" if dry_run else "COMMIT")
        return counts

    def _score(self, commit_id: int, written: list[str], *, dry_run: bool) -> None:
        """Score what was written, where a model is to score live."""
        models = live_models(self.pipeline, written)
        if models and not dry_run:
            pending_notifications = score_commit(
                self.connection, ScoredCommit(self.settings, self.pipeline, commit_id), models
            )
            notify_unscored(self.settings, self.pipeline, models, pending_notifications)

    def _unfit(self, refused: dict[int, str]) -> dict[int, str]:
        """Of a batch that was refused as a whole: offset -> reason of the records that a rollup cannot count."""
        with translated():
            self.connection.rollback()
        rows, deleted = _without(self.batch.rows, refused), _without(self.batch.deleted, refused)
        found: dict[int, str] = {}
        for name in rows:
            found |= rejected_by_rollups(self._target(name), rows[name], deleted.get(name), self._values(0))
        return found

    @property
    def _several(self) -> bool:
        return len(self.pipeline.tables) > 1

    def _target(self, name: str, building: Iterable[str] = ()) -> TableTarget:
        return TableTarget(
            self.connection,
            self.settings.db_data,
            self.pipeline,
            name,
            frozenset(building),
            beside=self.write_context.replay_id is not None,
            partition=self.batch.range.partition,
            since_commit=self.write_context.since_commit,
        )

    def _values(self, commit_id: int) -> dict[str, int]:
        unplaced = self.write_context.since_commit == NO_GENERATION
        return {
            "commit": commit_id,
            "partition": NO_PARTITION if unplaced else self.batch.range.partition,
            "pipeline_version": self.write_context.pipeline_version,
            "since_commit": self.write_context.since_commit,
        }

    def _stage(self, refused: dict[int, str]) -> tuple[list[tuple[str, pa.Table]], dict[str, Staged], dict[int, str]]:
        """Load the rows of all tables. A record that the database refuses for one table goes to none of the others.

        Args:
            refused: offset -> reason of the records that are known to be.

        Returns:
            Table by table the rows and deletions that are left, what is staged of them, and offset -> reason of the
            records refused.
        """
        rows, deleted = self.batch.rows, self.batch.deleted
        if refused:
            rows, deleted = _without(rows, refused), _without(deleted, refused)
        while True:
            staged = {name: prepare(self._target(name), rows[name], deleted.get(name)) for name in rows}
            more = {offset: reason for stage in staged.values() for offset, reason in stage.refused.items()}
            refused = refused | more
            if not more or not self._several:
                return [*rows.items(), *deleted.items()], staged, refused
            # Without these, rows that they stood before are the newest of their keys, and are looked at now.
            rows, deleted = _without(rows, more), _without(deleted, more)

    def _with_bytes(self, refused: dict[int, str], read_raw: ReadRaw | None) -> list[Rejected]:
        raw = read_raw(refused) if read_raw and refused else {}
        return [raw.get(offset, Rejected(offset, "")).because(reason) for offset, reason in refused.items()]

    def _count(
        self,
        commit_id: int,
        left: list[tuple[str, pa.Table]],
        settled: dict[str, Merged],
        rejected: list[Rejected],
    ) -> Counts:
        """What became of each record: with several tables the best that became of it in any of them."""
        tables = self.pipeline.tables
        if self._several:
            written = frozenset[int]().union(*(found.offsets for found in settled.values()))
            seen: dict[TableKind, set[int]] = {TableKind.ENTITY: set(), TableKind.EVENT: set()}
            for name, found_rows in left:
                seen[tables[name].kind].update(found_rows["_offset"].to_pylist())
            unchanged = {
                TableKind.ENTITY: len(seen[TableKind.ENTITY] - written),
                TableKind.EVENT: len(seen[TableKind.EVENT] - written - seen[TableKind.ENTITY]),
            }
            new = len(written)
        else:
            unchanged = {TableKind.ENTITY: 0, TableKind.EVENT: 0}
            new = sum(found.written for found in settled.values())
            for name, found in settled.items():
                unchanged[tables[name].kind] += found.unchanged
        return Counts(
            commit_id,
            written=new,
            duplicate=unchanged[TableKind.EVENT],
            stale=unchanged[TableKind.ENTITY],
            filtered=self.batch.filtered,
            quarantined=len(rejected),
            gap=self.batch.gap,
            unselected=self.batch.unselected,
            warned=self.batch.warned,
        )

    def _count_tables(
        self, counts: Counts, staged: dict[str, Staged], settled: dict[str, Merged]
    ) -> dict[str, dict[str, int]]:
        records = counts.written + counts.duplicate + counts.stale + counts.filtered
        found = {}
        for name, result in settled.items():
            given = staged[name].rows + staged[name].tombstones
            kind = "duplicate" if self.pipeline.tables[name].kind is TableKind.EVENT else "stale"
            found[name] = {"written": result.written, kind: result.unchanged, "filtered": records - given}
        return found

    def _finish(self) -> None:
        """The stream moves its position and proves its epoch; a replay proves that topic and version are current."""
        if self.write_context.replay_id is None:
            ledger_rows.move_position(self.connection, self.write_context, self.batch.range)
            check_fencing_token(self.connection, self.write_context.stream, self.write_context.epoch)
        else:
            check_topic_generation(self.connection, self.write_context)
            check_pipeline_version(self.connection, self.write_context.stream, self.write_context.pipeline_version)


def _without(tables: dict[str, pa.Table], offsets: Collection[int]) -> dict[str, pa.Table]:
    return {name: without(found, offsets) for name, found in tables.items()}
