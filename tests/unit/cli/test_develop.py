"""What `./tidemill test` runs in its place."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tidemill.cli.commands import develop
from tidemill.cli.main import app


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("", "-m pytest"),
        ("tests/unit/spec -q", "-m pytest tests/unit/spec -q"),
        ("--lane db --seed 7", "-m pytest --lane=db --seed 7"),
        ("flights -x", "-m pytest tests/spark/test_cases.py --pipeline flights -x"),
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

    monkeypatch.setattr(develop, "_exec_python", execute)
    CliRunner().invoke(app, ["test", *words.split()])
    assert executed == [command]
