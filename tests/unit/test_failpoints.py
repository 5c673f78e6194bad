"""Waiting for a condition, and failpoints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.failpoints import FAILPOINTS, reach
from tidemill.testing import wait_until

_REACH = """
from tidemill.failpoints import reach
reach("before COMMIT")
print("went on")
"""


def start(folder: Path) -> subprocess.Popen[str]:
    """A process that reaches a point, with failpoints in ``folder``."""
    environment = {**os.environ, FAILPOINTS: str(folder)}
    return subprocess.Popen([sys.executable, "-c", _REACH], env=environment, stdout=subprocess.PIPE, text=True)


def test_what_is_true_is_returned() -> None:
    """The condition's own value comes back, without a wait."""
    assert wait_until(lambda: [1], 0) == [1]


def test_what_does_not_come_true_is_named() -> None:
    """After the deadline the sentence says what was waited for and what there was instead."""
    with pytest.raises(AssertionError, match=r"the tide did not come true within 0\.1 s; last value: 0"):
        wait_until(lambda: 0, 0.1, "the tide")


def test_a_point_does_nothing_without_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the environment that a process began with counts."""
    (tmp_path / "here").touch()
    monkeypatch.setenv(FAILPOINTS, str(tmp_path))
    reach("here")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_an_armed_point_holds_the_first_process_until_it_is_released(tmp_path: Path) -> None:
    """It says its process id, others pass, and it goes on when told to."""
    (tmp_path / "before-COMMIT").touch()
    with start(tmp_path) as held:
        reached = tmp_path / "before-COMMIT.reached"
        wait_until(reached.exists, 60, "the point is reached")
        assert int(reached.read_text()) == held.pid
        with start(tmp_path) as other:
            assert other.communicate(timeout=60)[0] == "went on\n"
        assert held.poll() is None
        (tmp_path / "before-COMMIT.go").touch()
        assert held.communicate(timeout=60)[0] == "went on\n"


def test_a_held_process_goes_on_when_the_folder_is_gone(tmp_path: Path) -> None:
    """A test that was ended in between leaves nobody waiting."""
    folder = tmp_path / "points"
    folder.mkdir()
    (folder / "before-COMMIT").touch()
    with start(folder) as held:
        wait_until((folder / "before-COMMIT.reached").exists, 60, "the point is reached")
        (folder / "before-COMMIT.reached").unlink()
        folder.rmdir()
        assert held.communicate(timeout=60)[0] == "went on\n"
