"""The one definition of "try again": a transient error, exponential back-off, jitter.

Runs in every process. :class:`Backoff` names how long to wait and when to give up; what is tried again is an error that
is :class:`~tidemill.errors.Transient` unless the caller names another condition. A loop that waits for something to
become true, and in which nothing failed, is a poll and does not belong here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import (
    Retrying,
    retry_any,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    stop_any,
    stop_never,
)

from tidemill.errors import Transient

T = TypeVar("T")


def is_transient(error: BaseException) -> bool:
    """Whether an error may not occur again."""
    return isinstance(error, Transient)


@dataclass(frozen=True)
class Backoff:
    """How long to wait between two attempts, and after how many, or how long, to give up."""

    first_seconds: float = 0.04
    """After the first failure; each further one doubles it."""
    longest_seconds: float = 2.0
    attempts: int | None = None
    """None for any number."""
    deadline_seconds: float | None = None
    """An attempt that fails later than this after the first one began is the last; None for no limit."""
    jitter: float = 0.5
    """By which part a pause may be shorter, at random, so that processes that failed together do not return together;
    0 for the same pause each time."""

    def pause_seconds(self, failures: int) -> float:
        """How long to wait after so many failures in a row, of which there is at least one."""
        longest = min(self.first_seconds * 2.0 ** min(failures - 1, 60), self.longest_seconds)
        return longest * random.uniform(1 - self.jitter, 1)  # noqa: S311 -- jitter is no secret

    def run(
        self,
        work: Callable[[], T],
        *,
        retry_if: Callable[[BaseException], bool] = is_transient,
        retry_result: Callable[[T], bool] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> T:
        """Do some work until an attempt succeeds.

        Args:
            work: one attempt, from its beginning; it leaves nothing half done when it raises.
            retry_if: whether an error is worth another attempt.
            retry_result: whether a result is none yet and needs another attempt; None if every result counts.
            sleep: how to wait; a caller that can be stopped waits on its event.

        Returns:
            What the first attempt that succeeded returned. After the last attempt, what that one returned.

        Raises:
            BaseException: the error of the last attempt, or the first one that is not worth another attempt.
        """
        stops = [stop_after_attempt(self.attempts)] if self.attempts is not None else []
        if self.deadline_seconds is not None:
            stops.append(stop_after_delay(self.deadline_seconds))  # type: ignore[arg-type]
        conditions = [retry_if_exception(retry_if)]
        if retry_result is not None:
            conditions.append(retry_if_result(retry_result))  # type: ignore[arg-type]
        retrying = Retrying(
            stop=stop_any(*stops) if stops else stop_never,
            wait=lambda state: self.pause_seconds(state.attempt_number),
            retry=retry_any(*conditions),
            sleep=sleep,
            retry_error_callback=lambda state: state.outcome.result(),  # type: ignore[union-attr]  # it has ended
        )
        return retrying(work)
