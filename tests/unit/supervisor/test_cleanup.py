"""Files of former drivers, and those that a process may still use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tidemill.config import Settings
from tidemill.supervisor import cleanup
from tidemill.supervisor.cleanup import RemovedFiles, remove_stale_files
from tidemill.supervisor.launcher import DRIVER_MARK
from tidemill.supervisor.maintenance import describe

DAY = 86_400


def make(path: Path, days: float, *, folder: bool = False) -> Path:
    """A file, or a folder with something in it, that was changed so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if folder:
        (path / "within").mkdir(parents=True)
    else:
        path.write_text("x")
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which bulk loads are looked for, instead of the machine's."""
    real = cleanup._old_bulk_files
    monkeypatch.setattr(cleanup, "_old_bulk_files", lambda _: real({tmp_path / "shm"}))
    return tmp_path / "shm"


def test_only_what_is_old_and_of_a_former_driver_leaves(own: Settings, memory: Path) -> None:
    """No file of the newest epoch is removed, no young one, and none with a foreign name."""
    scratch, logs = own.state / "scratch", own.state / "logs" / "streams"
    gone = [
        make(scratch / "tides-6-abc_1", 1, folder=True),
        make(memory / "tidemill-a.tsv", 1),
        make(logs / "tides-6.log", 31),
        make(logs / "tides-6.log.1", 31),
        make(logs / "unknown-2.log", 31),
        make(own.state / "checked" / "0a1b", 31),
    ]
    kept = [
        make(scratch / "tides-7-abc", 1, folder=True),
        make(scratch / "tides-5-abc", 0, folder=True),
        make(scratch / "unknown-1-abc", 1, folder=True),
        make(scratch / "something", 1, folder=True),
        make(memory / "tidemill-b.tsv", 0),
        make(memory / "other.tsv", 1),
        make(logs / "tides-7.log", 100),
        make(logs / "tides-7.log.3", 100),
        make(logs / "tides-6.log.gz", 100),
        make(logs / "tides-5.log", 29),
        make(logs / "notes.txt", 100),
        make(own.state / "checked" / "2c3d", 29),
    ]
    assert remove_stale_files(own, {"tides": 7}, dry_run=True) == RemovedFiles(1, 1, 3, 1)
    assert all(path.exists() for path in gone)
    assert remove_stale_files(own, {"tides": 7}) == RemovedFiles(1, 1, 3, 1)
    assert [path.name for path in gone if path.exists()] == []
    assert [path.name for path in kept if not path.exists()] == []


def test_what_a_living_process_uses_stays(own: Settings, memory: Path) -> None:
    """A driver that lost its lease and has not exited yet, a load that is under way."""
    folder = make(own.state / "scratch" / "tides-6-abc", 1, folder=True)
    file = make(memory / "tidemill-a.tsv", 1)
    script = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, DRIVER_MARK: "tides/6"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        assert remove_stale_files(own, {"tides": 7}) == RemovedFiles()
        assert process.stdin is not None
        process.stdin.close()
    assert remove_stale_files(own, {"tides": 7}) == RemovedFiles(1, 1, 0)
    assert not folder.exists()
    assert not file.exists()


def test_counts_become_a_sentence() -> None:
    """Zeros are left out; notes come after the counts."""
    facts = {"pipeline": "tides", "merged_commits": 3, "removed_rows": {"levels": 20, "gauges": 0}, "scores": 0}
    assert describe(facts) == ["3 merged commits, 20 removed rows (levels)"]
    assert describe({"scores": 0, "notes": ["later"]}) == ["nothing to do", "later"]
