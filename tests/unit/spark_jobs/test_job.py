"""What every Spark job does around its work, and that a checkout's files lead to it."""

from __future__ import annotations

import ast
import logging
import os
import subprocess
import sys

import pytest

from support.paths import ROOT
from tidemill import logs
from tidemill.config import Settings
from tidemill.errors import KafkaUnavailable
from tidemill.spark_jobs.job import run_job

JOBS = ("stream", "replay", "train", "score")


@pytest.fixture(autouse=True)
def unconfigured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own process keeps its logging, and has the settings of the tests."""
    monkeypatch.setattr(logs, "configure", lambda **fields: None)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)


def test_the_result_is_one_line(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    """The work is given the settings, and may have no result to print."""
    assert run_job(lambda given: f"read {given.kafka_bootstrap}") == 0
    assert run_job(lambda given: None) == 0
    assert capsys.readouterr() == (f"read {settings.kafka_bootstrap}\n", "")


def test_an_error_is_one_line_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """The diagnosis of logs and Airflow's tasks look for the line."""

    def work(settings: Settings) -> str:
        raise KafkaUnavailable("TM-KAFKA-UNAVAILABLE", value="no answer in 15 s")

    assert run_job(work) == KafkaUnavailable.exit_code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("tidemill: [TM-KAFKA-UNAVAILABLE] no Kafka broker answers: no answer in 15 s; ")
    assert printed.err.count("\n") == 1


def test_a_wrong_setting_is_such_an_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings are read inside."""
    monkeypatch.setenv("TIDEMILL_NO_SUCH_SETTING", "1")
    assert run_job(lambda settings: "done") == 2
    assert capsys.readouterr().err.startswith("tidemill: ")


@pytest.mark.parametrize("name", JOBS)
def test_a_file_of_the_checkout_only_imports_and_calls(name: str) -> None:
    """``spark_jobs/`` holds no logic: an installation without a checkout loses nothing."""
    module = ast.parse((ROOT / "spark_jobs" / f"{name}.py").read_text())
    *imports, call = module.body[1:]
    assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in imports)
    assert ast.unparse(call) == "if __name__ == '__main__':\n    sys.exit(main())"
    assert f"from tidemill.spark_jobs.{name} import main" in map(ast.unparse, imports)


@pytest.mark.parametrize("name", JOBS)
def test_a_module_of_the_package_can_be_submitted_itself(name: str) -> None:
    """Run as a script, its own folder comes first on Python's path, and hides no other module."""
    path = ROOT / "src" / "tidemill" / "spark_jobs" / f"{name}.py"
    ended = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert ended.returncode == 0, ended.stderr
    assert "--pipeline" in ended.stdout


def test_logging_stays_as_it_is_in_the_tests() -> None:
    """The fixture above works: nothing here adds a handler of ours."""
    handlers = logging.getLogger().handlers
    assert not any(isinstance(handler.formatter, logs.LogfmtFormatter) for handler in handlers)
