"""``status`` where there is no stack to ask."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tidemill.cli import main as cli
from tidemill.devstack.ports import free_port


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: Path, port: int, *words: str
) -> tuple[int, str, str]:
    """The exit code, standard output and standard error."""
    monkeypatch.setenv("TIDEMILL_STATE", str(state))
    monkeypatch.setenv("TIDEMILL_DB_PORT", str(port))
    monkeypatch.setattr("sys.argv", ["tidemill", "status", *words])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    shown = capsys.readouterr()
    return int(exited.value.code or 0), shown.out, shown.err


def test_a_stack_that_is_down_is_reported_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A person reads one line and one sentence; a script reads exit code 3."""
    port = free_port()
    assert run(monkeypatch, capsys, tmp_path, port) == (
        3,
        "stack: not running\n",
        f"tidemill: [TM-DEVSTACK-DOWN] the stack is not running, and no database answers at 127.0.0.1:{port}; start "
        "the stack with ./tidemill up, or set TIDEMILL_DB_HOST and TIDEMILL_DB_PORT to a running database\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_stack_that_is_down_is_reported_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the same keys as the facts of a stack that runs."""
    code, out, err = run(monkeypatch, capsys, tmp_path, free_port(), "--json")
    facts = json.loads(out)
    assert code == 3
    assert facts["stack"] == {"pid": None, "components": {}}
    assert (facts["streams"], facts["models"]) == ([], [])
    assert err == f"tidemill: {facts['problems'][0]}\n"


def test_a_database_elsewhere_is_asked_without_a_stack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The stack may run in containers: what listens is asked, and here the password is missing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        code, _, err = run(monkeypatch, capsys, tmp_path, server.getsockname()[1])
    assert code == 2
    assert "[TM-CONFIG-SECRET-MISSING]" in err
