"""The freshness incident of a stream, opened and closed as its row says."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.lifecycle.slo import Change, freshness_message, incident_change
from tidemill.lifecycle.stream_row import FRESHNESS, StreamRow
from tidemill.store.control.incidents import close_incident, open_incident


def update_freshness_incident(connection: Connection[Any], row: StreamRow, freshness_seconds: float) -> bool:
    """Open or close the stream's freshness incident as its row says. Costs nothing while there is nothing to change.

    Args:
        connection: autocommit.
        row: as just read.
        freshness_seconds: what the pipeline promises.

    Returns:
        Whether something changed.
    """
    change = incident_change(row, freshness_seconds)
    if change is Change.OPEN:
        open_incident(connection, f"stream {row.stream}", FRESHNESS, freshness_message(row, freshness_seconds))
    elif change is Change.CLOSE:
        close_incident(connection, f"stream {row.stream}", FRESHNESS)
    return change is not None
