"""The champion scores the rows that changed, into the table of pending scores, from which they are published."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from pymysql.connections import Connection
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tidemill.config import Account, Settings
from tidemill.errors import ModelError
from tidemill.ml.data.reader import read_features
from tidemill.ml.registry import versions
from tidemill.ml.serving.drift_gate import check_drift
from tidemill.ml.training.estimators import score_column
from tidemill.ml.training.evaluate import load_model
from tidemill.retry import Backoff
from tidemill.spec.estimators import problem_of
from tidemill.spec.feature_query import COMMIT
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import drop_worker_connection, session, translated, worker_connection
from tidemill.store.scoring.live_scoring import scorer_of
from tidemill.store.scoring.portable_model import Scorer, scored_rows, unscored_in
from tidemill.store.scoring.unscored import Unscored, report_unscored
from tidemill.store.sql import dialect, identifiers
from tidemill.store.write.bulk_load import bulk_load

T = TypeVar("T")
_REPORT = "rows long, unscored long, sample string"
"""Spark's schema of what a batch reports: its rows, those without a number as score, and the key of one of these."""
_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=3.2, attempts=6)


@dataclass(frozen=True)
class ScoreTarget:
    """The table that scores are written to, and what every score row carries."""

    settings: Settings
    statement: str
    """The dialect's LOAD DATA of the table of pending scores."""
    key: tuple[str, ...]
    version: int
    as_of_commit: int


def score(spark: SparkSession, settings: Settings, pipeline: Pipeline, model_name: str, refresh_id: int) -> int:
    """Score every row that the champion has not scored in its present content; after a promotion that is every row.

    A repeated call scores the rows that are still missing, so an interrupted run is simply repeated. A champion that
    the database holds in its portable form scores as streams do, to the last bit; Spark evaluates any other. A row
    to which it gives no number has the score NULL, which is an incident; the rows beside it are scored.

    Returns:
        Rows scored by this run.

    Raises:
        ModelError: the model has no champion, or the rows have drifted from those that it was trained on.
    """
    model = versions.declared_model(pipeline, model_name)
    with session(settings, Account.STREAM) as connection:
        refresh = versions.read_refresh(connection, refresh_id, pipeline, model_name)
        champion = versions.read_champion(connection, pipeline.name, model_name)
        if champion is None:
            raise ModelError("TM-ML-NO-CHAMPION", pipeline=pipeline.name, model=model_name)
        of = (pipeline.name, model_name, champion.version)
        scorer = scorer_of(connection, of)
    check_drift(spark, settings, pipeline, refresh, champion)
    rows = read_features(spark, settings, pipeline, model_name, unscored_by=champion.version)
    columns = [*model.key, *identifiers.SCORE_COLUMNS]
    pending = identifiers.pending(model.score.table)
    statement = dialect(settings.db_dialect).load(settings.db_data, pending, columns)
    target = ScoreTarget(settings, statement, model.key, champion.version, refresh.as_of_commit)
    if scorer is None:
        predicted = load_model(champion).transform(rows)
        rows = predicted.select(*model.key, score_column(problem_of(model), predicted).alias("score"), F.col(COMMIT))
    else:
        rows = rows.select(*model.key, *scorer.features, COMMIT)
    write = writer(target, None if scorer is None else of)
    parts = rows.mapInArrow(write, _REPORT).collect()
    written, without = (sum(int(row[name]) for row in parts) for name in ("rows", "unscored"))
    sample = next((str(row["sample"]) for row in parts if row["sample"] is not None), "")
    unscored = Unscored(champion.version, without, sample) if without else None
    _record_scoring(settings, refresh, champion.version, written, unscored)
    return written


def writer(
    target: ScoreTarget, portable: tuple[str, str, int] | None = None
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``mapInArrow`` that writes batches and yields, as :data:`_REPORT`, what became of each.

    Args:
        target: the table to write to.
        portable: pipeline, model and version that score ``<key>, <features>, _commit``; without it the batches are
            ``<key>, score, _commit``.
    """

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            scores = rows["score"] if portable is None else _scorer(target, portable).score(rows)
            unscored = load(target, rows, scores)
            yield pa.RecordBatch.from_pydict(
                {
                    "rows": pa.array([batch.num_rows], pa.int64()),
                    "unscored": pa.array([unscored.rows if unscored else 0], pa.int64()),
                    "sample": pa.array([unscored.sample if unscored else None], pa.string()),
                }
            )

    return write


def _scorer(target: ScoreTarget, portable: tuple[str, str, int]) -> Scorer:
    """The portable model, evaluated by the same code that streams score with."""
    scorer = _with_retry(target.settings, lambda connection: scorer_of(connection, portable))
    if scorer is None:
        raise ModelError("TM-ML-PORTABLE-MODEL-MISSING", value=portable[2], pipeline=portable[0], model=portable[1])
    return scorer


def load(target: ScoreTarget, rows: pa.Table, scores: Any) -> Unscored | None:
    """Write one batch of scores in place of pending ones of the same rows. Transient errors are retried.

    Args:
        target: the table to write to.
        rows: with the key and ``_commit``.
        scores: one for each row, in the same order.

    Returns:
        The rows whose score is no number, and is written as NULL; None if there are none.

    Raises:
        StoreError: the database refuses the scores, or stays unavailable.
    """
    table = scored_rows(target.key, rows, scores, target.version, target.as_of_commit)
    columns = [*target.key, *identifiers.SCORE_COLUMNS]
    _with_retry(target.settings, lambda connection: bulk_load(connection, target.statement, table, columns))
    return unscored_in(target.key, table, target.version)


def _with_retry(settings: Settings, work: Callable[[Connection[Any]], T]) -> T:
    """Do some work over this process's own connection, and retry it on a new one after a transient error."""

    def attempt() -> T:
        try:
            return work(worker_connection(settings))
        except BaseException:  # also when the task is killed: an answer may be unread on the connection
            drop_worker_connection(settings)
            raise

    return _BACKOFF.run(attempt)


def _record_scoring(
    settings: Settings, refresh: versions.Refresh, version: int, rows: int, unscored: Unscored | None
) -> None:
    with session(settings, Account.STREAM) as connection, translated(), connection.cursor() as cursor:
        if unscored is not None:
            report_unscored(connection, refresh.pipeline, refresh.model, unscored)
        cursor.execute(
            "UPDATE refreshes SET scored_version = %s, scored_rows = COALESCE(scored_rows, 0) + %s WHERE id = %s",
            (version, rows, refresh.id),
        )
