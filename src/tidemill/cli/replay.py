"""``tidemill replay``: the request, its job on this machine, and the wait for its end."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tidemill.config import Account, Settings
from tidemill.errors import SpecError, StreamError, TidemillError
from tidemill.kafka.clients import admin
from tidemill.processes import end_child
from tidemill.replay.request import ReplayRequest, check_request, request_replay
from tidemill.resources import resource_folder
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import replays
from tidemill.supervisor.spark_submit import spark_conf, spark_environment, spark_jars, spark_submit

_STOP_SECONDS = 30.0


def request_of(options: dict[str, str], ids: tuple[int, ...], *, from_quarantine: bool, dry_run: bool) -> ReplayRequest:
    """The options of the command as a request.

    Args:
        options: those of ``offsets``, ``since``, ``until`` and ``reason`` that have a value.
        ids: ids of quarantined records.
        from_quarantine: read the quarantine.
        dry_run: change nothing.

    Raises:
        SpecError: the options name none of the three sources (offsets, time, quarantine), or more than one.
    """
    kinds: dict[Literal["offsets", "time", "quarantine"], bool] = {
        "offsets": "offsets" in options,
        "time": "since" in options or "until" in options,
        "quarantine": from_quarantine or "reason" in options or bool(ids),
    }
    chosen = [kind for kind, is_chosen in kinds.items() if is_chosen]
    if len(chosen) != 1 or (chosen == ["time"] and "since" not in options):
        found = "--until without --from" if chosen == ["time"] else " and ".join(chosen) or "none"
        raise SpecError("TM-CLI-REPLAY-SOURCE", value=found)
    return ReplayRequest(chosen[0], ids=ids, dry_run=dry_run, **options)


def request_here(settings: Settings, pipeline: Pipeline, request: ReplayRequest, by: str) -> int:
    """Insert the request into the control plane; returns the replay's id.

    Raises:
        SpecError: the request is not valid, or selects no record.
        TidemillError: Kafka or the database is unavailable, or the pipeline is not applied.
    """
    check_request(request)  # before any request to a server
    with session(settings, Account.STREAM) as connection:
        return request_replay(connection, admin(settings), pipeline, request, by)


def run_here(settings: Settings, pipeline: Pipeline, replay_id: int) -> replays.Replay:
    """Run a replay's job and wait for its end; an interrupted replay continues.

    Raises:
        StreamError: the job failed; its commits remain, and it may be run again.
    """
    with session(settings, Account.READ) as connection:
        if replays.read(connection, replay_id).stream != pipeline.name:
            raise StreamError("TM-CLI-REPLAY-OTHER-STREAM", value=replay_id, stream=pipeline.name)
    log_file = settings.state / "logs" / "replays" / f"{pipeline.name}-{replay_id}.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    code = _submit(settings, pipeline.name, replay_id, log_file)
    with session(settings, Account.STREAM) as connection:
        if code:
            # A job that could not start has recorded no failure.
            with suppress(TidemillError):
                if replays.read(connection, replay_id).state != "failed":
                    replays.fail(connection, replay_id, f"its job ended with code {code}")
            cause = replays.read(connection, replay_id).last_error
            raise StreamError("TM-CLI-REPLAY-FAILED", value=cause, replay=replay_id, log=log_file, stream=pipeline.name)
        return replays.read(connection, replay_id)


def submit_command(settings: Settings, stream: str, replay_id: int, program: str) -> list[str]:
    """The command line of a replay's job. It names no secret.

    Raises:
        StreamError: the jars of Spark's Kafka connector are missing.
    """
    jars = spark_jars(settings)
    if not jars:
        raise StreamError("TM-CLI-JARS-MISSING", value=settings.jars / "spark")
    confs = {"spark.app.name": f"tidemill replay {stream}", **spark_conf(settings)}
    return [
        program,
        *("--master", settings.spark_master),
        *("--driver-memory", settings.spark_driver_memory),
        *("--jars", jars),
        *(part for name, value in confs.items() for part in ("--conf", f"{name}={value}")),
        str(resource_folder("spark_jobs") / "replay.py"),
        *("--pipeline", stream),
        *("--replay", str(replay_id)),
    ]


def _submit(settings: Settings, stream: str, replay_id: int, log_file: Path) -> int:
    environment = spark_environment(settings)
    argv = submit_command(settings, stream, replay_id, spark_submit(environment))
    with (
        log_file.open("ab") as log,
        subprocess.Popen(
            argv, env=environment, cwd=settings.state, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            return process.wait()
        except BaseException:  # Ctrl-C, which is how a person ends it
            # Spark's own hook ends its Python processes, so it is asked before it is killed.
            end_child(process, _STOP_SECONDS)
            raise
