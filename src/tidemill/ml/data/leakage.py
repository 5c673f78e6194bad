"""Checks that no feature knows what became known after its row's time.

Two checks compare values, because reading the SQL does not show an aggregate that goes on counting:

- :func:`refuse_look_ahead` runs in every training. It computes the features of rows from before the holdout again,
  without the rows that became known later, and refuses a query whose features differ.
- :func:`snapshot_features` is for tests. It stores features when their rows' time comes and compares them with what the
  same query returns in the end. A value that was known at ``known_at`` does not change afterwards.

Both depend on tables that are faithful to time: they find what was not in the database yet when the row's time came.
Values of a dimension that are copied into a row ahead of their time are in the database, and are not found.
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
"""In place of a column's name: rows that the query began or ceased to return after their time."""


@dataclass(frozen=True)
class Leak:
    """A column of the feature query that had another value at the row's own time than it has now."""

    column: str
    rows: int
    """In how many rows it differs."""


@dataclass
class FeatureSnapshot:
    """Features as they were when their rows' time came, in a temporary table of this connection."""

    connection: Connection[Any]
    schema: str
    name: str
    model: Model
    until: datetime | None = None
    """The time of the last :meth:`extend`."""
    late: int = 0
    """Rows that an :meth:`extend` stored and an earlier one should have."""

    @property
    def dialect(self) -> Dialect:
        """The dialect of the connection's database."""
        return dialect_of(self.connection)

    def extend(self, known_until: datetime) -> int:
        """Store the present features of rows that are not stored yet and whose time is not after this.

        Call it in rising order of time, when the tables hold all that was known at ``known_until`` and no more.

        Returns:
            Rows stored by this call.
        """
        self.late += self._missing()
        with translated(), self.connection.cursor() as cursor:
            cursor.execute(self.dialect.extend_snapshot(self.schema, self.name, self.model, known_until))
            self.until = known_until
            return int(cursor.rowcount)

    def leaks(self) -> list[Leak]:
        """The columns whose present value is not the stored one; none if no feature leaks."""
        columns = (self.model.known_at, *self.model.query.features)
        with translated(), self.connection.cursor() as cursor:
            cursor.execute(self.dialect.compare_snapshot(self.schema, self.name, self.model, columns))
            *changed, removed = map(int, cursor.fetchone())
        differing = dict(zip(columns, changed, strict=True)) | {ROWS: removed + self.late + self._missing()}
        return [Leak(column, rows) for column, rows in differing.items() if rows]

    def _missing(self) -> int:
        """Rows whose time is not after the last :meth:`extend`, and which are not stored."""
        if self.until is None:
            return 0
        with translated(), self.connection.cursor() as cursor:
            cursor.execute(self.dialect.count_missing(self.schema, self.name, self.model, self.until))
            return int(cursor.fetchone()[0])


@contextmanager
def snapshot_features(settings: Settings, pipeline: Pipeline, model_name: str) -> Iterator[FeatureSnapshot]:
    """An empty snapshot of one model's features; it is dropped after the block."""
    model = declared_model(pipeline, model_name)
    with session(settings, Account.STREAM, schema=settings.db_data) as connection:
        with connection.cursor() as cursor:
            for statement in dialect_of(connection).create_snapshot(settings.db_data, model_name, model):
                cursor.execute(statement)
        yield FeatureSnapshot(connection, settings.db_data, model_name, model)


_COMPARED_ROWS = 2_000
_COMPARED_DAYS = 7
"""The last rows before the holdout are compared: what leaks over the split leaks into them first."""


def refuse_look_ahead(settings: Settings, pipeline: Pipeline, model_name: str, split: datetime) -> None:
    """Refuse a feature query whose rows from before the holdout change by what became known in it.

    The training rows of such a query would contain information of the holdout: for example an average over a whole
    table, or a rollup that goes on counting. Values that a dimension holds ahead of time are not found, because the
    database knows no time of them. A query that cannot be checked is refused, too.

    Args:
        settings: where the database is.
        pipeline: the pipeline of the model.
        model_name: which of its models.
        split: the time between training and holdout, naive UTC.

    Raises:
        ModelError: a feature looks ahead; it is the first one of the query that does. Or whether one does cannot be
            found out.
    """
    model = declared_model(pipeline, model_name)
    features = [name for name in model.query.features if name not in model.train.known_ahead]
    if not features:
        return
    with session(settings, Account.STREAM) as connection:
        incomplete = incomplete_rollups(connection, pipeline)
    if incomplete:
        raise _unchecked(model, f"these rollups do not count all rows yet: {', '.join(sorted(incomplete))}")
    if (reason := _why_unchecked(pipeline, model)) is not None:
        raise _unchecked(model, reason)
    with session(settings, Account.READ, schema=settings.db_data) as connection:
        d = dialect_of(connection)
        hidden = d.without_later(settings.db_data, pipeline, model, split)
        if hidden is None:
            return
        window = (split - timedelta(days=_COMPARED_DAYS), split, _COMPARED_ROWS)
        try:
            with translated(), connection.cursor() as cursor:
                cursor.execute(d.compare_look_ahead(hidden, model, features, window))
                differing = dict(zip(features, map(int, cursor.fetchone()), strict=True))
        except StoreError as error:
            if isinstance(error, Transient):
                raise
            # The author's query is valid, for it has just been read; the statement that is made of it is not.
            raise _unchecked(model, str(error)) from error
    leaking = next(((name, rows) for name, rows in differing.items() if rows), None)
    if leaking:
        feature, rows = leaking
        raise ModelError(
            "TM-ML-LOOK-AHEAD",
            value=rows,
            file=model.features,
            feature=feature,
            split=split,
            known_at=model.known_at,
        )


def _why_unchecked(pipeline: Pipeline, model: Model) -> str | None:
    """Why the query, or one of the tables in it, cannot be checked; None if it can."""
    row_source = next((each.name for each in model.query.tables if each.is_row_source), None)
    if row_source is None:
        return f"{model.known_at} is computed from more than one row or table"
    timed = {row_source, *(name for name, rollup in pipeline.rollups.items() if rollup.of == row_source)}
    for each in model.query.tables:
        has_more = each.schema_name or each.has_hint or each.has_partition
        if each.name in timed and not each.is_row_source and has_more:
            return f"{each.name} is read with a schema name, an index hint or a partition"
    return None


def _unchecked(model: Model, reason: str) -> ModelError:
    return ModelError("TM-ML-LOOK-AHEAD-UNCHECKED", value=reason, file=model.features, known_at=model.known_at)
