"""Live scores: the rows of a commit are scored in its own transaction, by every version that a reader may see.

Features are read as the feature query says, from the tables as this very transaction leaves them, for the rows that it
has written and no others. So they are what the scoring job would read, and the scores are the same to the last bit.

**A promotion** reaches the stream with its next commit. The model's row is read under a shared lock: whoever promotes
or publishes waits for the commits under way, and the commits after it know. A new champion scores from its promotion
on, beside the version that is still published, so that no row is without a score when the pointer moves.

**A model never stops a stream.** What keeps it from scoring is told as an incident, and the next refresh scores what
was left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
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
from tidemill.store.scoring.portable_model import Scorer, as_arrow, scored_rows, unpack
from tidemill.store.sql import identifiers
from tidemill.store.write.bulk_load import bulk_load

LIVE_SCORES = "live_scores"
"""Of the incident."""
_KEPT = 32
"""Models that a process keeps at hand: champion and published version of a few."""


@dataclass(frozen=True)
class ScoredCommit:
    """What is being committed."""

    settings: Settings
    pipeline: Pipeline
    id: int


def live_models(pipeline: Pipeline, tables: Iterable[str]) -> list[str]:
    """The models that score the rows of these tables as they are written."""
    written = set(tables)
    return [name for name, model in pipeline.models.items() if model.score.live and model.table in written]


def prepare_scores(connection: Connection[Any], settings: Settings, pipeline: Pipeline, tables: Iterable[str]) -> None:
    """Make the temporary tables that :func:`score_commit` loads. Outside a transaction."""
    with translated(), connection.cursor() as cursor:
        for name in live_models(pipeline, tables):
            model = pipeline.models[name]
            table = pipeline.tables[model.table]
            for sql in dialect_of(connection).create_score_stage(settings.db_data, model, table):
                cursor.execute(sql)


def score_commit(connection: Connection[Any], commit: ScoredCommit, models: Iterable[str]) -> dict[str, str]:
    """Score what a commit has written. Inside its transaction, after all of its rows are settled.

    Args:
        connection: on which the tables' stages still stand.
        commit: whose rows.
        models: those of the tables in which it has written rows.

    Returns:
        Model -> why it did not score, as a sentence. Its rows are committed without a score of this commit.

    Raises:
        Transient: the transaction has to run again.
    """
    pending_notifications: dict[str, str] = {}
    for name in models:
        try:
            _score(connection, commit, name)
        except Exception as error:  # whatever it is: it becomes an incident, and the rows are not its affair
            if isinstance(error, Transient):
                raise
            # One statement that failed has changed nothing; the transaction is as sound as before.
            pending_notifications[name] = str(error) if isinstance(error, TidemillError) else repr(error)
    return pending_notifications


def _score(connection: Connection[Any], commit: ScoredCommit, name: str) -> None:
    model = commit.pipeline.models[name]
    scorers = {}
    for version in _versions(connection, commit.pipeline.name, name):
        scorer = scorer_of(connection, (commit.pipeline.name, name, version))
        # One that was trained on other features than the query has now scores nothing; the next refresh replaces it.
        if scorer is not None and set(scorer.features) <= set(model.query.features):
            scorers[version] = scorer
    if not scorers:
        return
    wanted = {feature: None for scorer in scorers.values() for feature in scorer.features}
    rows = _features(connection, commit, name, wanted)
    if not rows.num_rows:
        return
    columns = [*model.key, *identifiers.SCORE_COLUMNS]
    d, schema = dialect_of(connection), commit.settings.db_data
    load = d.load(schema, identifiers.stage(model.score.table), columns)
    for version, scorer in scorers.items():
        scored = scored_rows(model.key, rows, scorer.score(rows), version, commit.id)
        bulk_load(connection, load, scored, columns)
    with translated(), connection.cursor() as cursor:
        cursor.execute(d.upsert_scores(schema, model))


def _versions(connection: Connection[Any], pipeline: str, model: str) -> list[int]:
    """The champion, and the version that readers see: held until the transaction ends."""
    with translated(), connection.cursor() as cursor:
        lock = dialect_of(connection).share_lock
        cursor.execute(
            f"SELECT champion_version, published_version FROM models WHERE pipeline = %s AND model = %s {lock}",
            (pipeline, model),
        )
        found = cursor.fetchone() or ()
    return sorted({int(version) for version in found if version is not None})


_told: dict[tuple[str, str], tuple[str | None, float]] = {}
_TOLD_SECONDS = 60.0


def notify_unscored(
    settings: Settings, pipeline: Pipeline, models: Iterable[str], pending_notifications: Mapping[str, str]
) -> None:
    """Open an incident about each model that does not score, and close that of one that does.

    A process says so when something changes, and what goes on once a minute: this is asked with every commit, and
    another process may have seen it otherwise. Over a connection of its own, because the commit it is about may yet be
    rolled back.

    Args:
        settings: where the database is.
        pipeline: whose models.
        models: those that were to score.
        pending_notifications: what :func:`score_commit` returned.
    """
    for name in models:
        reason, place, now = pending_notifications.get(name), (pipeline.name, name), time.monotonic()
        known, since = _told.get(place, ("", 0.0))
        if known == reason and (reason is None or now - since < _TOLD_SECONDS):
            continue
        subject = f"model {pipeline.name}.{name}"
        with suppress(TidemillError), session(settings, Account.STREAM) as connection:
            if reason is None:
                incidents.close_incident(connection, subject, LIVE_SCORES)
            else:
                said = f"the stream goes on without scoring: {reason}; the next refresh scores what is left out"
                incidents.open_incident(connection, subject, LIVE_SCORES, said)
            _told[place] = reason, now


_scorers: dict[tuple[object, ...], Scorer | None] = {}


def scorer_of(connection: Connection[Any], of: tuple[str, str, int]) -> Scorer | None:
    """A model version that can score here, or None for one that only Spark can evaluate.

    Kept by the process, which lives through many batches: a version never changes.
    """
    place = (connection.host, connection.port, connection.db, *of)
    if place not in _scorers:
        with translated(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT content FROM portable_models WHERE pipeline = %s AND model = %s AND version = %s", of
            )
            found = cursor.fetchone()
        while len(_scorers) >= _KEPT:
            del _scorers[next(iter(_scorers))]
        _scorers[place] = unpack(found[0]) if found else None
    return _scorers[place]


def _features(connection: Connection[Any], commit: ScoredCommit, name: str, features: Iterable[str]) -> pa.Table:
    """Key, features and ``_commit`` of the rows that the commit has written."""
    pipeline, schema = commit.pipeline, commit.settings.db_data
    model = pipeline.models[name]
    d = dialect_of(connection)
    asked = d.committed_features(
        schema,
        d.with_rollups_by_key(model.query, pipeline.rollups),
        model,
        pipeline.tables[model.table],
        features,
        commit.id,
    )
    # The author's query names its tables without a schema, as the scoring job's connection finds them.
    with translated(), connection.cursor() as cursor:
        connection.select_db(schema)
        try:
            cursor.execute(asked)
            described = cursor.description or ()
            found = cursor.fetchall()
        finally:
            connection.select_db(commit.settings.db_control)
    values = zip(*found, strict=True) if found else ([] for _ in described)
    return pa.table(
        {
            # A FLOAT is a float for Spark, whatever digits the database prints.
            column[0]: pa.array(given, pa.float32()) if column[1] == FIELD_TYPE.FLOAT else as_arrow(given)
            for column, given in zip(described, values, strict=True)
        }
    )
