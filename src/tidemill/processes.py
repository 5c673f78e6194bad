"""What other processes of this machine carry in their environment: by that we know ours."""

from __future__ import annotations

import time

import psutil

_SECONDS = 0.2
_PAUSE_SECONDS = 0.01


def environment_of(process: psutil.Process, seconds: float = _SECONDS) -> dict[str, str]:
    """The environment that a process was started with.

    While a process takes on another program the kernel shows none for a moment, or, to whoever is in the middle of
    reading it, only its beginning; and a driver takes on three before it is the JVM. Whoever believes that would call
    it a stranger, or gone. So what is shown counts once it is shown twice.

    Args:
        process: of any user.
        seconds: how long to wait for one that shows none.

    Returns:
        Empty for a thread of the kernel, and for a process that has none.

    Raises:
        psutil.Error: it has ended, is a zombie, or belongs to somebody else.
    """
    deadline, before = time.monotonic() + seconds, None
    while True:
        found = process.environ()
        # Threads of the kernel have no program either.
        settled = found == before if found else not process.exe()
        if settled or time.monotonic() > deadline:
            return dict(found)
        before = found
        if not found:
            time.sleep(_PAUSE_SECONDS)
