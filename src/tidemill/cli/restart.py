"""A person's wish for another driver, and the wait until it works."""

from __future__ import annotations

import time

from tidemill.config import Account, Settings
from tidemill.errors import StreamError
from tidemill.lifecycle.driver_state import observe
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.connection import session
from tidemill.store.control import streams

_POLL_SECONDS = 0.25


def restart(settings: Settings, stream: str, by: str, seconds: float) -> int | None:
    """Have a stream's driver finish its batch and leave, and wait until the next one reads.

    Args:
        settings: where the database is.
        stream: whose.
        by: who wishes it.
        seconds: how long to wait; 0 only asks.

    Returns:
        The epoch of the new driver; None if nobody waited for it.

    Raises:
        StreamError: no newer driver reads within that time. What was wished stays wished.
    """
    with session(settings, Account.STREAM) as connection:
        before = streams.read_stream(connection, stream)
        streams.request_exit(connection, stream, by)
        if not seconds:
            return None
        row, deadline = before, time.monotonic() + seconds
        while time.monotonic() < deadline:
            row = streams.read_stream(connection, stream)
            if row is not None and row.halted_reason:
                break
            newer = row is not None and row.epoch > (before.epoch if before else 0)
            if row is not None and newer and observe(row).is_running:
                return row.epoch
            time.sleep(_POLL_SECONDS)
    raise StreamError(
        f"no newer driver of {stream} reads within {seconds:g} s",
        value=_found(row),
        remedy=f"the wish stands: see ./tidemill status, and the DAG stream__{stream}",
    )


def _found(row: StreamRow | None) -> str:
    if row is None:
        return "its row is gone"
    if row.halted_reason:
        return f"halted: {row.halted_reason}"
    if row.desired_state != "running":
        return f"it was wished stopped by {row.requested_by}"
    return f"epoch {row.epoch} is {observe(row).driver_state}" + (f": {row.last_error}" if row.last_error else "")
