"""Let the champion score what changed, into the table where scores wait to be published."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark.ml.functions import vector_to_array
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tidemill.config import Account, Settings
from tidemill.errors import LearnError, StoreError, Transient
from tidemill.learn import versions
from tidemill.learn.estimators import PROBABILITY
from tidemill.learn.evaluate import load_model
from tidemill.learn.features_frame import COMMIT, read_features
from tidemill.spec.model import Pipeline
from tidemill.store.connect import drop_worker_connection, session, translated, worker_connection
from tidemill.store.dialects import dialect, names
from tidemill.store.stage import bulk_load

_ATTEMPTS = 6
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Target:
    """Where scores go, and what all of them carry."""

    settings: Settings
    statement: str
    """LOAD DATA of the dialect."""
    key: tuple[str, ...]
    version: int
    as_of_commit: int


def score(spark: SparkSession, settings: Settings, pipeline: Pipeline, model_name: str, refresh_id: int) -> int:
    """Score every row that the champion has not scored as it now is. After a promotion that is all of them.

    Scoring again scores what is still missing, so a run that died halfway is simply run again.

    Returns:
        Rows scored by this run.

    Raises:
        LearnError: there is no champion.
    """
    model = versions.model_of(pipeline, model_name)
    with session(settings, Account.STREAM) as connection:
        refresh = versions.read_refresh(connection, refresh_id, pipeline, model_name)
        champion = versions.champion(connection, pipeline.name, model_name)
    if champion is None:
        raise LearnError(
            f"{pipeline.name}.{model_name} has no champion to score with", remedy="train first, and beat the baseline"
        )
    rows = read_features(spark, settings, pipeline, model_name, unscored_by=champion.version)
    columns = [*model.key, *names.SCORE_COLUMNS]
    waiting = names.pending(model.score.table)
    statement = dialect(settings.db_dialect).load(settings.db_data, waiting, columns)
    target = Target(settings, statement, model.key, champion.version, refresh.as_of_commit)
    one = vector_to_array(F.col(PROBABILITY)).getItem(1)
    scored = load_model(champion).transform(rows).select(*model.key, one.alias("score"), F.col(COMMIT))
    written = sum(int(row["rows"]) for row in scored.mapInArrow(writer(target), "rows long").collect())
    _complete(settings, refresh_id, champion.version, written)
    return written


def writer(target: Target) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for ``mapInArrow``: loads batches of ``<key>, score, _commit``, says how many rows each had."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            load(target, pa.Table.from_batches([batch]))
            yield pa.RecordBatch.from_pydict({"rows": pa.array([batch.num_rows], pa.int64())})

    return write


def load(target: Target, scored: pa.Table) -> None:
    """Write one batch of scores, replacing pending ones of the same rows. Tried again if it may help.

    Raises:
        StoreError: the database refuses them, or stays away.
    """
    rows = scored.num_rows
    constants = {
        "model_version": pa.array([target.version] * rows, pa.int64()),
        "as_of_commit": pa.array([target.as_of_commit] * rows, pa.int64()),
    }
    table = pa.table(
        {name: scored[name] for name in (*target.key, "score")} | {"scored_commit": scored[COMMIT]} | constants
    )
    columns = [*target.key, *names.SCORE_COLUMNS]
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            bulk_load(worker_connection(target.settings), target.statement, table, columns)
            return
        except StoreError as error:
            drop_worker_connection(target.settings)
            if not isinstance(error, Transient) or attempt == _ATTEMPTS:
                raise
            time.sleep(_PAUSE_SECONDS * 2**attempt)
        except BaseException:
            drop_worker_connection(target.settings)
            raise


def _complete(settings: Settings, refresh_id: int, version: int, rows: int) -> None:
    with session(settings, Account.STREAM) as connection, translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE refreshes SET scored_version = %s, scored_rows = COALESCE(scored_rows, 0) + %s WHERE id = %s",
            (version, rows, refresh_id),
        )
