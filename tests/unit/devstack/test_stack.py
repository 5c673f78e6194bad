"""Decisions around the stack that need no server."""

from __future__ import annotations

import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from tidemill import config
from tidemill.config import Settings
from tidemill.devstack import control
from tidemill.devstack.restarts import RESTART_BACKOFF
from tidemill.devstack.stack import Stack, write_settings
from tidemill.errors import SetupError


def test_waiting_doubles_and_stays_bounded() -> None:
    """A part that keeps ending is started ever more seldom, at least twice a minute."""
    assert [RESTART_BACKOFF.pause_seconds(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert RESTART_BACKOFF.pause_seconds(10_000) == 30


def test_settings_of_a_start_are_found_by_the_next_command(own: Settings) -> None:
    """A command in another terminal, which knows only the state folder, gets the ports that are in use."""
    write_settings(own)
    found = config.load({"TIDEMILL_ROOT": str(own.root), "TIDEMILL_STATE": str(own.state)})
    assert found == own


def test_settings_file_does_not_hold_where_it_lies(own: Settings, tmp_path: Path) -> None:
    """A checkout that is moved, state and all, still starts: places that follow from others are not kept."""
    write_settings(own)
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(own.settings_file, moved / "settings.json")
    found = config.load({"TIDEMILL_ROOT": "/elsewhere", "TIDEMILL_STATE": str(moved)})
    assert found.models == moved / "models"
    assert found.pipelines == Path("/elsewhere/pipelines")


def test_second_start_on_the_same_state_is_refused(own: Settings) -> None:
    """One stack a state folder: the second is told who runs the first and what to use instead."""
    with Stack(own, parts=()) as first:
        first.start()
        running = control.running(own)
        assert running is not None
        with pytest.raises(SetupError) as error:
            Stack(own, parts=()).start()
    assert str(error.value) == (
        f"[TM-DEVSTACK-ALREADY-RUNNING] the stack is already running: process {running.pid}; "
        "see ./tidemill status, or stop it with ./tidemill down"
    )
    assert control.running(own) is None


def test_full_disk_is_noticed_before_anything_starts(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With less than 2 GB free the start is refused, and the sentence says how much there is and where."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1_500_000_000))
    with pytest.raises(SetupError, match=r"TM-DEVSTACK-DISK-FULL.*: 1\.5 GB free at .*TIDEMILL_STATE"):
        Stack(own, parts=["mariadb"]).start()
    assert control.running(own) is None


def test_a_state_folder_that_cannot_be_made_is_named(own: Settings, tmp_path: Path) -> None:
    """One sentence with the path and the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(SetupError) as error:
        Stack(own.model_copy(update={"state": tmp_path / "file"}), parts=()).start()
    assert (error.value.code, error.value.value) == ("TM-DEVSTACK-STATE-UNUSABLE", str(tmp_path / "file"))


def test_write_to_a_full_disk_is_told_as_such(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up during the start ends in the same sentence, and the state can be started again."""

    def full(path: Path, text: str, **options: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(SetupError, match="TM-DEVSTACK-DISK-FULL"):
            Stack(own, parts=()).start()
    with Stack(own, parts=()) as stack:
        stack.start()


def test_taken_port_is_refused_before_anything_starts(own: Settings) -> None:
    """A port that somebody else listens on is named with the setting that moves ours."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", own.db_port))
        server.listen()
        with pytest.raises(SetupError, match=rf"port {own.db_port} is taken: .*TIDEMILL_DB_PORT"):
            Stack(own, parts=["mariadb"]).start()
    assert not (own.state / "mariadb").exists()


def test_down_without_a_stack_says_that_there_was_none(own: Settings) -> None:
    """Taking down what is not up is no error."""
    said: list[str] = []
    assert control.down(own, said.append) is False
    assert said == []
