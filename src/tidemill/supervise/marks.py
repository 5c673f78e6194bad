"""A stream's task or run that a person marked as failed in Airflow: a wish to stop the stream.

It is taken down by Airflow's API server, within the request itself. Nobody else is told for certain: a trigger is if a
triggerer runs it at that moment, and a task that waits for a worker is not at all. Clearing a task, or marking it
successful, leaves the driver alone: the next try or run adopts it.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing

from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select

from tidemill.errors import Contention, DatabaseAway, DatabaseFull, DatabaseReadOnly
from tidemill.store.control import read_stream, wish
from tidemill.supervise.server import server_connection

log = logging.getLogger(__name__)
HEED_SECONDS = 300.0
"""For so long a database that is away is asked again to take the wish down."""
AGAIN_SECONDS = 2.0


def heed(stream: str, dag_id: str, run_id: str) -> threading.Thread | None:
    """Take the wish down: now, or as soon as the database takes something down.

    What is done to another run than the one that started last concerns nobody any more, and no wish of later on is
    overruled. The request does not wait for a database that is away: Airflow's own transaction is open meanwhile.

    Returns:
        Who goes on trying, None where nothing is left to do.
    """
    marked_at = time.monotonic()
    if not _is_the_latest(dag_id, run_id) or _taken_down(stream, run_id, marked_at):
        return None
    waiting = threading.Thread(target=_go_on, args=(stream, run_id, marked_at), name=f"stops {stream}", daemon=True)
    waiting.start()
    return waiting


def _is_the_latest(dag_id: str, run_id: str) -> bool:
    started = select(DagRun.run_id).where(DagRun.dag_id == dag_id, DagRun.start_date.is_not(None))
    with create_session(scoped=False) as session:
        return session.scalar(started.order_by(DagRun.start_date.desc()).limit(1)) == run_id


def _go_on(stream: str, run_id: str, marked_at: float) -> None:
    try:
        while time.monotonic() - marked_at < HEED_SECONDS:
            time.sleep(AGAIN_SECONDS)
            if _taken_down(stream, run_id, marked_at):
                return
        log.error("stream %s goes on although its run %s was marked failed: its database stayed away", stream, run_id)
    except Exception:
        log.exception("stream %s goes on although its run %s was marked failed", stream, run_id)


def _taken_down(stream: str, run_id: str, marked_at: float) -> bool:
    """Whether nothing is left to do."""
    try:
        with closing(server_connection()) as connection:
            row = read_stream(connection, stream)
            if row is None or row.wanted != "running":
                return True
            if (row.now - row.wanted_at).total_seconds() >= time.monotonic() - marked_at:
                wish(connection, stream, "stopped", f"airflow: run {run_id} was marked failed"[:128])
                log.info("stream %s is wished stopped: its run %s was marked failed", stream, run_id)
            return True
    except (DatabaseAway, DatabaseReadOnly, DatabaseFull, Contention) as error:
        log.warning("stream %s is to stop, its run %s was marked failed; that waits: %s", stream, run_id, error)
        return False
