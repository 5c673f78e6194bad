"""One child process."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from threading import Event

import pytest

from tidemill.config import Settings
from tidemill.devstack import child_process, process_records
from tidemill.devstack import secrets as passwords
from tidemill.devstack.child_process import Child, Program
from tidemill.errors import SetupError


def python(code: str, **options: object) -> Program:
    """A program that runs a few lines of Python."""
    return Program("sample", (sys.executable, "-c", code), dict(os.environ), **options)  # type: ignore[arg-type]


def test_child_runs_in_its_own_session_with_a_record_and_a_log(own: Settings) -> None:
    """A started child is recorded, cannot be reached by the terminal's Ctrl-C, and writes into its log."""
    child = Child(python("print('hello', flush=True); import time; time.sleep(600)"), own)
    child.start()
    assert child.pid is not None
    try:
        assert os.getsid(child.pid) == child.pid
        record = process_records.read(own, "sample")
        assert record is not None
        assert record.pid == child.pid
        assert record.is_alive()
    finally:
        assert child.stop() == -15
    assert child.log.read_text() in ("hello\n", "")
    assert process_records.read(own, "sample") is None


def test_child_is_ready_when_its_probe_says_so(own: Settings) -> None:
    """Readiness is the probe's answer, which is asked until it is yes."""
    asked: list[float] = []

    def probe(started: float) -> bool:
        asked.append(started)
        return len(asked) == 3

    child = Child(python("import time; time.sleep(600)", probe=probe), own)
    child.start()
    try:
        child.wait_ready(Event())
    finally:
        child.stop()
    assert asked == [child.started] * 3


def test_end_during_the_start_is_told_with_the_cause(own: Settings) -> None:
    """The first line that names a cause is quoted, not the noise around it; secrets in it are masked."""
    secret = passwords.ensure(own)["root"]
    code = f"print('noise'); print('ERROR no such plugin {secret}'); print('ERROR later'); raise SystemExit(3)"
    child = Child(python(code, probe=lambda started: False, cause=re.compile("ERROR")), own)
    child.start()
    with pytest.raises(SetupError) as error:
        child.wait_ready(Event())
    child.stop()
    assert str(error.value).startswith(
        "[TM-DEVSTACK-SERVER-ENDED] sample ended with exit code 3 while it started: ERROR no such plugin ***; "
    )
    assert str(child.log) in error.value.remedy


def test_cause_comes_from_this_start_only(own: Settings) -> None:
    """What an earlier start wrote into the same log is not taken for the cause of this one's end."""
    first = Child(python("print('ERROR of the first'); raise SystemExit(1)", cause=re.compile("ERROR")), own)
    second = Child(python("print('the second'); raise SystemExit(1)", cause=re.compile("ERROR")), own)
    with pytest.raises(SetupError, match="ERROR of the first"):
        first.run_to_end(Event())
    with pytest.raises(SetupError, match="the second"):
        second.run_to_end(Event())


def test_full_disk_is_told_as_such(own: Settings) -> None:
    """Whatever a program says when the disk is full, the sentence says that it is."""
    code = "raise OSError(28, 'No space left on device')"
    with pytest.raises(SetupError, match="TM-DEVSTACK-DISK-FULL"):
        Child(python(code, cause=re.compile("OSError")), own).run_to_end(Event())


def test_silence_ends_at_the_deadline(own: Settings) -> None:
    """A program that runs and never answers is given up after its time."""
    child = Child(python("import time; time.sleep(600)", probe=lambda started: False, ready_seconds=0.3), own)
    child.start()
    with pytest.raises(SetupError, match="TM-DEVSTACK-SERVER-NOT-READY"):
        child.wait_ready(Event())
    child.stop()


def test_program_that_is_not_there_is_named(own: Settings) -> None:
    """A program that cannot be executed is told by name."""
    child = Child(Program("sample", ("/nowhere/at-all",), {}), own)
    with pytest.raises(SetupError, match="sample cannot be started from /nowhere/at-all: No such file"):
        child.start()


def test_cancelled_preparation_leaves_no_process(own: Settings) -> None:
    """When another part fails, a preparation that runs is ended without an error of its own."""
    cancelled = Event()
    cancelled.set()
    child = Child(python("import time; time.sleep(600)"), own)
    child.run_to_end(cancelled)
    assert child.exit_code() == -15


def test_large_log_is_set_aside_at_the_next_start(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log does not grow without end."""
    monkeypatch.setattr(child_process, "_LOG_LIMIT_BYTES", 10)
    child = Child(python("print('a long enough line')"), own)
    child.run_to_end(Event())
    child.run_to_end(Event())
    assert child.log.read_text() == "a long enough line\n"
    assert child.log.with_suffix(".log.1").read_text() == "a long enough line\n"


def test_environment_names_the_programs_and_no_secret(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children find our Python first, the settings and the mark; Airflow's own overrides and secrets stay away."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "SequentialExecutor")
    monkeypatch.setenv("AIRFLOW_CONN_TIDEMILL_DB", "{}")
    secrets = passwords.ensure(own).values()
    made = child_process.environment(own)
    assert made["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert made["TIDEMILL_STATE"] == made[process_records.STACK_MARK] == str(own.state)
    assert made["PYSPARK_PYTHON"] == sys.executable
    assert (Path(made["SPARK_HOME"]) / "bin" / "spark-submit").exists()
    assert (Path(made["JAVA_HOME"]) / "bin" / "java").exists()
    assert not {"AIRFLOW__CORE__EXECUTOR", "AIRFLOW_CONN_TIDEMILL_DB"} & set(made)
    assert not any(secret in value for secret in secrets for value in made.values())
