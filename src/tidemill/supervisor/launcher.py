"""Starts a stream's driver as a process of its own, and ends it. Nothing here waits for the driver to work.

The driver outlives the process that started it: it leads its own session, reads no input, and writes to its own log. It
is recognised by a mark in its environment, which its children inherit, because the system may give the process id of a
driver that has ended to an unrelated process.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import psutil

from tidemill import processes
from tidemill.config import Settings
from tidemill.errors import StreamError
from tidemill.lifecycle.driver_state import DriverState
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.spec import Pipeline
from tidemill.stream.log_rotation import LOG
from tidemill.supervisor.cluster import Cluster, ClusterKind
from tidemill.supervisor.log_diagnosis import first_cause
from tidemill.supervisor.spark_submit import (
    SubmitRequest,
    kill_command,
    pod_name,
    program_environment,
    spark_environment,
    spark_submit,
    stream_command,
)

log = logging.getLogger(__name__)
_POLL_SECONDS = 0.1
_SUBMIT_SECONDS = 120.0
"""How long a cluster may take to accept a driver."""
_KILL_REQUEST_SECONDS = 60.0
_MARK_POLL_SECONDS = 0.005
_EXEC_SECONDS = 2.0
"""How long a driver may take to execute the next of its programs, even where the disk is busy."""
_KILL_ANSWER = "Kill request for"
"""What Spark's standalone client prints once the master has answered."""
DRIVER_MARK = "TIDE_DRIVER"
"""Environment variable of a driver and its children: ``<stream>/<epoch>``. Not a setting, hence its own prefix."""
_ENDED = (DriverState.STOPPED, DriverState.FAILED)
"""States that a driver reports last."""
_SUBMISSION_ID = {
    ClusterKind.STANDALONE: re.compile(rb"\b(driver-\d{14}-\d+)\b"),
    ClusterKind.YARN: re.compile(rb"\b(application_\d+_\d+)\b"),
}


@dataclass(frozen=True)
class LaunchedDriver:
    """Where a driver runs, as far as it is known when it has been launched."""

    host: str | None
    """None where a cluster chooses the host."""
    pid: int | None
    """Leader of the session that the driver runs in; None where the driver is no process of this machine."""
    log_file: Path
    """The driver's log, or, where a cluster runs the driver, the log of its submission."""
    master: str | None = None
    submission_id: str | None = None
    """The cluster's id of a driver that the cluster runs itself."""


def launch(
    settings: Settings,
    pipeline: Pipeline,
    epoch: int,
    conf: Mapping[str, str] | None = None,
    cluster: Cluster | None = None,
) -> LaunchedDriver:
    """Start the driver of an epoch and return at once; where a cluster runs it, once the cluster has accepted it.

    Args:
        settings: memory, jars, state folder.
        pipeline: the pipeline of the stream, as it was applied.
        epoch: the epoch that was just acquired.
        conf: Spark configuration beyond the usual. It is visible on the command line, so it must hold no secrets.
        cluster: where the driver runs; the master of the settings if None.

    Raises:
        StreamError: the driver's process cannot be started, or the cluster did not accept the driver.
    """
    cluster = cluster or Cluster(settings.spark_master)
    settings = settings.model_copy(update={"spark_master": cluster.master})
    log_file = log_file_of(settings, pipeline.name, epoch)
    mark = {DRIVER_MARK: driver_mark(pipeline.name, epoch)}
    environment = spark_environment(settings, cluster=cluster) | mark
    if not cluster.runs_drivers:
        environment[LOG] = str(log_file)
    program = spark_submit(environment)
    if cluster.spark_binary != "spark-submit":
        program = spark_submit(environment, cluster.spark_binary)
    argv = stream_command(settings, cluster, program, SubmitRequest(pipeline, epoch, conf or {}, mark))
    log_bytes_before = log_file.stat().st_size if log_file.exists() else 0
    process = _start_process(argv, environment, settings.state, log_file)
    if not cluster.runs_drivers:
        _await_mark(process, mark)
        return LaunchedDriver(socket.gethostname(), process.pid, log_file, cluster.master)
    if cluster.kind is ClusterKind.KUBERNETES:
        _await_submit_end(process, log_file)
        name = f"{cluster.namespace or 'default'}:{pod_name(pipeline.name, epoch)}"
        return LaunchedDriver(None, None, log_file, cluster.master, name)
    submission_id = _await_submission_id(process, log_file, log_bytes_before, _SUBMISSION_ID[cluster.kind])
    return LaunchedDriver(None, None, log_file, cluster.master, submission_id)


def log_file_of(settings: Settings, stream: str, epoch: int) -> Path:
    """The path of a driver's log, or of the log of its submission."""
    return settings.state / "logs" / "streams" / f"{stream}-{epoch}.log"


def driver_mark(stream: str, epoch: int) -> str:
    """The value of ``DRIVER_MARK`` in the environment of a driver's processes."""
    return f"{stream}/{epoch}"


def is_gone(row: StreamRow) -> bool:
    """Whether the driver's process is known to have ended. False where the process cannot be seen from this host.

    This is known only of drivers in client mode, where the process that was started is the driver. The state of a
    driver that a cluster runs is known by its heartbeats alone.
    """
    if row.submission_id is not None or row.pid is None or row.host != socket.gethostname():
        return False
    try:
        return not _is_driver_process(psutil.Process(row.pid), row)
    except psutil.AccessDenied:
        return False
    except (psutil.NoSuchProcess, OSError):
        return True


def stop_driver(row: StreamRow, grace_seconds: float = 10) -> bool:
    """End all processes of a driver: wait until they leave, then send SIGTERM, then SIGKILL to its whole session.

    Only processes of the session that the lease names which carry the mark of this very epoch are signalled. A driver
    that a cluster runs is ended by the cluster, unless the driver has reported that it ended.

    Args:
        row: names the host, the session, the stream and the epoch.
        grace_seconds: how long to wait before SIGTERM, and again before SIGKILL.

    Returns:
        True if no process of the driver is left; False if its processes cannot be seen from this host, or if one still
        runs after SIGKILL.
    """
    if row.submission_id is not None:
        if row.heartbeat_epoch == row.epoch and row.state in _ENDED:
            return True
        _kill_submission(str(row.master), row.submission_id)
        return False
    if row.pid is None:
        return True
    if row.host != socket.gethostname():
        return False
    return not processes.end(
        lambda: _driver_processes(row), grace_seconds, signals=(None, signal.SIGTERM, signal.SIGKILL)
    )


def _start_process(
    argv: list[str], environment: Mapping[str, str], folder: Path, log_file: Path
) -> subprocess.Popen[bytes]:
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
            raise StreamError("TM-SUPERVISOR-DRIVER-NOT-STARTED", program=argv[0], value=error.strerror) from error


def _await_mark(process: subprocess.Popen[bytes], mark: Mapping[str, str]) -> None:
    """Wait until the process shows the mark that it was given: for a moment the kernel shows our environment."""
    deadline = time.monotonic() + _EXEC_SECONDS
    with suppress(psutil.Error):  # it has ended already, which the next observation finds
        started = psutil.Process(process.pid)
        while not mark.items() <= processes.environment_of(started).items() and time.monotonic() < deadline:
            time.sleep(_MARK_POLL_SECONDS)


def _await_submission_id(
    process: subprocess.Popen[bytes], log_file: Path, log_bytes_before: int, pattern: re.Pattern[bytes]
) -> str:
    """The cluster's id of the driver, as soon as spark-submit prints it; spark-submit then ends by itself.

    Raises:
        StreamError: spark-submit ended without printing an id, or printed none in time.
    """
    deadline = time.monotonic() + _SUBMIT_SECONDS
    while True:
        has_ended = process.poll() is not None
        if match := pattern.search(log_file.read_bytes()[log_bytes_before:]):
            return match.group(1).decode()
        if has_ended:
            raise _submit_failed(log_file, process.returncode)
        if time.monotonic() > deadline:
            raise _submit_timed_out(process, log_file)
        time.sleep(_POLL_SECONDS)


def _await_submit_end(process: subprocess.Popen[bytes], log_file: Path) -> None:
    try:
        exit_code = process.wait(_SUBMIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise _submit_timed_out(process, log_file) from None
    if exit_code:
        raise _submit_failed(log_file, exit_code)


def _submit_failed(log_file: Path, exit_code: int) -> StreamError:
    return StreamError(
        "TM-SUPERVISOR-SUBMIT-FAILED", exit_code=exit_code, log_file=log_file, value=first_cause(log_file)
    )


def _submit_timed_out(process: subprocess.Popen[bytes], log_file: Path) -> StreamError:
    """End spark-submit. If the cluster starts the driver later all the same, the next epoch fences it off."""
    processes.end(lambda: processes.session_members(process.pid), 0, signals=(signal.SIGKILL,))
    process.wait()
    return StreamError(
        "TM-SUPERVISOR-SUBMIT-TIMED-OUT",
        seconds=f"{_SUBMIT_SECONDS:g}",
        log_file=log_file,
        value=first_cause(log_file),
    )


def _kill_submission(master: str, submission_id: str) -> None:
    """Ask a cluster to end a driver. If it cannot be asked, the driver is still fenced off: it cannot commit."""
    environment = program_environment()
    try:
        argv = kill_command(master, submission_id)
        answer = _run_until_answer([spark_submit(environment, argv[0]), *argv[1:]], environment)
        log.info("%s: requested the end of %s: %s", master, submission_id, answer)
    except (StreamError, OSError) as error:
        log.warning("%s: cannot request the end of %s: %s", master, submission_id, error)


def _run_until_answer(argv: list[str], environment: Mapping[str, str]) -> str:
    """Run a program until it ends or has printed the cluster's answer; returns the last line that it printed."""
    deadline = time.monotonic() + _KILL_REQUEST_SECONDS
    with TemporaryFile() as output:
        process = subprocess.Popen(
            argv, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        while True:
            has_ended = process.poll() is not None
            printed = os.pread(output.fileno(), 1 << 20, 0).decode(errors="replace")
            # After the answer Spark's client sleeps 5 s before it asks what became of the driver.
            if has_ended or _KILL_ANSWER in printed or time.monotonic() > deadline:
                processes.end_child(process, 0)
                return (printed.strip().splitlines() or ["it printed nothing"])[-1]
            time.sleep(_POLL_SECONDS)


def _driver_processes(row: StreamRow) -> list[psutil.Process]:
    """The driver's running processes. Its leader may have ended while its children run."""
    found = []
    for process in processes.session_members(row.pid or 0):
        # A process that has ended meanwhile, or belongs to another user, is not the driver's.
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if _is_driver_process(process, row):
                found.append(process)
    return found


def _is_driver_process(process: psutil.Process, row: StreamRow) -> bool:
    """Whether a process runs and carries the mark of the row's epoch.

    Raises:
        psutil.Error: the process has ended, or belongs to another user.
    """
    if not processes.is_running(process):
        return False
    environment = processes.environment_of(process, _EXEC_SECONDS)
    return environment.get(DRIVER_MARK) == driver_mark(row.stream, row.epoch)
