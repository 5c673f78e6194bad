"""Waiting for a condition, for tests of pipelines and of the project itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.05


def wait_until(condition: Callable[[], T], deadline_seconds: float, what: str = "the condition") -> T:
    """Call ``condition`` until it returns a true value, and return that value.

    Args:
        condition: called every 50 ms.
        deadline_seconds: how long to wait.
        what: description of the condition, for the message.

    Raises:
        AssertionError: the condition was still false after ``deadline_seconds``; shows the last value.
    """
    end = time.monotonic() + deadline_seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {deadline_seconds:g} s; last value: {value!r}")
        time.sleep(_POLL_SECONDS)
    return value
