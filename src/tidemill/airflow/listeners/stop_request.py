"""Requests the stop of a stream whose task or run a person has marked as failed in Airflow.

The request is written by Airflow's API server, while it handles the person's own request: no other process is sure to
learn of the mark. A trigger does only if a triggerer runs it at that moment, and a task that waits for a worker does
not at all. Clearing a task, or marking it successful, does not touch the driver: the next try or run adopts it.
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

from tidemill.airflow.connections import open_in_api_server
from tidemill.retry import Backoff
from tidemill.store.control.streams import read_stream, request_stop

log = logging.getLogger(__name__)
RESPONSE_SECONDS = 2.0
"""How long the person's request waits for the stop request: Airflow keeps its own transaction open meanwhile."""
RETRY_FOR_SECONDS = 300.0
"""How long the stop request is retried while the database is unavailable."""
PAUSE_SECONDS = 2.0
"""Between two attempts."""
_lock = threading.Lock()
_in_progress: dict[tuple[str, str], threading.Thread] = {}
"""Stream and run -> the thread that writes the stop request. Airflow reports a run and each of its tasks."""


def request_stop_of_run(stream: str, dag_id: str, run_id: str) -> threading.Thread:
    """Request the stop of a stream, because a person has marked one of its runs as failed.

    A mark on a run other than the one that carries the stream changes nothing, and a later request takes precedence.

    Returns:
        The thread that writes the request; it has ended, unless Airflow or the database is unavailable.
    """
    with _lock:
        if (known := _in_progress.get((stream, run_id))) is not None:
            return known
        request = _StopRequest(stream, dag_id, run_id)
        thread = threading.Thread(target=request.write_with_retries, name=f"stop {stream}", daemon=True)
        _in_progress[stream, run_id] = thread
        thread.start()
    thread.join(RESPONSE_SECONDS)
    return thread


@dataclass
class _StopRequest:
    stream: str
    dag_id: str
    run_id: str
    marked_at: float = field(default_factory=time.monotonic)
    concerns_stream: bool | None = None
    """Whether the run carries the stream; None until that is known."""

    def write_with_retries(self) -> None:
        """Try until the request is written or unnecessary, or its time is over."""
        backoff = Backoff(PAUSE_SECONDS, PAUSE_SECONDS, deadline_seconds=RETRY_FOR_SECONDS, jitter=0)
        try:
            if not backoff.run(self._is_done, retry_result=operator.not_):
                log.error("stream %s was not stopped although its run %s was marked failed", self.stream, self.run_id)
        finally:
            with _lock:
                _in_progress.pop((self.stream, self.run_id), None)

    def _is_done(self) -> bool:
        try:
            if self.concerns_stream is None:
                self.concerns_stream = _carries_the_stream(self.dag_id, self.run_id)
            return not self.concerns_stream or self._write()
        except Exception as error:  # noqa: BLE001 -- Airflow has confirmed the mark to the person, so every error is retried
            log.warning(
                "cannot stop stream %s yet, whose run %s was marked failed: %s", self.stream, self.run_id, error
            )
            return False

    def _write(self) -> bool:
        passed = time.monotonic() - self.marked_at
        with closing(open_in_api_server()) as connection:
            row = read_stream(connection, self.stream)
            if row is None or row.desired_state != "running":
                return True
            # In the first attempt the row cannot hold a request that is newer than the mark.
            if passed > PAUSE_SECONDS and (row.now - row.requested_at).total_seconds() < passed:
                log.info("stream %s was started again after its run %s was marked failed", self.stream, self.run_id)
                return True
            written = request_stop(connection, row, f"airflow: run {self.run_id} was marked failed"[:128])
            if written:
                log.info("requested the stop of stream %s: its run %s was marked failed", self.stream, self.run_id)
            return written


def _carries_the_stream(dag_id: str, run_id: str) -> bool:
    """Whether it is the run in progress, or the last run if none is; the mark itself is not committed yet."""
    runs = select(DagRun.run_id).where(DagRun.dag_id == dag_id)
    latest = runs.order_by(func.coalesce(DagRun.start_date, DagRun.queued_at).desc()).limit(1)
    with create_session(scoped=False) as session:
        in_progress = session.scalars(runs.where(DagRun.state == DagRunState.RUNNING)).all()
        return run_id in (in_progress or session.scalars(latest).all())
