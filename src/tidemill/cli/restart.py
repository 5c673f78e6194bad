"""``tidemill restart``: request that a driver exits, and wait until the next one reads."""

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
    """Request that a stream's driver exits after its batch, and wait until the next driver reads.

    Args:
        settings: the address of the database.
        stream: the name of the stream.
        by: who requests it, for the control plane.
        seconds: how long to wait; 0 does not wait.

    Returns:
        The epoch of the new driver; None without a wait.

    Raises:
        StreamError: no newer driver reads within that time. The request remains in the control plane.
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
    raise StreamError("TM-CLI-RESTART-TIMED-OUT", value=_reason(row), stream=stream, seconds=f"{seconds:g}")


def _reason(row: StreamRow | None) -> str:
    if row is None:
        return "the stream has no row in the control plane"
    if row.halted_reason:
        return f"halted: {row.halted_reason}"
    if row.desired_state != "running":
        return f"a stop was requested by {row.requested_by}"
    return f"epoch {row.epoch} is {observe(row).driver_state}" + (f": {row.last_error}" if row.last_error else "")
