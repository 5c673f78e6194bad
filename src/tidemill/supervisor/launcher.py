"""Starting a stream's driver as a process of its own, and ending it; nothing here waits for it to work.

The driver outlives whoever started it: it leads its own session, reads nothing, and writes to its own log. It is known
again by a mark in its environment, which its children inherit, so that a process id which the system gave to somebody
else is never touched.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import psutil

from tidemill.config import Settings
from tidemill.errors import StreamError
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.processes import environment_of
from tidemill.spec import Pipeline
from tidemill.stream.log_rotation import LOG
from tidemill.supervisor.cluster import Cluster, ClusterKind
from tidemill.supervisor.log_diagnosis import first_cause
from tidemill.supervisor.spark_submit import (
    Submission,
    kill_command,
    pod_name,
    program_environment,
    spark_environment,
    spark_submit,
    stream_command,
)

log = logging.getLogger(__name__)
_POLL_SECONDS = 0.1
_LAST_SECONDS = 10.0
_SUBMIT_SECONDS = 120.0
_KILL_SECONDS = 60.0
_MOMENT_SECONDS = 0.005
_EXEC_SECONDS = 2.0
"""For a driver to become the next program, even where the disk is busy."""
_ANSWERED = "Kill request for"
DRIVER_MARK = "TIDE_DRIVER"
"""Environment variable of a driver and all its children: ``<stream>/<epoch>``. No setting, hence its own prefix."""
_LEFT = ("stopped", "failed")
_SUBMISSION = {
    ClusterKind.STANDALONE: re.compile(rb"\b(driver-\d{14}-\d+)\b"),
    ClusterKind.YARN: re.compile(rb"\b(application_\d+_\d+)\b"),
}


@dataclass(frozen=True)
class Driver:
    """Where a driver runs, as far as whoever launched it knows."""

    host: str | None
    """None where a cluster chooses."""
    pid: int | None
    """Leader of the session it runs in; None where it is not a process of ours."""
    log_file: Path
    """What the driver says, or, where a cluster runs it, what was said while it was submitted."""
    master: str | None = None
    submission_id: str | None = None
    """What the cluster calls a driver that it runs itself."""


def launch(
    settings: Settings,
    pipeline: Pipeline,
    epoch: int,
    conf: Mapping[str, str] | None = None,
    cluster: Cluster | None = None,
) -> Driver:
    """Start the driver of an epoch and return at once; where a cluster runs it, as soon as that has taken it.

    Args:
        settings: memory, jars, state folder.
        pipeline: whose stream, as it was applied.
        epoch: the one just taken.
        conf: Spark configuration beyond the usual. Stands on the command line: no secrets.
        cluster: where it runs; on the settings' master if None.

    Raises:
        StreamError: it cannot be started at all, or the cluster did not take it.
    """
    where = cluster or Cluster(settings.spark_master)
    settings = settings.model_copy(update={"spark_master": where.master})
    log_file = log_file_of(settings, pipeline.name, epoch)
    mark = {DRIVER_MARK: _mark(pipeline.name, epoch)}
    environment = spark_environment(settings, cluster=where) | mark
    if not where.runs_drivers:
        environment[LOG] = str(log_file)
    program = spark_submit(environment)
    if where.spark_binary != "spark-submit":
        program = spark_submit(environment, where.spark_binary)
    argv = stream_command(settings, where, program, Submission(pipeline, epoch, conf or {}, mark))
    before = log_file.stat().st_size if log_file.exists() else 0
    process = _start(argv, environment, settings.state, log_file)
    if not where.runs_drivers:
        _await_mark(process, mark)
        return Driver(socket.gethostname(), process.pid, log_file, where.master)
    if where.kind is ClusterKind.KUBERNETES:
        _await_end(process, log_file)
        name = f"{where.namespace or 'default'}:{pod_name(pipeline.name, epoch)}"
        return Driver(None, None, log_file, where.master, name)
    submission_id = _await_submission(process, log_file, before, _SUBMISSION[where.kind])
    return Driver(None, None, log_file, where.master, submission_id)


def log_file_of(settings: Settings, stream: str, epoch: int) -> Path:
    """Where a driver's log is, or that of its submission."""
    return settings.state / "logs" / "streams" / f"{stream}-{epoch}.log"


def is_gone(row: StreamRow) -> bool:
    """Whether the driver's process is known to have ended. False where it cannot be seen from here.

    Holds for drivers in client mode, where the process that was started is the driver. One that a cluster runs is known
    by its heartbeats alone.
    """
    if row.submission_id is not None or row.pid is None or row.host != socket.gethostname():
        return False
    try:
        return not _carries_mark(psutil.Process(row.pid), row)
    except psutil.AccessDenied:
        return False
    except (psutil.NoSuchProcess, OSError):
        return True


def stop_driver(row: StreamRow, grace_seconds: float = 10) -> bool:
    """End what is left of a driver: wait for it to leave, then ask by SIGTERM, then SIGKILL its whole session.

    Touches only processes of the session that the lease names which carry the mark of this very epoch. A driver that a
    cluster runs is ended by the cluster, unless it has said its last word.

    Args:
        row: names the host, the session, the stream and the epoch.
        grace_seconds: for each of waiting and asking.

    Returns:
        True if nothing of it is left; False if it cannot be seen from here, or would not even be killed.
    """
    if row.submission_id is not None:
        if row.heartbeat_epoch == row.epoch and row.state in _LEFT:
            return True
        _kill_submission(str(row.master), row.submission_id)
        return False
    if row.pid is None:
        return True
    if row.host != socket.gethostname():
        return False
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        left = _session(row)
        if number is not None:
            _signal(left, number)
        # Nobody refuses the last one, but the kernel takes its time over a big process.
        seconds = max(grace_seconds, _LAST_SECONDS) if number is signal.SIGKILL else grace_seconds
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            left = [process for process in left if _is_of(process, row)]
        if not left:
            return True
    return False


def _start(argv: list[str], environment: Mapping[str, str], folder: Path, log_file: Path) -> subprocess.Popen[bytes]:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as output:
        try:
            return subprocess.Popen(
                argv,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StreamError("the driver cannot be started", value=f"{argv[0]}: {error.strerror}") from error


def _await_mark(process: subprocess.Popen[bytes], mark: Mapping[str, str]) -> None:
    """Wait until the process shows the mark it was given: for a moment the kernel shows ours in its place."""
    deadline = time.monotonic() + _EXEC_SECONDS
    with suppress(psutil.Error):  # it has ended already, which is for others to find
        started = psutil.Process(process.pid)
        while not mark.items() <= environment_of(started).items() and time.monotonic() < deadline:
            time.sleep(_MOMENT_SECONDS)


def _await_submission(process: subprocess.Popen[bytes], log_file: Path, before: int, named: re.Pattern[bytes]) -> str:
    """What the cluster calls the driver, as soon as spark-submit says it; that then ends by itself.

    Raises:
        StreamError: it ended without saying it, or did not say it in time.
    """
    deadline = time.monotonic() + _SUBMIT_SECONDS
    while True:
        ended = process.poll() is not None
        if found := named.search(log_file.read_bytes()[before:]):
            return found.group(1).decode()
        if ended:
            raise _refused(log_file, f"spark-submit ended with code {process.returncode}")
        if time.monotonic() > deadline:
            raise _given_up(process, log_file)
        time.sleep(_POLL_SECONDS)


def _await_end(process: subprocess.Popen[bytes], log_file: Path) -> None:
    try:
        code = process.wait(_SUBMIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise _given_up(process, log_file) from None
    if code:
        raise _refused(log_file, f"spark-submit ended with code {code}")


def _given_up(process: subprocess.Popen[bytes], log_file: Path) -> StreamError:
    """A driver that comes of it all the same is fenced off by the next epoch."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return _refused(log_file, f"no answer for {_SUBMIT_SECONDS:g} s")


def _refused(log_file: Path, how: str) -> StreamError:
    return StreamError(
        "the cluster did not take the driver", value=f"{how}: {first_cause(log_file)}", remedy=f"see {log_file}"
    )


def _kill_submission(master: str, submission_id: str) -> None:
    """Ask a cluster to end a driver. One that cannot be asked leaves it fenced off: it cannot commit, and leaves."""
    environment = program_environment()
    try:
        argv = kill_command(master, submission_id)
        said = _ask([spark_submit(environment, argv[0]), *argv[1:]], environment)
        log.info("%s: asked to end %s: %s", master, submission_id, said)
    except (StreamError, OSError) as error:
        log.warning("%s: could not be asked to end %s: %s", master, submission_id, error)


def _ask(argv: list[str], environment: Mapping[str, str]) -> str:
    """Run a program until it ends, or has its answer; returns the last line it said."""
    deadline = time.monotonic() + _KILL_SECONDS
    with TemporaryFile() as output:
        process = subprocess.Popen(
            argv, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        while True:
            ended = process.poll() is not None
            said = os.pread(output.fileno(), 1 << 20, 0).decode(errors="replace")
            # With the answer in hand Spark's client sleeps 5 s before it asks what became of it.
            if ended or _ANSWERED in said or time.monotonic() > deadline:
                process.kill()
                process.wait()
                return (said.strip().splitlines() or ["it said nothing"])[-1]
            time.sleep(_POLL_SECONDS)


def _session(row: StreamRow) -> list[psutil.Process]:
    """The driver's living processes. Its leader may be dead while its children are not."""
    return [process for process in psutil.process_iter() if _is_of(process, row)]


def _is_of(process: psutil.Process, row: StreamRow) -> bool:
    try:
        return os.getsid(process.pid) == row.pid and _carries_mark(process, row)
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return False  # it ended while we looked, or belongs to somebody else


def _carries_mark(process: psutil.Process, row: StreamRow) -> bool:
    alive = process.status() != psutil.STATUS_ZOMBIE
    return alive and environment_of(process, _EXEC_SECONDS).get(DRIVER_MARK) == _mark(row.stream, row.epoch)


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _mark(stream: str, epoch: int) -> str:
    return f"{stream}/{epoch}"
