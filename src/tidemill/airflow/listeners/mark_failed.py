"""A stream's task or run that a person marked as failed in Airflow: a wish to stop the stream.

It is taken down by Airflow's API server, within the request itself. Nobody else is told for certain: a trigger is if a
triggerer runs it at that moment, and a task that waits for a worker is not at all. Clearing a task, or marking it
successful, leaves the driver alone: the next try or run adopts it.
"""

from __future__ import annotations

import logging
import operator
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field

from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from sqlalchemy import func, select

from tidemill.airflow.server_connection import server_connection
from tidemill.retry import Backoff
from tidemill.store.control.streams import read_stream, request_stop

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 2.0
"""For so long a request waits for the wish to be taken down: Airflow's own transaction is open meanwhile."""
HEED_SECONDS = 300.0
"""For so long a database that is away is asked again."""
AGAIN_SECONDS = 2.0
_lock = threading.Lock()
_pending: dict[tuple[str, str], threading.Thread] = {}
"""Who takes down that a run of a stream was marked. Airflow tells it of each of the run's tasks, and of the run."""


def handle_mark(stream: str, dag_id: str, run_id: str) -> threading.Thread:
    """Take the wish down: now, or as soon as the database takes something down.

    What is done to another run than the one that carries the stream concerns nobody any more, and what is wished after
    the mark stands.

    Returns:
        Who takes it down; it has ended, unless something is away.
    """
    with _lock:
        if (known := _pending.get((stream, run_id))) is not None:
            return known
        mark = _Mark(stream, dag_id, run_id)
        heeding = threading.Thread(target=mark.handle, name=f"stops {stream}", daemon=True)
        _pending[stream, run_id] = heeding
        heeding.start()
    heeding.join(PATIENCE_SECONDS)
    return heeding


@dataclass
class _Mark:
    stream: str
    dag_id: str
    run_id: str
    made_at: float = field(default_factory=time.monotonic)
    counts: bool | None = None
    """Whether the run carries the stream; None until that is known."""

    def handle(self) -> None:
        """Try until it is done."""
        backoff = Backoff(AGAIN_SECONDS, AGAIN_SECONDS, deadline_seconds=HEED_SECONDS, jitter=0)
        try:
            if not backoff.run(self._is_done, retry_result=operator.not_):
                log.error("stream %s goes on although its run %s was marked failed", self.stream, self.run_id)
        finally:
            with _lock:
                _pending.pop((self.stream, self.run_id), None)

    def _is_done(self) -> bool:
        try:
            if self.counts is None:
                self.counts = _carries_the_stream(self.dag_id, self.run_id)
            return not self.counts or self._wish()
        except Exception as error:  # noqa: BLE001 -- whatever is away, the person was told that the run is marked
            log.warning("stream %s is to stop, its run %s was marked failed: %s", self.stream, self.run_id, error)
            return False

    def _wish(self) -> bool:
        passed = time.monotonic() - self.made_at
        with closing(server_connection()) as connection:
            row = read_stream(connection, self.stream)
            if row is None or row.desired_state != "running":
                return True
            # At the first look nothing can have been wished after the mark.
            if passed > AGAIN_SECONDS and (row.now - row.requested_at).total_seconds() < passed:
                log.info("stream %s was wished to run after its run %s was marked failed", self.stream, self.run_id)
                return True
            stopped = request_stop(connection, row, f"airflow: run {self.run_id} was marked failed"[:128])
            if stopped:
                log.info("stream %s is wished stopped: its run %s was marked failed", self.stream, self.run_id)
            return stopped


def _carries_the_stream(dag_id: str, run_id: str) -> bool:
    """Whether it is the run under way, or the last one if none is; the mark itself is not committed yet."""
    runs = select(DagRun.run_id).where(DagRun.dag_id == dag_id)
    latest = runs.order_by(func.coalesce(DagRun.start_date, DagRun.queued_at).desc()).limit(1)
    with create_session(scoped=False) as session:
        under_way = session.scalars(runs.where(DagRun.state == DagRunState.RUNNING)).all()
        return run_id in (under_way or session.scalars(latest).all())
