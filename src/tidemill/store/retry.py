"""Small transactions, one after another: what has to be long is cut into steps that nobody waits for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import pymysql
from pymysql.connections import Connection

from tidemill.errors import Contention
from tidemill.store.connection import translated

T = TypeVar("T")
ATTEMPTS = 10
"""How often a step is tried that gives way to writers."""
LONGEST_PAUSE_SECONDS = 0.5


def run_step(connection: Connection[Any], work: Callable[[Any], T]) -> T:
    """Do one step in a transaction of its own; after contention it is tried again, ever later.

    Args:
        connection: in autocommit mode.
        work: does it over the cursor it is given; runs again from its beginning.

    Returns:
        What ``work`` returned.

    Raises:
        Contention: the step never had its turn.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with translated(), connection.cursor() as cursor:
                connection.begin()
                done = work(cursor)
                connection.commit()
            return done
        except Contention:
            _undo(connection)
            if attempt == ATTEMPTS:
                raise
            time.sleep(random.uniform(0.5, 1.0) * min(0.02 * 2**attempt, 2.0))  # noqa: S311 -- jitter
        except BaseException:
            _undo(connection)
            raise
    raise AssertionError("unreachable: the last attempt raises")


def pause_for_others(began: float) -> None:
    """Pause as long as a step took that began then (monotonic), so that writers have at least half of the time."""
    time.sleep(min(time.monotonic() - began, LONGEST_PAUSE_SECONDS))


def _undo(connection: Connection[Any]) -> None:
    if connection.open:
        with suppress(pymysql.Error):  # a broken connection has been rolled back by the server
            connection.rollback()
