"""Restarts of processes that ended by themselves, with growing pauses while they keep ending."""

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
class _Failures:
    """The failures of one process."""

    count: int = 0
    retry_at: float | None = None
    """Time of the next start on the monotonic clock; None while the process runs."""
    starting: bool = False
    """Whether the process was restarted and is not ready yet."""


class Watch:
    """Restarts the processes in ``children``, which may change, until ``stop``."""

    def __init__(self, children: dict[str, Child], report: Callable[[str], None]) -> None:
        self._children = children
        self._report = report
        self._failures_by_name: dict[str, _Failures] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Restart no process any more; returns when the thread has ended."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            for child in list(self._children.values()):
                failures = self._failures_by_name.setdefault(child.name, _Failures())
                try:
                    self._look(child, failures)
                except (TidemillError, OSError) as error:
                    self._fail(child, failures, str(error))

    def _look(self, child: Child, failures: _Failures) -> None:
        if failures.retry_at is not None:
            if time.monotonic() >= failures.retry_at:
                child.start()
                failures.retry_at, failures.starting = None, True
        elif child.exit_code() is not None:
            if not failures.starting and time.time() - child.started > _STEADY_SECONDS:
                failures.count = 0
            self._fail(child, failures, _because(f"{child.name} {child.ending()}", child))
        elif failures.starting and child.is_ready():
            failures.starting = False
            self._report(f"{child.name} is ready again")
        elif failures.starting and child.is_overdue():
            self._fail(child, failures, _because(f"{child.name} does not answer", child))

    def _fail(self, child: Child, failures: _Failures, what: str) -> None:
        failures.count += 1
        delay = RESTART_BACKOFF.pause_seconds(failures.count)
        failures.retry_at, failures.starting = time.monotonic() + delay, False
        # Processes that the dead one had started would work beside its successor.
        child.stop(grace_seconds=1)
        self._report(f"{what}; restarting it in {delay:.0f} s")


def _because(what: str, child: Child) -> str:
    cause = child.cause()
    return f"{what} ({cause})" if cause else what
