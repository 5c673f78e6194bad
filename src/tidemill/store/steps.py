"""Small transactions, one after another: work that would take long is cut into steps for which no writer waits long."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import pymysql
from pymysql.connections import Connection

from tidemill.errors import Contention
from tidemill.retry import Backoff
from tidemill.store.connection import translated

T = TypeVar("T")
STEP_BACKOFF = Backoff(attempts=10)
"""For a step that gives way to writers."""
LONGEST_PAUSE_SECONDS = 0.5


def run_step(connection: Connection[Any], work: Callable[[Any], T], backoff: Backoff = STEP_BACKOFF) -> T:
    """Run one step in a transaction of its own; after contention it is rolled back and run again.

    Args:
        connection: in autocommit mode.
        work: runs the step with a cursor; every attempt runs it from its beginning.
        backoff: pauses and number of attempts.

    Returns:
        What ``work`` returned.

    Raises:
        Contention: every attempt gave way to another transaction.
    """

    def attempt() -> T:
        try:
            with translated(), connection.cursor() as cursor:
                connection.begin()
                done = work(cursor)
                connection.commit()
            return done
        except BaseException:  # an interrupt, too: the step would keep its locks
            _roll_back(connection)
            raise

    return backoff.run(attempt, retry_if=lambda error: isinstance(error, Contention))


def pause_for_others(began: float) -> None:
    """Pause as long as a step took that began then (monotonic), so that writers have at least half of the time."""
    time.sleep(min(time.monotonic() - began, LONGEST_PAUSE_SECONDS))


def _roll_back(connection: Connection[Any]) -> None:
    if connection.open:
        with suppress(pymysql.Error):  # the server rolls the transaction of a broken connection back
            connection.rollback()
