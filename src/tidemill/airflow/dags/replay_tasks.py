"""The tasks of a replay that need no Spark: write down the request, and report the result."""

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
from tidemill.deploy.snapshots import applied_pipeline, unapplied_changes
from tidemill.errors import SpecError, TidemillError, Transient
from tidemill.replay.request import ReplayRequest, describe, request_replay
from tidemill.store.control import replays

log = logging.getLogger(__name__)
_FIELDS = {"offsets": {"offsets"}, "time": {"from", "until"}, "quarantine": {"reason", "ids"}}
"""Way of selecting records -> the fields of the form that belong to it."""


def form() -> dict[str, Param]:
    """The fields of the DAG's form."""

    def text(title: str, description: str) -> Param:
        return Param(None, type=["null", "string"], title=title, description=description)

    return {
        "kind": Param("offsets", type="string", enum=list(_FIELDS), title="Select records by"),
        "offsets": text("Offsets", "For example 0:100-200,1:0-50; the end is exclusive"),
        "from": text("From", "earliest, or an ISO time (UTC without a zone)"),
        "until": text("Until", "An ISO time; up to the newest record if empty"),
        "reason": text("Reason", "Of the quarantine: part of the reason's text"),
        "ids": Param([], type="array", items={"type": "integer"}, title="Ids", description="Of the quarantine"),
        "dry_run": Param(
            True, type="boolean", title="Dry run", description="Report what would change, without changing it"
        ),
    }


def request_of(params: Mapping[str, Any]) -> ReplayRequest:
    """The request of a form that was filled in.

    Raises:
        SpecError: a field is filled in that does not belong to the selected kind.
    """
    kind = params["kind"]
    for field in ("offsets", "from", "until", "reason", "ids"):
        if params[field] and field not in _FIELDS[kind]:
            raise SpecError("TM-AIRFLOW-REPLAY-FIELD-UNUSED", value=params[field], kind=kind, field=field)
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
    """Resolve the form's selection into offsets and write it to the table ``replays``; returns the replay's id.

    Raises:
        AirflowFailException: the request is invalid or cannot be carried out; a retry would not help.
        TidemillError: Kafka or the database is unavailable.
    """
    settings = config.load()
    try:
        requested = request_of(params)
        with closing(TidemillHook().get_conn()) as connection:
            spec, version = applied_pipeline(settings, connection, pipeline)
            for warning in unapplied_changes(settings, spec, version):
                log.warning("%s", warning)
            client = KafkaAdminClientHook().get_conn
            replay_id = request_replay(connection, client, spec, requested, f"airflow: {run_id}")
    except TidemillError as error:
        if isinstance(error, Transient):
            raise
        raise AirflowFailException(str(error)) from error
    log.info("replay %d of %s: %s", replay_id, pipeline, requested)
    return replay_id


def report(replay_id: int | str) -> dict[str, Any]:
    """Report the result of a replay, in the log and as the task's XCom."""
    with closing(TidemillHook().get_conn()) as connection:
        replay = replays.read(connection, int(replay_id))
    for line in describe(replay):
        log.info("%s", line)
    return {"replay": replay.id, "requested": replay.selection["requested"], **replay.selection.get("result", {})}


def record_failure(context: Any) -> None:
    """Airflow's callback for a task without retries left: close the replay as failed."""
    replay_id = context["ti"].xcom_pull(task_ids="request")
    if replay_id is None:
        return
    # Suppressed: the task has failed already, and an unavailable database has no place to note it.
    with suppress(TidemillError), closing(TidemillHook().get_conn()) as connection:
        # The job's own error, where it wrote one, is more precise than Airflow's.
        if replays.read(connection, int(replay_id)).state not in ("failed", "done"):
            replays.fail(connection, int(replay_id), f"{context['ti'].task_id}: {context.get('exception')}")
