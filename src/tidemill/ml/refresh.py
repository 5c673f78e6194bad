"""Refreshes of a model: the decision what a run of the feedback loop does, and the row that records the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.errors import ModelError
from tidemill.lifecycle.behind import behind_seconds
from tidemill.ml.registry.versions import declared_model, lock_model, newest_version, transaction
from tidemill.spec.schedules import next_tick
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import translated
from tidemill.store.control.ledger import last_commit, totals
from tidemill.store.control.streams import read_stream
from tidemill.store.migrations import pipeline_version

_OPEN_COMMIT_IDS = 10_000
"""How far below the newest commit's id a transaction is looked for that is still open."""
RUNNING_HOURS = 24
"""A refresh that began longer ago does not count as running: its process has ended, or it waits for a person."""
_REASON_CHARACTERS = 1000
"""Size of the column ``reason``."""


class Action(StrEnum):
    """What a refresh does."""

    SKIP = "skip"
    """Nothing, because nothing changed since the last one."""
    WAIT = "wait"
    """Nothing yet, because the tables are too far behind the topic."""
    SCORE = "score"
    """The champion scores what changed."""
    TRAIN = "train"
    """A challenger is trained and compared with the champion; then the champion scores."""


@dataclass(frozen=True)
class RefreshInputs:
    """All that :func:`decide_refresh` decides by. Times are naive UTC, by the database's clock."""

    now: datetime
    last_commit: int
    """Newest commit of the stream; 0 if it has none."""
    is_to_run: bool
    """Whether the desired state of the stream is running. The tables of a stopped stream change no more."""
    behind_seconds: float | None
    """For how long at most the tables have not held everything that Kafka held; None if no driver measured it yet."""
    behind_allowed_seconds: float
    published_commit: int
    """``as_of_commit`` of the newest published refresh; 0 if none was published."""
    champion_version: int | None
    published_version: int | None
    pipeline_version: int | None
    """The version that this content was applied as; None if a newer one was applied meanwhile."""
    trained_at: datetime | None
    """When the newest version was trained, in whatever state it is; None if the model has no version."""
    trained_commit: int
    trained_pipeline_version: int | None
    train_schedule: str
    """Cron, in UTC."""
    refused_commit: int = 0
    """``as_of_commit`` of the newest refresh that was refused for drift since the champion was promoted; 0 if none."""
    force: bool = False
    """Whether a person requested a training."""


@dataclass(frozen=True)
class RefreshDecision:
    """What to do, and why, as a clause for the log."""

    action: Action
    reason: str


def decide_refresh(inputs: RefreshInputs) -> RefreshDecision:
    """Decide what a refresh does.

    Raises:
        ModelError: the training schedule is not a cron expression.
    """
    if inputs.last_commit == 0:
        return RefreshDecision(Action.SKIP, "the stream has committed nothing yet")
    not_fresh = _why_not_fresh(inputs)
    if not_fresh is not None:
        return RefreshDecision(Action.WAIT, not_fresh)
    if inputs.force:
        return RefreshDecision(Action.TRAIN, "a training was requested")
    if inputs.champion_version is None:
        return _decide_without_champion(inputs)
    if inputs.last_commit <= inputs.published_commit and inputs.champion_version == inputs.published_version:
        return RefreshDecision(Action.SKIP, f"nothing was committed since commit {inputs.published_commit}")
    return _training_due(inputs) or _decide_scoring(inputs)


def _why_not_fresh(inputs: RefreshInputs) -> str | None:
    if not inputs.is_to_run:
        return None
    if inputs.behind_seconds is None:
        return "no driver of the stream has measured yet how far behind the tables are"
    if inputs.behind_seconds > inputs.behind_allowed_seconds:
        return f"the tables are {inputs.behind_seconds:.0f} s behind, {inputs.behind_allowed_seconds:g} s are allowed"
    return None


def _decide_without_champion(inputs: RefreshInputs) -> RefreshDecision:
    same_rows = inputs.trained_commit >= inputs.last_commit
    if inputs.trained_at is not None and same_rows and inputs.trained_pipeline_version == inputs.pipeline_version:
        reason = f"nothing was committed since the challenger of commit {inputs.trained_commit} was rejected"
        return RefreshDecision(Action.SKIP, reason)
    return RefreshDecision(Action.TRAIN, "the model has no champion yet")


def _training_due(inputs: RefreshInputs) -> RefreshDecision | None:
    if inputs.trained_at is None:
        return None
    if inputs.pipeline_version is not None and inputs.pipeline_version != inputs.trained_pipeline_version:
        reason = f"no version was trained with pipeline version {inputs.pipeline_version}"
        return RefreshDecision(Action.TRAIN, reason)
    try:
        tick = next_tick(inputs.train_schedule, inputs.trained_at)
    except ValueError as error:
        raise ModelError("TM-ML-SCHEDULE-NOT-CRON", value=inputs.train_schedule) from error
    if tick <= inputs.now:
        return RefreshDecision(Action.TRAIN, f"the schedule {inputs.train_schedule} was due at {tick} UTC")
    return None


def _decide_scoring(inputs: RefreshInputs) -> RefreshDecision:
    if inputs.last_commit <= inputs.refused_commit:
        # The same rows would be refused again; another champion or another commit may change that.
        reason = f"nothing was committed since scoring was refused at commit {inputs.refused_commit}"
        return RefreshDecision(Action.SKIP, reason)
    return RefreshDecision(Action.SCORE, f"commit {inputs.last_commit} is newer than the scores")


_FACTS = """
SELECT UTC_TIMESTAMP(6) AS now, m.champion_version, m.published_version,
       (SELECT COALESCE(MAX(r.as_of_commit), 0) FROM refreshes AS r
        WHERE r.pipeline = m.pipeline AND r.model = m.model AND r.state = 'published'
          AND r.scored_version = m.published_version) AS published_commit,
       (SELECT COALESCE(MAX(r.as_of_commit), 0) FROM refreshes AS r
        WHERE r.pipeline = m.pipeline AND r.model = m.model AND r.state = 'refused'
          AND COALESCE(r.ended_at, r.started_at) >= COALESCE(
              (SELECT MAX(d.decided_at) FROM decisions AS d WHERE d.pipeline = m.pipeline AND d.model = m.model
               AND d.verdict IN ('promoted', 'rolled back')), r.started_at)) AS refused_commit
FROM models AS m WHERE m.pipeline = %s AND m.model = %s
"""


def read_refresh_inputs(
    connection: Connection[Any], pipeline: Pipeline, model: str, *, force: bool = False
) -> RefreshInputs:
    """Read what :func:`decide_refresh` decides by. The stream has the pipeline's name.

    Raises:
        ModelError: the pipeline has no such model, or was not applied with it.
    """
    schedule = declared_model(pipeline, model).train.schedule
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(_FACTS, (pipeline.name, model))
        row = cursor.fetchone()
    if row is None:
        raise ModelError("TM-ML-MODEL-NOT-APPLIED", value=f"{pipeline.name}.{model}")
    trained = newest_version(connection, pipeline.name, model)
    ledger = totals(connection, pipeline.name)
    stream = read_stream(connection, pipeline.name)
    return RefreshInputs(
        now=row["now"],
        last_commit=int(ledger.last_commit),
        is_to_run=stream is not None and stream.desired_state == "running",
        behind_seconds=None if stream is None else behind_seconds(stream),
        behind_allowed_seconds=pipeline.slo.freshness_seconds,
        published_commit=int(row["published_commit"]),
        champion_version=row["champion_version"],
        published_version=row["published_version"],
        pipeline_version=pipeline_version(connection, pipeline),
        trained_at=trained.created_at if trained else None,
        trained_commit=trained.as_of_commit if trained else 0,
        trained_pipeline_version=trained.pipeline_version if trained else None,
        train_schedule=schedule,
        refused_commit=int(row["refused_commit"]),
        force=force,
    )


def begin_refresh(
    connection: Connection[Any], pipeline: Pipeline, model: str, run: str, options: Mapping[str, Any] | None = None
) -> int:
    """Open the refresh of a run, or open it again if the run is repeated; returns its id.

    Its ``as_of_commit`` is the newest commit without an open one before it: all rows up to there are visible.

    Args:
        connection: as the stream account, in autocommit mode.
        pipeline: the pipeline of the model.
        model: which of its models.
        run: the run that requests it, such as a DAG run's id.
        options: what the form of the run requested: ``from`` and ``until`` (ISO times or None), and ``parameters`` of
            the training; None for nothing.

    Raises:
        ModelError: another run is refreshing the model; only one may at a time.
    """
    declared_model(pipeline, model)
    as_of = last_complete_commit(connection, pipeline.name)
    document = json.dumps(options) if options else None
    with transaction(connection):
        _refuse_overlap(connection, pipeline.name, model, run)
        with translated(), connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO refreshes (pipeline, model, run, options, as_of_commit) VALUES (%s, %s, %s, %s, %s)"
                " ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), state = 'running', options = VALUES(options),"
                " as_of_commit = VALUES(as_of_commit), scored_version = NULL, scored_rows = NULL, reason = NULL,"
                " started_at = UTC_TIMESTAMP(6), ended_at = NULL",
                (pipeline.name, model, run, document, as_of),
            )
            return int(cursor.lastrowid)


def reopen_refresh(connection: Connection[Any], pipeline: Pipeline, model: str, refresh_id: int) -> None:
    """Open a failed or refused refresh again, for a step of it that is repeated. A published one stays published.

    Raises:
        ModelError: another run is refreshing the model.
    """
    with transaction(connection), translated(), connection.cursor() as cursor:
        cursor.execute("SELECT run FROM refreshes WHERE id = %s AND state IN ('failed', 'refused')", (refresh_id,))
        row = cursor.fetchone()
        if row is None:
            return
        _refuse_overlap(connection, pipeline.name, model, str(row[0]))
        cursor.execute(
            "UPDATE refreshes SET state = 'running', reason = NULL, ended_at = NULL, started_at = UTC_TIMESTAMP(6)"
            " WHERE id = %s",
            (refresh_id,),
        )


def running_refreshes(connection: Connection[Any], pipeline: str, model: str) -> dict[str, int]:
    """Refreshes of a model that are running: run -> id. Those that began :data:`RUNNING_HOURS` ago do not count."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT run, id FROM refreshes WHERE pipeline = %s AND model = %s AND state = 'running'"
            f" AND started_at > UTC_TIMESTAMP(6) - INTERVAL {RUNNING_HOURS} HOUR ORDER BY id",
            (pipeline, model),
        )
        return {str(run): int(refresh_id) for run, refresh_id in cursor.fetchall()}


def _refuse_overlap(connection: Connection[Any], pipeline: str, model: str, run: str) -> None:
    """Lock the model's row, so that of two runs that begin at once the second sees the first; then look for others."""
    lock_model(connection, pipeline, model)
    others = [other for other in running_refreshes(connection, pipeline, model) if other != run]
    if others:
        raise ModelError("TM-ML-REFRESH-RUNNING", value=others[0], pipeline=pipeline, model=model)


def last_complete_commit(connection: Connection[Any], stream: str) -> int:
    """The newest commit of a stream such that no older one is still open; 0 if it has none.

    A commit gets its id when its transaction begins to write, so a lower id may become visible after a higher one. The
    second query reads uncommitted rows, after the first: the ids that only it returns are of open transactions, or of
    transactions that were open a moment before.
    """
    newest_id = last_commit(connection, stream)
    since = f"FROM commits WHERE stream = %s AND id BETWEEN {newest_id - _OPEN_COMMIT_IDS} AND {newest_id}"
    with translated(), connection.cursor() as cursor:
        cursor.execute(f"SELECT id {since}", (stream,))
        ended = {int(row[0]) for row in cursor.fetchall()}
        cursor.execute("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
        cursor.execute(f"SELECT id {since}", (stream,))
        still_open = {int(row[0]) for row in cursor.fetchall()} - ended
    return min(still_open) - 1 if still_open else newest_id


def end_refresh(
    connection: Connection[Any],
    refresh_id: int,
    state: str,
    scored_rows: int | None = None,
    reason: str | None = None,
) -> None:
    """Close a running refresh as ``published``, ``skipped``, ``failed`` or ``refused``; a closed one stays as it is."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE refreshes SET state = %s, scored_rows = COALESCE(%s, scored_rows), reason = %s,"
            " ended_at = UTC_TIMESTAMP(6) WHERE id = %s AND state = 'running'",
            (state, scored_rows, None if reason is None else reason[:_REASON_CHARACTERS], refresh_id),
        )


def fail_run(connection: Connection[Any], pipeline: str, model: str, run: str, reason: str) -> None:
    """Close the refresh that an ended run left open as failed, however long ago it began."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE refreshes SET state = 'failed', reason = %s, ended_at = UTC_TIMESTAMP(6)"
            " WHERE pipeline = %s AND model = %s AND run = %s AND state = 'running'",
            (reason[:_REASON_CHARACTERS], pipeline, model, run),
        )
