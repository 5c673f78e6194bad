"""How the command line hands over to others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_pytest_takes_the_place_of_the_command(tmp_path: Path) -> None:
    """Ctrl-C reaches it alone, it has the time to stop its servers, and its exit code is ours."""
    (tmp_path / "test_it.py").write_text(
        "import os, pathlib\n"
        "def test_it():\n"
        "    pathlib.Path(__file__).with_name('pid').write_text(str(os.getpid()))\n"
        "    assert False\n"
    )
    command = [sys.executable, "-m", "tidemill", "test", "-p", "no:cacheprovider", str(tmp_path / "test_it.py")]
    with subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.DEVNULL) as started:
        assert started.wait(60) == 1
    assert (tmp_path / "pid").read_text() == str(started.pid)
