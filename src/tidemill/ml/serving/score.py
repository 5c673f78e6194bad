"""Let the champion score what changed, into the table where scores wait to be published."""

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
from tidemill.store.scoring.portable_model import Scorer, scored_rows
from tidemill.store.sql import dialect, identifiers
from tidemill.store.write.bulk_load import bulk_load

T = TypeVar("T")
_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=3.2, attempts=6)


@dataclass(frozen=True)
class ScoreTarget:
    """Where scores go, and what all of them carry."""

    settings: Settings
    statement: str
    """LOAD DATA of the dialect."""
    key: tuple[str, ...]
    version: int
    as_of_commit: int


def score(spark: SparkSession, settings: Settings, pipeline: Pipeline, model_name: str, refresh_id: int) -> int:
    """Score every row that the champion has not scored as it now is. After a promotion that is all of them.

    Scoring again scores what is still missing, so a run that died halfway is simply run again. A champion that the
    database holds in its portable form scores as streams do, to the last bit; any other is evaluated by Spark.

    Returns:
        Rows scored by this run.

    Raises:
        ModelError: there is no champion, or the rows have drifted from those that it was trained on.
    """
    model = versions.declared_model(pipeline, model_name)
    with session(settings, Account.STREAM) as connection:
        refresh = versions.read_refresh(connection, refresh_id, pipeline, model_name)
        champion = versions.read_champion(connection, pipeline.name, model_name)
        if champion is None:
            raise ModelError(
                f"{pipeline.name}.{model_name} has no champion to score with",
                remedy="train first, and beat the baseline",
            )
        of = (pipeline.name, model_name, champion.version)
        scorer = scorer_of(connection, of)
    check_drift(spark, settings, pipeline, refresh, champion)
    rows = read_features(spark, settings, pipeline, model_name, unscored_by=champion.version)
    columns = [*model.key, *identifiers.SCORE_COLUMNS]
    waiting = identifiers.pending(model.score.table)
    statement = dialect(settings.db_dialect).load(settings.db_data, waiting, columns)
    target = ScoreTarget(settings, statement, model.key, champion.version, refresh.as_of_commit)
    if scorer is None:
        predicted = load_model(champion).transform(rows)
        rows = predicted.select(*model.key, score_column(problem_of(model), predicted).alias("score"), F.col(COMMIT))
    else:
        rows = rows.select(*model.key, *scorer.features, COMMIT)
    write = writer(target, None if scorer is None else of)
    written = sum(int(row["rows"]) for row in rows.mapInArrow(write, "rows long").collect())
    _complete(settings, refresh_id, champion.version, written)
    return written


def writer(
    target: ScoreTarget, portable: tuple[str, str, int] | None = None
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``mapInArrow``: loads batches, says how many rows each had.

    Args:
        target: where to.
        portable: pipeline, model and version that score ``<key>, <features>, _commit``; without it the batches are
            ``<key>, score, _commit``.
    """

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            load(target, rows, rows["score"] if portable is None else _scorer(target, portable).score(rows))
            yield pa.RecordBatch.from_pydict({"rows": pa.array([batch.num_rows], pa.int64())})

    return write


def _scorer(target: ScoreTarget, portable: tuple[str, str, int]) -> Scorer:
    """The code that streams score with."""
    scorer = _again(target.settings, lambda connection: scorer_of(connection, portable))
    if scorer is None:
        raise ModelError("a model version is gone from the database", value=portable[2], remedy="run the refresh again")
    return scorer


def load(target: ScoreTarget, rows: pa.Table, scores: Any) -> None:
    """Write one batch of scores, replacing pending ones of the same rows. Tried again if it may help.

    Args:
        target: where to.
        rows: with the key and ``_commit``.
        scores: of each row, in the same order.

    Raises:
        StoreError: the database refuses them, or stays away.
    """
    table = scored_rows(target.key, rows, scores, target.version, target.as_of_commit)
    columns = [*target.key, *identifiers.SCORE_COLUMNS]
    _again(target.settings, lambda connection: bulk_load(connection, target.statement, table, columns))


def _again(settings: Settings, ask: Callable[[Connection[Any]], T]) -> T:
    """What a question to the database gives, over this process's own connection; tried again if it may help."""

    def attempt() -> T:
        try:
            return ask(worker_connection(settings))
        except BaseException:  # a task that is killed, too: the connection may be in the middle of an answer
            drop_worker_connection(settings)
            raise

    return _BACKOFF.run(attempt)


def _complete(settings: Settings, refresh_id: int, version: int, rows: int) -> None:
    with session(settings, Account.STREAM) as connection, translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE refreshes SET scored_version = %s, scored_rows = COALESCE(scored_rows, 0) + %s WHERE id = %s",
            (version, rows, refresh_id),
        )
