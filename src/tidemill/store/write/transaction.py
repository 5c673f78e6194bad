"""The one transaction of a commit: rows, rollups, quarantine, ledger and the position in Kafka, all or nothing."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from typing import Any

import pyarrow as pa
from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import Contention, DatabaseFull, DatabaseUnavailable, StoreError, StructureError, Transient
from tidemill.failpoints import reach
from tidemill.retry import Backoff
from tidemill.spec.schema import Pipeline, TableKind
from tidemill.store.connection import drop_worker_connection, translated, worker_connection
from tidemill.store.maintenance.rollup_backfill import incomplete_rollups
from tidemill.store.scoring.live_scoring import ScoredCommit, live_models, notify_unscored, prepare_scores, score_commit
from tidemill.store.write import ledger_rows
from tidemill.store.write.bad_rows import rejected_by_rollups
from tidemill.store.write.context import WriteContext
from tidemill.store.write.fencing import (
    check_fencing_token,
    check_pipeline_version,
    check_topic_generation,
)
from tidemill.store.write.ledger_rows import Batch, Counts, Rejected
from tidemill.store.write.merge import Merged, Staged, TableTarget, merge_rows, prepare, without
from tidemill.store.write.quarantine_rows import QuarantineStage, ReadRaw, with_bytes

__all__ = ["Batch", "Counts", "ReadRaw", "Rejected", "write_batch"]

COMMIT_BACKOFF = Backoff(attempts=8)
"""For a transaction that is run again from memory, after contention or a lost connection."""


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

    Runs again from memory after contention and after a lost connection. The position decides whether a transaction with
    a lost connection was committed: it is at the end of this batch if, and only if, the commit happened.

    Args:
        settings: where the database is.
        pipeline: declares the tables.
        write_context: the stream or replay that the commit is made for.
        batch: what to write.
        read_raw: reads the bytes of records that only the database rejects; None to quarantine them without bytes.
        dry_run: roll everything back at the end.

    Raises:
        Fenced: another driver has acquired the lease, or moved the position.
        StructureError: a table, rollup, function or grant is missing; no record is at fault.
        StoreError: the database refuses the rows, or remains unavailable.
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
    """Roll a failed transaction back; closes the connection unless it can be used for another transaction."""
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
        # Staged before the transaction begins: loading takes no lock that another transaction waits for.
        loaded, staged, rejected = self._stage({})
        prepare_scores(self.connection, self.settings, self.pipeline, staged)
        quarantined = QuarantineStage(self.connection, self.settings.db_control, self.pipeline)
        if self.batch.rejected:
            quarantined.add(self.batch.rejected)
        reach("after stage")
        while True:
            unread = {offset: reason for offset, reason in rejected.items() if offset not in quarantined.offsets}
            if unread:
                quarantined.add(with_bytes(unread, None if quarantined.is_full else read_raw))
            try:
                counts = self._commit(loaded, staged, quarantined, dry_run=dry_run)
                break
            except StoreError as error:
                if isinstance(error, Transient | StructureError):
                    raise
                more = self._find_uncountable(rejected)
                if not more:
                    raise
            loaded, staged, rejected = self._stage(rejected | more)
        reach("after COMMIT")
        quarantined.drop()
        return counts

    def _commit(
        self,
        loaded: list[tuple[str, pa.Table]],
        staged: dict[str, Staged],
        quarantined: QuarantineStage,
        *,
        dry_run: bool,
    ) -> Counts:
        """Run the transaction."""
        with translated(), self.connection.cursor() as cursor:
            self.connection.begin()
            incomplete = incomplete_rollups(self.connection, self.pipeline)
            commit_id = ledger_rows.open_row(self.connection, self.write_context, self.batch)
            merged = {
                name: merge_rows(self._target(name, commit_id, incomplete), staged[name], with_offsets=self._several)
                for name in staged
            }
            self._score(commit_id, [name for name, result in merged.items() if result.written], dry_run=dry_run)
            counts = self._count(commit_id, loaded, merged, len(quarantined.offsets))
            quarantined.insert(self.write_context, self.batch, commit_id)
            ledger_rows.close_row(self.connection, counts)
            if self._several:
                ledger_rows.count_tables(self.connection, counts, self._count_tables(counts, staged, merged))
            self._check(commit_id)
            reach("before COMMIT")
            cursor.execute("ROLLBACK" if dry_run else "COMMIT")
        return counts

    def _score(self, commit_id: int, written: list[str], *, dry_run: bool) -> None:
        """Score the rows that were written, if a model scores live."""
        models = live_models(self.pipeline, written)
        if models and not dry_run:
            scores = score_commit(self.connection, ScoredCommit(self.settings, self.pipeline, commit_id), models)
            notify_unscored(self.settings, self.pipeline, models, scores)

    def _find_uncountable(self, rejected: dict[int, str]) -> dict[int, str]:
        """Of a batch that the database refused: offset -> reason of the records that a rollup cannot count."""
        with translated():
            self.connection.rollback()
        rows, deleted = _without(self.batch.rows, rejected), _without(self.batch.deleted, rejected)
        reasons: dict[int, str] = {}
        for name in rows:
            reasons |= rejected_by_rollups(self._target(name), rows[name], deleted.get(name))
        return reasons

    @property
    def _several(self) -> bool:
        return len(self.pipeline.tables) > 1

    def _target(self, name: str, commit_id: int = 0, incomplete: Iterable[str] = ()) -> TableTarget:
        return TableTarget(
            self.connection,
            self.settings.db_data,
            self.pipeline,
            name,
            frozenset(incomplete),
            concurrent=self.write_context.replay_id is not None,
            rows=self.write_context.row_context(self.batch.range.partition, commit_id),
        )

    def _stage(self, rejected: dict[int, str]) -> tuple[list[tuple[str, pa.Table]], dict[str, Staged], dict[int, str]]:
        """Load the rows of all tables. A record that the database rejects for one table is written to no other, either.

        Args:
            rejected: offset -> reason of the records that are known to be rejected.

        Returns:
            Table by table the remaining rows and deletions, what is staged of them, and offset -> reason of all
            rejected records.
        """
        rows, deleted = self.batch.rows, self.batch.deleted
        if rejected:
            rows, deleted = _without(rows, rejected), _without(deleted, rejected)
        while True:
            staged = {name: prepare(self._target(name), rows[name], deleted.get(name)) for name in rows}
            more = {offset: reason for stage in staged.values() for offset, reason in stage.rejected.items()}
            rejected = rejected | more
            if not more or not self._several:
                return [*rows.items(), *deleted.items()], staged, rejected
            # Without these records, older rows become the newest of their keys, and must be loaded, too.
            rows, deleted = _without(rows, more), _without(deleted, more)

    def _count(
        self,
        commit_id: int,
        loaded: list[tuple[str, pa.Table]],
        merged: dict[str, Merged],
        quarantined: int,
    ) -> Counts:
        """Count each record once. With several tables it is written if it was written to any of them."""
        tables = self.pipeline.tables
        if self._several:
            written = frozenset[int]().union(*(result.offsets for result in merged.values()))
            seen: dict[TableKind, set[int]] = {TableKind.ENTITY: set(), TableKind.EVENT: set()}
            for name, rows in loaded:
                seen[tables[name].kind].update(rows["_offset"].to_pylist())
            unchanged = {
                TableKind.ENTITY: len(seen[TableKind.ENTITY] - written),
                TableKind.EVENT: len(seen[TableKind.EVENT] - written - seen[TableKind.ENTITY]),
            }
            new = len(written)
        else:
            unchanged = {TableKind.ENTITY: 0, TableKind.EVENT: 0}
            new = sum(result.written for result in merged.values())
            for name, result in merged.items():
                unchanged[tables[name].kind] += result.unchanged
        return Counts(
            commit_id,
            written=new,
            duplicate=unchanged[TableKind.EVENT],
            stale=unchanged[TableKind.ENTITY],
            filtered=self.batch.filtered,
            quarantined=quarantined,
            gap=self.batch.gap,
            unselected=self.batch.unselected,
            warned=self.batch.warned,
        )

    def _count_tables(
        self, counts: Counts, staged: dict[str, Staged], merged: dict[str, Merged]
    ) -> dict[str, dict[str, int]]:
        records = counts.written + counts.duplicate + counts.stale + counts.filtered
        by_table = {}
        for name, result in merged.items():
            selected = staged[name].rows + staged[name].tombstones
            kind = "duplicate" if self.pipeline.tables[name].kind is TableKind.EVENT else "stale"
            by_table[name] = {"written": result.written, kind: result.unchanged, "filtered": records - selected}
        return by_table

    def _check(self, commit_id: int) -> None:
        """Move the stream's sums and position, and check its fencing token; for a replay check topic and version."""
        if self.write_context.replay_id is None:
            ledger_rows.add_to_sums(self.connection, commit_id)
            ledger_rows.move_position(self.connection, self.write_context, self.batch.range)
            check_fencing_token(self.connection, self.write_context.stream, self.write_context.epoch)
        else:
            check_topic_generation(self.connection, self.write_context)
            check_pipeline_version(self.connection, self.write_context.stream, self.write_context.pipeline_version)


def _without(tables: dict[str, pa.Table], offsets: Collection[int]) -> dict[str, pa.Table]:
    return {name: without(rows, offsets) for name, rows in tables.items()}
