"""Opens and closes the freshness incident of a stream, by its row."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.lifecycle.slo import Change, freshness_message, incident_change
from tidemill.lifecycle.stream_row import FRESHNESS, StreamRow
from tidemill.store.control.incidents import close_incident, open_incident


def update_freshness_incident(connection: Connection[Any], row: StreamRow, freshness_seconds: float) -> bool:
    """Open or close the stream's freshness incident if its row requires that; otherwise no statement is run.

    Args:
        connection: autocommit.
        row: as just read.
        freshness_seconds: how far the tables may be behind, by the pipeline's promise.

    Returns:
        Whether the incident was opened or closed.
    """
    change = incident_change(row, freshness_seconds)
    if change is Change.OPEN:
        open_incident(connection, f"stream {row.stream}", FRESHNESS, freshness_message(row, freshness_seconds))
    elif change is Change.CLOSE:
        close_incident(connection, f"stream {row.stream}", FRESHNESS)
    return change is not None
