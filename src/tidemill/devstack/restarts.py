"""Starting again what ended by itself, ever more slowly while it keeps ending."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tidemill.devstack.child_process import Child
from tidemill.errors import TidemillError
from tidemill.retry import Backoff

_LOOK_SECONDS = 0.5
_STEADY_SECONDS = 60.0
RESTART_BACKOFF = Backoff(first_seconds=1.0, longest_seconds=30.0, jitter=0)
"""After so many failures in a row: 1, 2, 4, … and never more than 30 seconds."""


@dataclass
class _Trouble:
    """What is known of a program that has failed."""

    failures: int = 0
    retry_at: float | None = None
    """On the monotonic clock; None while it runs."""
    starting: bool = False
    """Started again, and not yet seen to serve."""


class Watch:
    """Watches the processes in ``children``, which may change, until ``stop``."""

    def __init__(self, children: dict[str, Child], report: Callable[[str], None]) -> None:
        self._children = children
        self._report = report
        self._troubles: dict[str, _Trouble] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Start nothing any more. Returns when the thread has ended."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            for child in list(self._children.values()):
                trouble = self._troubles.setdefault(child.name, _Trouble())
                try:
                    self._look(child, trouble)
                except (TidemillError, OSError) as error:
                    self._fail(child, trouble, str(error))

    def _look(self, child: Child, trouble: _Trouble) -> None:
        if trouble.retry_at is not None:
            if time.monotonic() >= trouble.retry_at:
                child.start()
                trouble.retry_at, trouble.starting = None, True
        elif child.exit_code() is not None:
            if not trouble.starting and time.time() - child.started > _STEADY_SECONDS:
                trouble.failures = 0
            self._fail(child, trouble, _because(f"{child.name} {child.ending()}", child))
        elif trouble.starting and child.is_ready():
            trouble.starting = False
            self._report(f"{child.name} serves again")
        elif trouble.starting and child.is_overdue():
            self._fail(child, trouble, _because(f"{child.name} does not answer", child))

    def _fail(self, child: Child, trouble: _Trouble, what: str) -> None:
        trouble.failures += 1
        delay = RESTART_BACKOFF.pause_seconds(trouble.failures)
        trouble.retry_at, trouble.starting = time.monotonic() + delay, False
        # What the dead process had started would work on beside its successor.
        child.stop(grace_seconds=1)
        self._report(f"{what}; starting it again in {delay:.0f} s")


def _because(what: str, child: Child) -> str:
    cause = child.cause()
    return f"{what} ({cause})" if cause else what
