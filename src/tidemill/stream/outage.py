"""What a driver does when a query has failed: find the cause, and wait for the servers or give up."""

from __future__ import annotations

import logging
import time

from tidemill.config import Account, Settings
from tidemill.errors import (
    Contention,
    DatabaseFull,
    Fenced,
    KafkaUnavailable,
    SourceError,
    TidemillError,
    Transient,
)
from tidemill.kafka.clients import PROBE_SECONDS, admin
from tidemill.kafka.topics import topic_id
from tidemill.retry import Backoff
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import streams
from tidemill.stream.diagnosis import FROM_WORKER, RESUMED, cause
from tidemill.stream.driver_status import DriverStatus
from tidemill.stream.heartbeat import Heartbeat
from tidemill.stream.start_offsets import explain_failure

log = logging.getLogger(__name__)
BACKOFF = Backoff(first_seconds=0.25, longest_seconds=5.0)
"""Between two checks of the servers: longer, the more queries failed in a row."""
MOST_FAILURES = 5
"""How many queries in a row may fail with a transient error although all servers answer. What no server accepts would
be tried again without end, and no incident would report it."""


class Recovery:
    """The failed queries of one driver in a row, and what follows from each."""

    def __init__(
        self, settings: Settings, pipeline: Pipeline, epoch: int, status: DriverStatus, heartbeat: Heartbeat
    ) -> None:
        self.settings, self.pipeline, self.epoch = settings, pipeline, epoch
        self._status, self._heartbeat = status, heartbeat
        self._failures = 0

    def recover(self, failure: BaseException, *, was_steady: bool) -> None:
        """Return when the next query may begin, or the driver is to end.

        Args:
            failure: what ended the query, or kept it from beginning.
            was_steady: whether the query ran for long, or committed: it is the first of a new series of failures then.

        Raises:
            TidemillError: the cause, if it is a lasting one, or the cause of :data:`MOST_FAILURES` queries in a row.
        """
        error = self._status.final_error or self.explain(failure)
        if not isinstance(error, Transient):
            raise error from failure
        self._failures = 1 if was_steady else self._failures + 1
        if self._wait_for_servers(error):
            self._failures = 0
        elif self._failures >= MOST_FAILURES and not isinstance(error, DatabaseFull | Contention):
            raise error from failure

    def explain(self, failure: BaseException) -> TidemillError:
        """The cause of a failure: an error of Tidemill, or what Kafka has lost, or else what Spark reports."""
        error = cause(failure, self.pipeline.name)
        if isinstance(error, Fenced):
            return self._stale_task() or error
        if isinstance(error, Transient) or isinstance(failure, TidemillError) or FROM_WORKER.search(str(failure)):
            return error
        try:
            with session(self.settings, Account.STREAM) as connection:
                lost = explain_failure(connection, admin(self.settings), self.pipeline)
        except TidemillError as unexplained:
            # If the unavailable server was not the cause, the next query fails again and is explained then.
            return unexplained if isinstance(unexplained, Transient) else error
        if lost is None and isinstance(error, SourceError):
            # The topic exists and is complete: while leaders are elected, brokers deny what they have.
            return KafkaUnavailable("TM-KAFKA-UNAVAILABLE", value=error.sentence)
        return lost or error

    def _stale_task(self) -> TidemillError | None:
        """Contention, if the position was moved under the epoch of this driver, which no other driver has.

        A task of an earlier query may have outlived it, and committed after the positions were read. Nothing is wrong
        then: of the two that wrote the position one was rejected, and the next query begins at the committed one.
        """
        try:
            with session(self.settings, Account.STREAM) as connection:
                row = streams.read_stream(connection, self.pipeline.name)
        except TidemillError as error:
            return error if isinstance(error, Transient) else None
        if row is None or row.epoch != self.epoch:
            return None
        return Contention("TM-STREAM-STALE-TASK", value=f"epoch {self.epoch}")

    def _wait_for_servers(self, error: TidemillError) -> bool:
        """Wait until database and Kafka answer, or the driver is to end; returns whether one of them did not answer.

        Raises:
            TidemillError: a server answers with a lasting error.
        """
        began, was_outage, checks = time.monotonic(), False, 0
        self._status.waiting_for = str(error)
        log.warning("waiting: %s", error)
        while True:
            checks += 1
            if self._status.wait_for_end(BACKOFF.pause_seconds(self._failures + checks)):
                return was_outage
            try:
                self._check_servers()
            except TidemillError as unavailable:
                if not isinstance(unavailable, Transient):
                    raise
                was_outage, self._status.waiting_for = True, str(unavailable)
            else:
                log.info("%s; the stream resumes after %.1f s", RESUMED, time.monotonic() - began)
                return was_outage

    def _check_servers(self) -> None:
        """Send a request to each server. The one to the database is a heartbeat: it writes, and reads stop requests.

        Raises:
            TidemillError: the error of the first server that does not answer.
        """
        with session(self.settings, Account.STREAM) as connection:
            self._heartbeat.report(connection)
        topic_id(admin(self.settings), self.pipeline.source.topic, PROBE_SECONDS)


def ended_by(error: Exception, raised_in_batch: BaseException | None) -> BaseException:
    """What ended a query: Spark passes on as text what was raised in a batch, so that itself is preferred."""
    return error if isinstance(error, TidemillError) else raised_in_batch or error
