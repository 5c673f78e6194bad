"""The tasks of a replay that need no Spark: what is asked for, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

from airflow.providers.apache.kafka.hooks.client import KafkaAdminClientHook
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException

from tidemill import config
from tidemill.airflow.hook import TidemillHook
from tidemill.deploy.catalog import find_pipeline
from tidemill.errors import SpecError, TidemillError, Transient
from tidemill.replay.request import ReplayRequest, describe
from tidemill.replay.request import request_replay as ask_for
from tidemill.store.control import replays

log = logging.getLogger(__name__)


def form() -> dict[str, Param]:
    """What the DAG's form asks for."""

    def text(title: str, description: str) -> Param:
        return Param(None, type=["null", "string"], title=title, description=description)

    return {
        "kind": Param("offsets", type="string", enum=["offsets", "time", "quarantine"], title="By"),
        "offsets": text("Offsets", "0:100-200,1:0-50; the end is not included"),
        "from": text("From", "earliest, or an ISO time (UTC if it names no zone)"),
        "until": text("Until", "An ISO time; everything if empty"),
        "reason": text("Reason", "Of the quarantine: part of the reason's text"),
        "ids": Param([], type="array", items={"type": "integer"}, title="Ids", description="Of the quarantine"),
        "dry_run": Param(True, type="boolean", title="Dry run", description="Say what would change; change nothing"),
    }


def request_of(params: Mapping[str, Any]) -> ReplayRequest:
    """The form as it was filled in.

    Raises:
        SpecError: a field is filled in that the kind does not know.
    """
    kind = params["kind"]
    known = {"offsets": {"offsets"}, "time": {"from", "until"}, "quarantine": {"reason", "ids"}}[kind]
    for name in ("offsets", "from", "until", "reason", "ids"):
        if params[name] and name not in known:
            raise SpecError(f"a replay by {kind} does not know {name}", value=params[name], remedy="leave it empty")
    return ReplayRequest(
        kind,
        offsets=params["offsets"] or "",
        since=params["from"] or "",
        until=params["until"] or "",
        reason=params["reason"] or "",
        ids=tuple(params["ids"] or ()),
        dry_run=bool(params["dry_run"]),
    )


def request(pipeline: str, *, run_id: str, params: Mapping[str, Any]) -> int:
    """Settle what is asked for and write it down; returns the replay's id.

    Raises:
        AirflowFailException: it makes no sense, or cannot be done; another try would not help.
        TidemillError: Kafka or the database is away.
    """
    spec = find_pipeline(config.load(), pipeline).pipeline
    try:
        asked = request_of(params)
        with closing(TidemillHook().get_conn()) as connection:
            replay_id = ask_for(connection, KafkaAdminClientHook().get_conn, spec, asked, f"Airflow, {run_id}")
    except TidemillError as error:
        if isinstance(error, Transient):
            raise
        raise AirflowFailException(str(error)) from error
    log.info("replay %d of %s: %s", replay_id, pipeline, asked)
    return replay_id


def report(replay_id: int | str) -> dict[str, Any]:
    """Say what came of a replay, in the log and as the task's result."""
    with closing(TidemillHook().get_conn()) as connection:
        found = replays.read(connection, int(replay_id))
    for line in describe(found):
        log.info("%s", line)
    return {"replay": found.id, "requested": found.selection["requested"], **found.selection.get("result", {})}


def record_failure(context: Any) -> None:
    """Close the replay of a task that failed for good. A callback of Airflow's."""
    replay_id = context["ti"].xcom_pull(task_ids="ask")
    if replay_id is None:
        return
    with suppress(TidemillError), closing(TidemillHook().get_conn()) as connection:
        # Suppressed: the task is red already, and a database that is away has nowhere to note it. What the job said
        # of itself is better than what Airflow knows.
        if replays.read(connection, int(replay_id)).state not in ("failed", "done"):
            replays.fail(connection, int(replay_id), f"{context['ti'].task_id}: {context.get('exception')}")
