"""What `./tidemill test` runs in its place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.paths import PIPELINES, TIDES
from tidemill.cli.commands import develop
from tidemill.cli.main import app


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("", "-m pytest"),
        ("tests/unit/spec -q", "-m pytest tests/unit/spec -q"),
        ("--lane db --seed 7", "-m pytest --lane=db --seed 7"),
        ("flights -x", f"-m pytest tests/spark/test_cases.py --pipeline {PIPELINES / 'flights'} -x"),
        ("--full", "tests/full.py"),
        ("--full --resume --lane db --lane up --seed 7", "tests/full.py --lane=db --lane=up --seed 7 --resume"),
        ("--full tests/e2e -x", "-m pytest --full tests/e2e -x"),
    ],
)
def test_the_command_becomes_pytest_or_a_full_run(words: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full run goes lane by lane unless tests are named; everything that is not an option of ours goes to pytest."""
    executed: list[str] = []

    def execute(settings: object, *arguments: str) -> None:
        executed.append(" ".join(arguments))
        raise SystemExit(0)

    monkeypatch.setenv("TIDEMILL_PIPELINES", str(PIPELINES))
    monkeypatch.setattr(develop, "_exec_python", execute)
    CliRunner().invoke(app, ["test", *words.split()])
    assert executed == [command]


def test_a_pipeline_without_cases_is_no_success(tmp_path: Path) -> None:
    """Whose folder is wherever the settings say; where it has no case there is nothing that could be right."""
    shutil.copytree(TIDES, tmp_path / "tides")
    words = [sys.executable, "-m", "tidemill", "test", "tides"]
    environment = os.environ | {"TIDEMILL_PIPELINES": str(tmp_path)}
    ended = subprocess.run(words, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert ended.returncode == 2
    assert "[TM-CLI-NO-CASES]" in ended.stderr
    assert str(tmp_path / "tides" / "cases") in ended.stderr


def test_the_cases_are_those_of_the_folder_that_the_settings_name(tmp_path: Path) -> None:
    """A pipeline elsewhere is tested there, and not skipped for want of a folder of its name in the project."""
    shutil.copytree(TIDES, tmp_path / "tides")
    (tmp_path / "tides" / "cases").mkdir()
    (tmp_path / "tides" / "cases" / "calm.yaml").write_text("given: []\nexpect: {}\n", encoding="utf-8")
    words = [sys.executable, "-m", "tidemill", "test", "tides", "--collect-only", "-q"]
    environment = os.environ | {"TIDEMILL_PIPELINES": str(tmp_path)}
    ended = subprocess.run(words, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert "test_case[tides/calm]" in ended.stdout, ended.stdout + ended.stderr
    assert "1 test collected" in ended.stdout
