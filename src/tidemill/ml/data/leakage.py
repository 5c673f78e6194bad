"""The proof by time: a feature that was known at ``known_at`` has the same value ever after.

What is known in advance cannot change when the future arrives. So the features of a row are kept as they are when the
row's time comes, and compared with what the same query says later. A feature that reads the outcome, or an aggregate
that goes on counting after the row's time, differs; no reading of SQL would find the second kind.

The proof is as good as the table is faithful to time: it finds what was not yet in the database when the row's time
came. Values of a dimension that are copied into a row ahead of their time are in the database, and pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Account, Settings
from tidemill.errors import ModelError, StoreError, Transient
from tidemill.ml.registry.versions import declared_model
from tidemill.spec.schema import Model, Pipeline
from tidemill.store.connection import dialect_of, session, translated
from tidemill.store.maintenance.rollup_backfill import incomplete_rollups
from tidemill.store.sql import Dialect

ROWS = "(rows)"
"""Stands for the choice of rows: rows that came to the query, or left it, after their time."""


@dataclass(frozen=True)
class Leak:
    """A column of the feature query that knew less at the row's own time than it says now."""

    column: str
    rows: int
    """In how many rows it differs."""


@dataclass
class FeatureWatch:
    """Features as they were when their rows' time came, in a temporary table of this connection."""

    connection: Connection[Any]
    schema: str
    name: str
    model: Model
    until: datetime | None = None
    """The time of the last ``take``."""
    late: int = 0
    """Rows that a ``take`` found and an earlier one should have."""

    @property
    def dialect(self) -> Dialect:
        """Makes its statements."""
        return dialect_of(self.connection)

    def take(self, known_until: datetime) -> int:
        """Keep the features, as they are now, of rows that were not kept yet and whose time is not after this.

        Call it in rising order of time, when the tables hold all that was known at ``known_until`` and no more.

        Returns:
            Rows kept by this call.
        """
        self.late += self._missing()
        with translated(), self.connection.cursor() as cursor:
            cursor.execute(self.dialect.extend_snapshot(self.schema, self.name, self.model, known_until))
            self.until = known_until
            return int(cursor.rowcount)

    def leaks(self) -> list[Leak]:
        """The columns that say something else now than they did when they were kept; none is the proof."""
        columns = (self.model.known_at, *self.model.query.features)
        with translated(), self.connection.cursor() as cursor:
            cursor.execute(self.dialect.compare_snapshot(self.schema, self.name, self.model, columns))
            *changed, gone = map(int, cursor.fetchone())
        found = dict(zip(columns, changed, strict=True)) | {ROWS: gone + self.late + self._missing()}
        return [Leak(column, rows) for column, rows in found.items() if rows]

    def _missing(self) -> int:
        """Rows whose time is not after the last ``take``, and which it did not find."""
        if self.until is None:
            return 0
        with translated(), self.connection.cursor() as cursor:
            cursor.execute(self.dialect.count_missing(self.schema, self.name, self.model, self.until))
            return int(cursor.fetchone()[0])


@contextmanager
def watch_features(settings: Settings, pipeline: Pipeline, model_name: str) -> Iterator[FeatureWatch]:
    """Begin the proof for one model, with nothing kept yet. It ends with the block."""
    model = declared_model(pipeline, model_name)
    with session(settings, Account.STREAM, schema=settings.db_data) as connection:
        with connection.cursor() as cursor:
            for statement in dialect_of(connection).create_snapshot(settings.db_data, model_name, model):
                cursor.execute(statement)
        yield FeatureWatch(connection, settings.db_data, model_name, model)


_LOOKED_AT_ROWS = 2_000
_LOOKED_AT_DAYS = 7
"""Of the rows before the cut the last ones are looked at: what leaks over it leaks into them first."""


def refuse_look_ahead(settings: Settings, pipeline: Pipeline, model_name: str, cut: datetime) -> None:
    """Refuse a feature query whose rows from before a cut change by what became known after it.

    Such a query gives its training rows a look at the holdout: an average over a whole table, say, or a rollup that
    goes on counting. What a dimension holds ahead of time is not found: the engine knows no time of it.

    Args:
        settings: where the database is.
        pipeline: whose model.
        model_name: which.
        cut: between training and holdout, naive UTC.

    Raises:
        ModelError: naming the first feature that differs.
    """
    model = declared_model(pipeline, model_name)
    features = [name for name in model.query.features if name not in model.train.known_ahead]
    with session(settings, Account.STREAM) as connection:
        if incomplete_rollups(connection, pipeline):
            return  # a rollup that does not count all rows yet differs whatever the query
    with session(settings, Account.READ, schema=settings.db_data) as connection:
        d = dialect_of(connection)
        hidden = d.without_later(settings.db_data, pipeline, model, cut)
        if hidden is None or not features:
            return
        window = (cut - timedelta(days=_LOOKED_AT_DAYS), cut, _LOOKED_AT_ROWS)
        try:
            with translated(), connection.cursor() as cursor:
                cursor.execute(d.compare_look_ahead(hidden, model, features, window))
                differing = dict(zip(features, map(int, cursor.fetchone()), strict=True))
        except StoreError as error:
            if isinstance(error, Transient):
                raise
            # The query itself is sound: it has just been read. What we made of it is not, and proves nothing.
            print(f"whether features look beyond the cut cannot be told: {error}", flush=True)  # noqa: T201 -- the job's log
            return
    found = next(((name, rows) for name, rows in differing.items() if rows), None)
    if found:
        raise ModelError(
            f"{model.features}: feature {found[0]} of rows known before {cut} changes by rows known later",
            value=f"{found[1]} of the last rows before the holdout",
            remedy=f"read only what was known at {model.known_at}; if it was known ahead, name it in train.known_ahead",
        )
