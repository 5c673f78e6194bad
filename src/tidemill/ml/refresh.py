"""Whether the feedback loop has something to do, and the row that its run leaves behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from croniter import croniter  # type: ignore[import-untyped]  # publishes no type information
from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.errors import ModelError
from tidemill.lifecycle.behind import behind_seconds
from tidemill.ml.registry.versions import declared_model, lock_model, newest_version, transaction
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import translated
from tidemill.store.control.ledger import last_commit, totals
from tidemill.store.control.streams import read_stream
from tidemill.store.migrations import pipeline_version

_IDS_LOOKED_BACK = 10_000
"""How far below the newest commit one may still be open."""
RUNNING_HOURS = 24
"""A refresh that has run for longer keeps no other from beginning: whoever ran it is gone, or waits for a person."""


class Action(StrEnum):
    """What a refresh should do now."""

    SKIP = "skip"
    """Nothing changed since the last one."""
    WAIT = "wait"
    """The tables are not fresh enough to learn from or to score."""
    SCORE = "score"
    """The champion scores what changed."""
    TRAIN = "train"
    """A challenger is trained and judged first."""


@dataclass(frozen=True)
class RefreshInputs:
    """All that the decision rests on. Times are naive UTC, by the database's clock."""

    now: datetime
    last_commit: int
    """Newest commit of the stream, 0 if there is none."""
    is_to_run: bool
    """Whether the desired state of the stream is running. The tables of a stopped stream change no more."""
    behind_seconds: float | None
    """For how long at most the tables have not held everything that Kafka held; None if no driver measured it yet."""
    behind_allowed_seconds: float
    published_commit: int
    """``as_of_commit`` of the newest published refresh, 0 if there is none."""
    champion_version: int | None
    published_version: int | None
    pipeline_version: int | None
    """The folder's version as applied, None if it was not."""
    trained_at: datetime | None
    """When the newest version was made, whatever became of it; None if there is none."""
    trained_commit: int
    trained_pipeline_version: int | None
    train_schedule: str
    """Cron, in UTC."""
    refused_commit: int = 0
    """``as_of_commit`` of the newest refresh that was refused since the champion was chosen, 0 if there is none."""
    force: bool = False


@dataclass(frozen=True)
class RefreshDecision:
    """What to do and why, as a sentence for the log."""

    action: Action
    reason: str


def decide_refresh(facts: RefreshInputs) -> RefreshDecision:
    """Decide what a refresh should do.

    Raises:
        ModelError: the training schedule is not a cron expression.
    """
    if facts.last_commit == 0:
        return RefreshDecision(Action.SKIP, "nothing was ever committed")
    stale = _stale(facts)
    if stale is not None:
        return RefreshDecision(Action.WAIT, stale)
    if facts.force:
        return RefreshDecision(Action.TRAIN, "training was asked for")
    if facts.champion_version is None:
        return _first(facts)
    if facts.last_commit <= facts.published_commit and facts.champion_version == facts.published_version:
        return RefreshDecision(Action.SKIP, f"nothing was committed since commit {facts.published_commit}")
    return _due(facts) or _rescore(facts)


def _stale(facts: RefreshInputs) -> str | None:
    if not facts.is_to_run:
        return None
    if facts.behind_seconds is None:
        return "no driver of the stream has measured yet how far behind the tables are"
    if facts.behind_seconds > facts.behind_allowed_seconds:
        return f"the tables are {facts.behind_seconds:.0f} s behind, {facts.behind_allowed_seconds:g} s are allowed"
    return None


def _first(facts: RefreshInputs) -> RefreshDecision:
    same = facts.trained_commit >= facts.last_commit and facts.trained_pipeline_version == facts.pipeline_version
    if facts.trained_at is not None and same:
        sentence = f"nothing was committed since the challenger of commit {facts.trained_commit} was rejected"
        return RefreshDecision(Action.SKIP, sentence)
    return RefreshDecision(Action.TRAIN, "there is no champion yet")


def _due(facts: RefreshInputs) -> RefreshDecision | None:
    if facts.trained_at is None:
        return None
    if facts.pipeline_version is not None and facts.pipeline_version != facts.trained_pipeline_version:
        sentence = f"pipeline version {facts.pipeline_version} has not been trained on"
        return RefreshDecision(Action.TRAIN, sentence)
    tick = next_tick(facts.train_schedule, facts.trained_at)
    if tick <= facts.now:
        return RefreshDecision(Action.TRAIN, f"the schedule {facts.train_schedule} ticked at {tick} UTC")
    return None


def _rescore(facts: RefreshInputs) -> RefreshDecision:
    if facts.last_commit <= facts.refused_commit:
        # The same rows would be refused again; a newer champion or another commit may change that.
        sentence = f"nothing was committed since scoring was refused at commit {facts.refused_commit}"
        return RefreshDecision(Action.SKIP, sentence)
    return RefreshDecision(Action.SCORE, f"commit {facts.last_commit} is newer than the scores")


def next_tick(schedule: str, after: datetime) -> datetime:
    """The first time after ``after`` that a cron expression names, in UTC.

    Raises:
        ModelError: it is not a cron expression.
    """
    try:
        found: datetime = croniter(schedule, after).get_next(datetime)
    except (ValueError, KeyError) as error:
        raise ModelError(
            "train.schedule is not a cron expression", value=schedule, remedy="write for example @daily or 0 3 * * *"
        ) from error
    return found


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
    """Read what :func:`decide_refresh` decides on. The stream has the pipeline's name.

    Raises:
        ModelError: the pipeline has no such model, or was never applied.
    """
    schedule = declared_model(pipeline, model).train.schedule
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(_FACTS, (pipeline.name, model))
        row = cursor.fetchone()
    if row is None:
        value = f"{pipeline.name}.{model}"
        raise ModelError("the database does not know the model", value=value, remedy="run ./tidemill apply")
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

    It is as of the newest commit before which none is open: everything up to there will be seen.

    Args:
        connection: autocommit; the stream account.
        pipeline: whose.
        model: which of its models.
        run: what asks for it, such as a DAG run.
        options: ``from`` and ``until`` (ISO times or None) and ``parameters`` of the training, if anything was asked.

    Raises:
        ModelError: another run refreshes the model just now; only one may.
    """
    declared_model(pipeline, model)
    as_of = last_complete_commit(connection, pipeline.name)
    asked = json.dumps(options) if options else None
    with transaction(connection):
        _refuse_overlap(connection, pipeline.name, model, run)
        with translated(), connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO refreshes (pipeline, model, run, options, as_of_commit) VALUES (%s, %s, %s, %s, %s)"
                " ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), state = 'running', options = VALUES(options),"
                " as_of_commit = VALUES(as_of_commit), scored_version = NULL, scored_rows = NULL, reason = NULL,"
                " started_at = UTC_TIMESTAMP(6), ended_at = NULL",
                (pipeline.name, model, run, asked, as_of),
            )
            return int(cursor.lastrowid)


def reopen_refresh(connection: Connection[Any], pipeline: Pipeline, model: str, refresh_id: int) -> None:
    """Open a refresh again that was closed unfinished, for a step of it that is repeated. A published one stays so.

    Raises:
        ModelError: another run refreshes the model just now.
    """
    with transaction(connection), translated(), connection.cursor() as cursor:
        cursor.execute("SELECT run FROM refreshes WHERE id = %s AND state IN ('failed', 'refused')", (refresh_id,))
        found = cursor.fetchone()
        if found is None:
            return
        _refuse_overlap(connection, pipeline.name, model, str(found[0]))
        cursor.execute(
            "UPDATE refreshes SET state = 'running', reason = NULL, ended_at = NULL, started_at = UTC_TIMESTAMP(6)"
            " WHERE id = %s",
            (refresh_id,),
        )


def running_refreshes(connection: Connection[Any], pipeline: str, model: str) -> dict[str, int]:
    """Refreshes of a model that somebody works on: run -> id. Those that began too long ago do not count."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT run, id FROM refreshes WHERE pipeline = %s AND model = %s AND state = 'running'"
            f" AND started_at > UTC_TIMESTAMP(6) - INTERVAL {RUNNING_HOURS} HOUR ORDER BY id",
            (pipeline, model),
        )
        return {str(run): int(refresh_id) for run, refresh_id in cursor.fetchall()}


def _refuse_overlap(connection: Connection[Any], pipeline: str, model: str, run: str) -> None:
    """Only in a transaction: the model's row is held, so that of two that begin at once the second sees the first."""
    lock_model(connection, pipeline, model)
    others = [other for other in running_refreshes(connection, pipeline, model) if other != run]
    if others:
        raise ModelError(
            f"{pipeline}.{model} is being refreshed by another run", value=others[0], remedy="wait until it has ended"
        )


def last_complete_commit(connection: Connection[Any], stream: str) -> int:
    """The newest commit of a stream such that no older one is still open, 0 if there is none.

    Ids are given out when a transaction begins to write, so a lower one may appear after a higher one. What is open
    shows to a reader of uncommitted rows, who must look last: what he sees more is, or was just now, open.
    """
    newest_id = last_commit(connection, stream)
    since = f"FROM commits WHERE stream = %s AND id BETWEEN {newest_id - _IDS_LOOKED_BACK} AND {newest_id}"
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
    """Close a refresh as ``published``, ``skipped`` or ``failed``. A published one stays published."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE refreshes SET state = %s, scored_rows = COALESCE(%s, scored_rows), reason = %s,"
            " ended_at = UTC_TIMESTAMP(6) WHERE id = %s AND state = 'running'",
            (state, scored_rows, None if reason is None else reason[:1000], refresh_id),
        )


def fail_run(connection: Connection[Any], pipeline: str, model: str, run: str, reason: str) -> None:
    """Close what a run that has ended left open, however long ago it began; nothing if it left nothing."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE refreshes SET state = 'failed', reason = %s, ended_at = UTC_TIMESTAMP(6)"
            " WHERE pipeline = %s AND model = %s AND run = %s AND state = 'running'",
            (reason[:1000], pipeline, model, run),
        )
