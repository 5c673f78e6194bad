"""A replay from the command line: asked for, submitted here, waited for."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tidemill.config import Account, Settings
from tidemill.errors import SpecError, StreamError, TidemillError
from tidemill.kafka.clients import admin
from tidemill.processes import end_child
from tidemill.replay.request import ReplayRequest, check, request_replay
from tidemill.resources import resource_folder
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import replays
from tidemill.supervisor.spark_submit import spark_conf, spark_environment, spark_jars, spark_submit

_LEAVE_SECONDS = 30.0


def request_of(given: dict[str, str], ids: tuple[int, ...], *, from_quarantine: bool, dry_run: bool) -> ReplayRequest:
    """The options of the command as one wish.

    Args:
        given: ``offsets``, ``since``, ``until``, ``reason`` as far as they were said.
        ids: of the quarantine.
        from_quarantine: whether the quarantine is meant.
        dry_run: change nothing.

    Raises:
        SpecError: they name none of the three kinds, or more than one.
    """
    kinds: dict[Literal["offsets", "time", "quarantine"], bool] = {
        "offsets": "offsets" in given,
        "time": "since" in given or "until" in given,
        "quarantine": from_quarantine or "reason" in given or bool(ids),
    }
    meant = [kind for kind, is_meant in kinds.items() if is_meant]
    if len(meant) != 1 or (meant == ["time"] and "since" not in given):
        raise SpecError(
            "say what to replay, in one way",
            value=" and ".join(meant) or None,
            remedy="--offsets, or --from with or without --until, or --quarantine",
        )
    return ReplayRequest(meant[0], ids=ids, dry_run=dry_run, **given)


def request_here(settings: Settings, pipeline: Pipeline, asked: ReplayRequest, by: str) -> int:
    """Write down what is wanted; returns the replay's id.

    Raises:
        SpecError: it cannot be understood, or there is nothing that it means.
        TidemillError: Kafka or the database is away, or the pipeline is not applied.
    """
    check(asked)  # before any server is asked for anything
    with session(settings, Account.STREAM) as connection:
        return request_replay(connection, admin(settings), pipeline, asked, by)


def run_here(settings: Settings, pipeline: Pipeline, replay_id: int) -> replays.Replay:
    """Run a replay's job and wait for it; one that was interrupted goes on.

    Raises:
        StreamError: it failed; what is committed stays, and it may be run again.
    """
    with session(settings, Account.READ) as connection:
        if replays.read(connection, replay_id).stream != pipeline.name:
            raise StreamError("the replay is of another stream", value=replay_id, remedy="see its row in replays")
    log_file = settings.state / "logs" / "replays" / f"{pipeline.name}-{replay_id}.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    code = _submit(settings, pipeline.name, replay_id, log_file)
    with session(settings, Account.STREAM) as connection:
        if code:
            # A job that could not even start has said nothing.
            with suppress(TidemillError):
                if replays.read(connection, replay_id).state != "failed":
                    replays.fail(connection, replay_id, f"its job ended with code {code}")
            found = replays.read(connection, replay_id)
            raise StreamError(
                f"replay {replay_id} failed",
                value=found.last_error,
                remedy=f"see {log_file}; go on with ./tidemill replay {pipeline.name} --resume {replay_id}",
            )
        return replays.read(connection, replay_id)


def submit_command(settings: Settings, stream: str, replay_id: int, program: str) -> list[str]:
    """The command line of a replay's job. It names no secret.

    Raises:
        StreamError: Spark's jars were not fetched.
    """
    jars = spark_jars(settings)
    if not jars:
        raise StreamError("Spark's jars are not there", value=settings.jars / "spark", remedy="run ./tidemill once")
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
            end_child(process, _LEAVE_SECONDS)
            raise
