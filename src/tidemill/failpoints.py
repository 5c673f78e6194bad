"""Failpoints: where a test of faults can hold a process still."""

from __future__ import annotations

import os
import time
from pathlib import Path

_POLL_SECONDS = 0.05
FAILPOINTS = "TIDE_FAILPOINTS"
"""Environment variable: the folder where tests arm the points of :func:`reach`. No setting, hence its own prefix,
which the launcher hands on to drivers."""
_failpoints = os.environ.get(FAILPOINTS)


def reach(point: str) -> None:
    """A failpoint: where a test of faults can hold a process still, to kill it or what it depends on.

    Does nothing unless the environment named a folder when the process started, and a file with the point's name (a
    hyphen for each blank) arms it there. The first caller takes that file: it becomes ``<point>.reached`` and says the
    caller's process id. The caller then waits for ``<point>.go``, or for the folder to go away.

    Args:
        point: as the write path calls it, for instance ``before COMMIT``.
    """
    if _failpoints is None:
        return
    armed = Path(_failpoints, point.replace(" ", "-"))
    taken = armed.with_name(f"{armed.name}.{os.getpid()}")
    try:
        armed.rename(taken)  # of several callers, one takes it
    except FileNotFoundError:
        return
    taken.write_text(str(os.getpid()))
    taken.rename(armed.with_name(f"{armed.name}.reached"))  # a test that sees it finds the process id in it
    go = armed.with_name(f"{armed.name}.go")
    while armed.parent.exists() and not go.exists():
        time.sleep(_POLL_SECONDS)
