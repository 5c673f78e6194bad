"""The heartbeat of a driver: it reports the driver's state, and reads whether the driver is to end."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Account, Settings
from tidemill.errors import DatabaseUnavailable, Fenced, TidemillError
from tidemill.store.connection import connect, session
from tidemill.store.control import heartbeats, streams
from tidemill.stream.driver_status import DriverStatus
from tidemill.stream.log_rotation import LogRotator

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 2.0
RECONNECT_SECONDS = 0.5
"""Between two attempts while the database is unavailable. The sooner a heartbeat follows its return, the fewer programs
take the driver for lost."""
_JOIN_SECONDS = 20.0


class Heartbeat:
    """A thread of one driver, from its start to its end."""

    def __init__(self, settings: Settings, stream: str, epoch: int, status: DriverStatus) -> None:
        self.settings, self.stream, self.epoch, self.status = settings, stream, epoch, status
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to report every :data:`INTERVAL_SECONDS`."""
        self._thread.start()

    def report(self, connection: Connection[Any]) -> None:
        """Report once, and request the end of the driver if the control plane does not want it to run.

        Raises:
            Fenced: another driver has acquired the lease; nothing was written.
            TidemillError: the database does not take the heartbeat.
        """
        columns = self.status.columns()
        if not heartbeats.report_heartbeat(connection, self.stream, self.epoch, self.status.state, **columns):
            self.status.end()

    def close(self, state: str, error: str | None) -> None:
        """End the thread, then report the last state of the driver: ``stopped``, or ``failed`` with its error."""
        self.status.finished.set()
        # No other heartbeat may follow the last one.
        self._thread.join(timeout=_JOIN_SECONDS)
        columns = {**self.status.columns(), "waiting_for": None, "last_error": error}
        with suppress(TidemillError), session(self.settings, Account.STREAM) as connection:
            # Suppressed: a driver whose lease or whose database is lost cannot report anything.
            heartbeats.report_heartbeat(connection, self.stream, self.epoch, state, **columns)

    def _run(self) -> None:
        """An unavailable database ends nothing here: whether the driver can go on without it, the commits decide."""
        connection: Connection[Any] | None = None
        rotator = LogRotator.of_process(self.settings.log_bytes)
        pause = INTERVAL_SECONDS
        while not self.status.finished.wait(pause):
            pause = INTERVAL_SECONDS
            if rotator is not None:
                rotator.rotate()
            try:
                connection = connection or connect(self.settings, Account.STREAM)
                self.report(connection)
                if self.status.metrics.batches:
                    streams.clear_failures(connection, self.stream)
            except Fenced as error:
                self.status.end(error)
                return
            except DatabaseUnavailable:
                connection, pause = None, min(RECONNECT_SECONDS, INTERVAL_SECONDS)
            except TidemillError as error:  # if it concerns the stream as well, the query fails by itself
                log.warning("the heartbeat failed: %s", error)
