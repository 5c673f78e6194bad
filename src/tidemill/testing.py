"""What tests of pipelines and of the project itself share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.05


def wait_until(condition: Callable[[], T], deadline_seconds: float, what: str = "the condition") -> T:
    """What ``condition`` returns as soon as that is true.

    Raises:
        AssertionError: it was not within ``deadline_seconds``; says ``what`` was waited for and what there was instead.
    """
    end = time.monotonic() + deadline_seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {deadline_seconds:g} s; last seen: {found!r}")
        time.sleep(_POLL_SECONDS)
    return found
