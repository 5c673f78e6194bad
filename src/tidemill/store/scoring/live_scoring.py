"""Live scoring: the rows of a commit are scored in its transaction, by every model version that readers can see.

The feature query reads the tables as this transaction leaves them, for the rows that it has written and no others. So
the features are those that the scoring job would read, and the scores are the same to the last bit.

**A promotion** takes effect with the stream's next commit. Commits read the model's row with a shared lock: a process
that promotes or publishes waits for the running commits, and later commits read the new champion. A new champion scores
from its promotion on, besides the version that is still published, so that no row lacks a score when it is published.

**A model never stops a stream.** If it cannot score, an incident is opened, and the next refresh scores the rows that
were left out. A row to which it gives no number has the score NULL, and the rows beside it are scored.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pymysql.connections import Connection
from pymysql.constants import FIELD_TYPE

from tidemill.config import Account, Settings
from tidemill.errors import TidemillError, Transient
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import dialect_of, session, translated
from tidemill.store.control import incidents
from tidemill.store.scoring.portable_model import Scorer, as_arrow, scored_rows, unpack, unscored_in
from tidemill.store.scoring.unscored import Unscored, report_unscored
from tidemill.store.sql import identifiers
from tidemill.store.write.bulk_load import bulk_load

LIVE_SCORES = "live_scores"
"""Kind of the incident."""
_CACHED = 32
"""Model versions that a process caches: champion and published version of several models."""


@dataclass(frozen=True)
class ScoredCommit:
    """The commit whose rows are scored."""

    settings: Settings
    pipeline: Pipeline
    id: int


@dataclass(frozen=True)
class LiveScores:
    """What became of the scores of one commit. The commit itself is made in any case."""

    failures: Mapping[str, str]
    """Model -> why it did not score, as a sentence."""
    unscored: Sequence[tuple[str, Unscored]]
    """Model, and the rows to which one of its versions gave no number."""


def live_models(pipeline: Pipeline, tables: Iterable[str]) -> list[str]:
    """The models that score the rows of these tables as they are written."""
    written = set(tables)
    return [name for name, model in pipeline.models.items() if model.score.live and model.table in written]


def prepare_scores(connection: Connection[Any], settings: Settings, pipeline: Pipeline, tables: Iterable[str]) -> None:
    """Create the temporary tables that :func:`score_commit` loads. Outside of a transaction."""
    with translated(), connection.cursor() as cursor:
        for name in live_models(pipeline, tables):
            model = pipeline.models[name]
            table = pipeline.tables[model.table]
            for sql in dialect_of(connection).create_score_stage(settings.db_data, model, table):
                cursor.execute(sql)


def score_commit(connection: Connection[Any], commit: ScoredCommit, models: Iterable[str]) -> LiveScores:
    """Score the rows that a commit has written. Inside its transaction, after all of its rows are merged.

    Args:
        connection: with the stages of the tables.
        commit: which wrote the rows.
        models: of the tables to which it has written.

    Raises:
        Transient: the transaction has to run again.
    """
    failures: dict[str, str] = {}
    unscored: list[tuple[str, Unscored]] = []
    for name in models:
        try:
            unscored += [(name, each) for each in _score(connection, commit, name)]
        except Exception as error:  # any error of a model becomes an incident, and the rows are committed
            if isinstance(error, Transient):
                raise
            # A statement that failed has changed nothing; the transaction is still valid.
            failures[name] = str(error) if isinstance(error, TidemillError) else repr(error)
    return LiveScores(failures, unscored)


def _score(connection: Connection[Any], commit: ScoredCommit, name: str) -> list[Unscored]:
    """Score with each version; returns the rows to which a version gave no number."""
    model = commit.pipeline.models[name]
    scorers = {}
    for version in _versions(connection, commit.pipeline.name, name):
        scorer = scorer_of(connection, (commit.pipeline.name, name, version))
        # A model trained on other features than the query has now does not score; the next refresh replaces it.
        if scorer is not None and set(scorer.features) <= set(model.query.features):
            scorers[version] = scorer
    if not scorers:
        return []
    features = {feature: None for scorer in scorers.values() for feature in scorer.features}
    rows = _features(connection, commit, name, features)
    if not rows.num_rows:
        return []
    columns = [*model.key, *identifiers.SCORE_COLUMNS]
    d, schema = dialect_of(connection), commit.settings.db_data
    load = d.load(schema, identifiers.stage(model.score.table), columns)
    unscored = []
    for version, scorer in scorers.items():
        scored = scored_rows(model.key, rows, scorer.score(rows), version, commit.id)
        bulk_load(connection, load, scored, columns)
        unscored.append(unscored_in(model.key, scored, version))
    with translated(), connection.cursor() as cursor:
        cursor.execute(d.upsert_scores(schema, model))
    return [each for each in unscored if each is not None]


def _versions(connection: Connection[Any], pipeline: str, model: str) -> list[int]:
    """The champion and the published version; a shared lock keeps them until the transaction ends."""
    with translated(), connection.cursor() as cursor:
        lock = dialect_of(connection).share_lock
        cursor.execute(
            f"SELECT champion_version, published_version FROM models WHERE pipeline = %s AND model = %s {lock}",
            (pipeline, model),
        )
        versions = cursor.fetchone() or ()
    return sorted({int(version) for version in versions if version is not None})


_reported: dict[tuple[str, str], tuple[str | None, float]] = {}
"""(pipeline, model) -> why it does not score, None if it does, and when this process reported it (monotonic)."""
_REPORT_SECONDS = 60.0


_unscored_at: dict[tuple[str, str, int], float] = {}
"""(pipeline, model, version) -> when this process reported rows without a number as score (monotonic)."""


def notify_unscored(settings: Settings, pipeline: Pipeline, models: Iterable[str], scores: LiveScores) -> None:
    """Open an incident for each model that does not score or leaves rows out, and close that of each model that does.

    Every commit calls this. A process writes only when the reason changes, and once a minute while it lasts, because
    another process may have closed the incident. Uses a connection of its own, because the commit may be rolled back.

    Args:
        settings: where the database is.
        pipeline: declares the models.
        models: that were to score.
        scores: what :func:`score_commit` returned.
    """
    for name, unscored in scores.unscored:
        reported_key = (pipeline.name, name, unscored.version)
        if time.monotonic() - _unscored_at.get(reported_key, -_REPORT_SECONDS) < _REPORT_SECONDS:
            continue
        with suppress(TidemillError), session(settings, Account.STREAM) as connection:
            report_unscored(connection, pipeline.name, name, unscored)
            _unscored_at[reported_key] = time.monotonic()
    for name in models:
        reason, key, now = scores.failures.get(name), (pipeline.name, name), time.monotonic()
        reported, since = _reported.get(key, ("", 0.0))
        if reported == reason and (reason is None or now - since < _REPORT_SECONDS):
            continue
        subject = f"model {pipeline.name}.{name}"
        with suppress(TidemillError), session(settings, Account.STREAM) as connection:
            if reason is None:
                incidents.close_incident(connection, subject, LIVE_SCORES)
            else:
                message = f"the stream continues without scores: {reason}; the next refresh scores the remaining rows"
                incidents.open_incident(connection, subject, LIVE_SCORES, message)
            _reported[key] = reason, now


_scorers: dict[tuple[object, ...], Scorer | None] = {}


def scorer_of(connection: Connection[Any], of: tuple[str, str, int]) -> Scorer | None:
    """A model version that can score without Spark, or None for one that cannot.

    Cached by the process, which handles many batches: a version never changes.
    """
    key = (connection.host, connection.port, connection.db, *of)
    if key not in _scorers:
        with translated(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT content FROM portable_models WHERE pipeline = %s AND model = %s AND version = %s", of
            )
            row = cursor.fetchone()
        while len(_scorers) >= _CACHED:
            del _scorers[next(iter(_scorers))]
        _scorers[key] = unpack(row[0]) if row else None
    return _scorers[key]


def _features(connection: Connection[Any], commit: ScoredCommit, name: str, features: Iterable[str]) -> pa.Table:
    """Key, features and ``_commit`` of the rows that the commit has written."""
    pipeline, schema = commit.pipeline, commit.settings.db_data
    model = pipeline.models[name]
    d = dialect_of(connection)
    statement = d.committed_features(
        schema,
        d.with_rollups_by_key(model.query, pipeline.rollups),
        model,
        pipeline.tables[model.table],
        features,
        commit.id,
    )
    # The author's query names its tables without a schema, as in the scoring job's connection.
    with translated(), connection.cursor() as cursor:
        connection.select_db(schema)
        try:
            cursor.execute(statement)
            described = cursor.description or ()
            rows = cursor.fetchall()
        finally:
            connection.select_db(commit.settings.db_control)
    values = zip(*rows, strict=True) if rows else ([] for _ in described)
    return pa.table(
        {
            # Spark reads a FLOAT with 32 bits, whatever digits the database sends.
            field[0]: pa.array(column, pa.float32()) if field[1] == FIELD_TYPE.FLOAT else as_arrow(column)
            for field, column in zip(described, values, strict=True)
        }
    )
