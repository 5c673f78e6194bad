"""Drivers as processes: independent of the process that starts them, and ended without signalling any other."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from support.programs import write_program
from tidemill.config import Settings
from tidemill.errors import StreamError
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.processes import session_members
from tidemill.spec import load_pipeline
from tidemill.supervisor import launcher
from tidemill.supervisor.cluster import Cluster
from tidemill.supervisor.launcher import LaunchedDriver, is_gone, launch, stop_driver
from tidemill.supervisor.spark_submit import spark_environment
from tidemill.testing import wait_until

PROGRAM = """\
import os, signal, subprocess, sys, time
if {stubborn}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("argv", *sys.argv[1:])
print("names", *sorted(os.environ))
print("input", repr(sys.stdin.read()), flush=True)
time.sleep(600)
"""


@pytest.fixture
def ready(own: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with jars, and a program in the place of spark-submit that has a child and stays."""
    jars = tmp_path / "jars"
    (jars / "spark").mkdir(parents=True)
    (jars / "spark" / "connector.jar").touch()
    put_program(tmp_path, monkeypatch, stubborn=False)
    return own.model_copy(update={"jars": jars})


def put_program(folder: Path, monkeypatch: pytest.MonkeyPatch, *, stubborn: bool) -> None:
    """Have the launcher start a program that obeys or ignores SIGTERM."""
    program = folder / "spark-submit"
    write_program(program, PROGRAM.format(stubborn=stubborn))
    monkeypatch.setattr(launcher, "spark_submit", lambda environment: str(program))


@pytest.fixture
def started(ready: Settings) -> Iterator[StreamRow]:
    """A started driver, as the control plane knows it."""
    row = start(ready)
    yield row
    stop_driver(row, grace_seconds=0)
    wait_until(lambda: not members(row), 60, "nothing of the driver is left")


def start(settings: Settings, epoch: int = 3) -> StreamRow:
    """Start a driver of the stream ``flights`` and wait until it has printed all its lines."""
    driver = launch(settings, load_pipeline(settings.pipelines / "flights"), epoch)
    wait_until(lambda: "input" in driver.log_file.read_text(), 60, "the driver's first lines")
    return row_of(driver, epoch)


def row_of(driver: LaunchedDriver, epoch: int) -> StreamRow:
    """The control plane's row of a driver."""
    absent = dict.fromkeys(StreamRow.__dataclass_fields__)
    now = datetime(2026, 3, 1)
    facts = {"stream": "flights", "epoch": epoch, "host": driver.host, "pid": driver.pid, "now": now}
    return StreamRow(**(absent | facts | {"log_file": str(driver.log_file)}))


def members(row: StreamRow) -> list[int]:
    """The running processes of a driver's session."""
    return [process.pid for process in session_members(row.pid)]


def test_a_driver_leads_its_own_session_and_reads_nothing(started: StreamRow) -> None:
    """It survives the process that started it, and waits for no input."""
    assert started.pid == os.getsid(started.pid)
    assert len(members(started)) == 2
    assert "input ''" in Path(started.log_file).read_text()


def test_no_secret_reaches_the_command_line_or_the_log(ready: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Airflow's own variables nor anything named like a secret is passed on."""
    for name in ("AIRFLOW_CONN_TIDEMILL_DB", "AIRFLOW__CORE__FERNET_KEY", "AWS_SECRET_ACCESS_KEY", "MY_TOKEN"):
        monkeypatch.setenv(name, "hunter2")
    row = start(ready)
    try:
        text = Path(row.log_file).read_text()
        assert "hunter2" not in " ".join(psutil.Process(row.pid).cmdline())
        assert not {"AIRFLOW_CONN_TIDEMILL_DB", "AIRFLOW__CORE__FERNET_KEY", "AWS_SECRET_ACCESS_KEY", "MY_TOKEN"} & set(
            text.split()
        )
        assert "TIDEMILL_DB_HOST" in text.split()
    finally:
        stop_driver(row, grace_seconds=0)


def test_a_password_passes_only_if_the_orchestrator_gave_it_in_the_environment(own: Settings) -> None:
    """Everywhere else the driver reads the secrets file, which only its owner can."""
    given = {"PATH": "/bin", "TIDEMILL_DB_STREAM_PASSWORD": "x", "TIDEMILL_OTHER_PASSWORD": "y"}
    passed = spark_environment(own, given)
    assert passed["TIDEMILL_DB_STREAM_PASSWORD"] == "x"
    assert "TIDEMILL_OTHER_PASSWORD" not in passed
    assert not [name for name in spark_environment(own, {"PATH": "/bin"}) if "PASSWORD" in name]


def test_a_living_driver_is_not_gone_and_a_killed_one_is(started: StreamRow) -> None:
    """A process that its parent has not reaped yet counts as gone."""
    assert not is_gone(started)
    os.kill(started.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(started), 60, "the driver is gone")


def test_a_driver_that_has_only_just_been_started_is_not_gone(ready: Settings, tmp_path: Path) -> None:
    """Scripts that become the JVM show no environment, or that of another process, in between."""
    (tmp_path / "spark-submit").write_text("#!/bin/bash\nexec bash -c 'exec bash -c \"exec sleep 60\"'\n")
    pipeline = load_pipeline(ready.pipelines / "flights")
    for epoch in range(1, 31):
        row = row_of(launch(ready, pipeline, epoch), epoch)
        end = time.monotonic() + 0.03
        gone = [is_gone(row)]
        while time.monotonic() < end:
            gone.append(is_gone(row))
        os.killpg(row.pid, signal.SIGKILL)
        assert not any(gone)


def test_what_cannot_be_seen_from_here_is_not_called_gone(started: StreamRow) -> None:
    """A driver on another host, or one whose process was not recorded, may be alive."""
    assert not is_gone(replace(started, host="elsewhere", pid=1))
    assert not is_gone(replace(started, pid=None))


def test_a_process_id_that_now_belongs_to_another_process_is_gone_and_is_left_alone(started: StreamRow) -> None:
    """The number alone proves nothing."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        reused = replace(started, pid=other.pid)
        assert is_gone(reused)
        assert stop_driver(reused, grace_seconds=0)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_another_epoch_of_the_same_process_is_left_alone(started: StreamRow) -> None:
    """A process that holds an old row does not end a new driver."""
    assert stop_driver(replace(started, epoch=2), grace_seconds=0)
    assert len(members(started)) == 2


def test_stopping_ends_the_children_of_a_driver_that_is_dead_already(started: StreamRow) -> None:
    """A killed JVM leaves its Python behind."""
    os.kill(started.pid, signal.SIGKILL)
    wait_until(lambda: len(members(started)) == 1, 60, "only the child is left")
    assert stop_driver(started, grace_seconds=0)
    wait_until(lambda: not members(started), 60, "nothing of the driver is left")


def test_a_driver_that_ignores_the_request_is_killed(
    ready: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time for leaving and the time for the request it has no choice."""
    put_program(tmp_path, monkeypatch, stubborn=True)
    row = start(ready)
    assert stop_driver(row, grace_seconds=0.3)
    wait_until(lambda: not members(row), 60, "nothing of the driver is left")


def test_a_driver_on_another_host_cannot_be_stopped_from_here(started: StreamRow) -> None:
    """The result is False, and no process is signalled."""
    assert not stop_driver(replace(started, host="elsewhere"), grace_seconds=0)
    assert len(members(started)) == 2


def test_a_driver_of_a_cluster_is_known_by_its_heartbeat_alone(started: StreamRow) -> None:
    """The host of its lease is where the cluster started it; it is no process of the launcher."""
    of_cluster = replace(started, submission_id="driver-20260301000000-0000", master="spark://127.0.0.1:1")
    os.kill(started.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(started), 60, "the process is gone")
    assert not is_gone(of_cluster)


def test_a_driver_of_a_cluster_that_reported_its_end_is_not_ended_again(started: StreamRow) -> None:
    """The cluster is not bothered, and nothing of this host is touched."""
    of_cluster = replace(started, submission_id="driver-20260301000000-0000", master="spark://127.0.0.1:1")
    assert stop_driver(replace(of_cluster, state="stopped", heartbeat_epoch=3))
    assert len(members(started)) == 2


SUBMITTING = """\
import sys, time
print("INFO ClientEndpoint: Driver successfully submitted as driver-20260301000000-0007", flush=True)
time.sleep({seconds})
"""
STANDALONE = Cluster("spark://master:7077", "cluster")


def put_submitting(folder: Path, text: str) -> None:
    """Have the launcher start a program that submits, or does not."""
    write_program(folder / "spark-submit", text)


def test_a_submitted_driver_is_known_by_the_name_that_the_cluster_gave_it(ready: Settings, tmp_path: Path) -> None:
    """As soon as it is printed, before spark-submit ends. A name of an earlier run in the log is skipped."""
    put_submitting(tmp_path, SUBMITTING.format(seconds=5))
    pipeline = load_pipeline(ready.pipelines / "flights")
    log_file = launcher.log_file_of(ready, "flights", 3)
    log_file.parent.mkdir(parents=True)
    log_file.write_text("submitted as driver-20250101000000-0001\n")
    driver = launch(ready, pipeline, 3, cluster=STANDALONE)
    assert driver == LaunchedDriver(None, None, log_file, "spark://master:7077", "driver-20260301000000-0007")


@pytest.mark.parametrize(
    ("text", "code", "parameters"),
    [
        (
            "print('org.apache.spark.SparkException: no worker'); sys.exit(3)",
            "TM-SUPERVISOR-SUBMIT-FAILED",
            {"exit_code": 3},
        ),
        ("sys.exit(0)", "TM-SUPERVISOR-SUBMIT-FAILED", {"exit_code": 0}),
        ("time.sleep(600)", "TM-SUPERVISOR-SUBMIT-TIMED-OUT", {"seconds": "1"}),
    ],
)
def test_a_cluster_that_does_not_accept_the_driver_is_an_error_with_its_cause(
    ready: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    code: str,
    parameters: dict[str, object],
) -> None:
    """What spark-submit printed is the value; a spark-submit that hangs is ended."""
    put_submitting(tmp_path, f"import sys, time\n{text}\n")
    monkeypatch.setattr(launcher, "_SUBMIT_SECONDS", 1)
    with pytest.raises(StreamError) as caught:
        launch(ready, load_pipeline(ready.pipelines / "flights"), 3, cluster=STANDALONE)
    log_file = launcher.log_file_of(ready, "flights", 3)
    assert caught.value.code == code
    assert caught.value.parameters == parameters | {"log_file": log_file}
    assert ("no worker" in str(caught.value.value)) == ("no worker" in text)
    assert str(log_file) in caught.value.remedy


def test_a_driver_whose_program_cannot_be_executed_is_an_error(ready: Settings, tmp_path: Path) -> None:
    """Its code and the program name it."""
    (tmp_path / "spark-submit").chmod(0o600)
    with pytest.raises(StreamError) as caught:
        launch(ready, load_pipeline(ready.pipelines / "flights"), 3)
    assert caught.value.code == "TM-SUPERVISOR-DRIVER-NOT-STARTED"
    assert caught.value.parameters == {"program": str(tmp_path / "spark-submit")}


def test_a_cluster_is_asked_to_end_a_driver_and_its_answer_suffices(
    started: StreamRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No process of this host is signalled, and the launcher waits for no more than the answer."""
    program = tmp_path / "spark-class"
    write_program(program, "import sys, time\nprint('Kill request for', *sys.argv[2:], flush=True)\ntime.sleep(600)\n")
    monkeypatch.setattr(launcher, "spark_submit", lambda environment, name: str(tmp_path / name))
    of_cluster = replace(started, submission_id="driver-20260301000000-0000", master="spark://master:7077")
    with caplog.at_level("INFO"):
        assert not stop_driver(replace(of_cluster, state="running", heartbeat_epoch=3))
    assert "Kill request for kill spark://master:7077 driver-20260301000000-0000" in caplog.text
    assert len(members(started)) == 2


def test_a_cluster_that_cannot_be_asked_is_no_error(started: StreamRow, caplog: pytest.LogCaptureFixture) -> None:
    """The driver is fenced off all the same."""
    of_cluster = replace(started, submission_id="x", master="mesos://master:5050", state="running", heartbeat_epoch=3)
    assert not stop_driver(of_cluster)
    assert "cannot request the end of" in caplog.text
