"""Failpoints: places in the code at which a fault test can pause a process."""

from __future__ import annotations

import os
import time
from pathlib import Path

_POLL_SECONDS = 0.05
FAILPOINTS = "TIDE_FAILPOINTS"
"""Environment variable with the folder in which tests arm failpoints. It is not a setting and so has a prefix of its
own, which the launcher passes on to drivers."""
_failpoints = os.environ.get(FAILPOINTS)


def reach(point: str) -> None:
    """Pause here if a test has armed this failpoint, so that it can kill this process or a server that it uses.

    A test arms a failpoint by a file of its name, with hyphens for blanks, in the folder that the environment variable
    named when the process started. Without it the call does nothing. The first process that reaches the failpoint
    renames the file to ``<point>.reached`` and writes its process id into it; then it waits until the test creates
    ``<point>.go`` or removes the folder.

    Args:
        point: name of the failpoint, for instance ``before COMMIT``.
    """
    if _failpoints is None:
        return
    armed = Path(_failpoints, point.replace(" ", "-"))
    claimed = armed.with_name(f"{armed.name}.{os.getpid()}")
    try:
        armed.rename(claimed)  # succeeds in one of several processes
    except FileNotFoundError:
        return
    claimed.write_text(str(os.getpid()), encoding="utf-8")
    claimed.rename(armed.with_name(f"{armed.name}.reached"))  # appears with the process id already in it
    go = armed.with_name(f"{armed.name}.go")
    while armed.parent.exists() and not go.exists():
        time.sleep(_POLL_SECONDS)
