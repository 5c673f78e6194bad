"""The watchdog of a driver: it ends a driver whose batch hangs, so that the next one reads the batch in smaller parts.

A task that hangs in the JVM cannot be stopped from outside, and keeps its core. Only a new process is sure to be free
of it. Reaching the limit by slowness does no harm: ranges become smaller.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress

from pyspark.sql import SparkSession

from tidemill.config import Account, Settings
from tidemill.errors import StreamError, TidemillError
from tidemill.store.connection import session
from tidemill.store.control import heartbeats
from tidemill.store.write.context import WriteContext
from tidemill.stream.driver_status import DriverStatus, UnderWay
from tidemill.stream.suspicion import suspect_batch

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 2.0
LEAVE_SECONDS = 60.0
"""How long a driver whose batch hangs has to end by itself. After that its process ends with :data:`EXIT_CODE`."""
EXIT_CODE = StreamError.exit_code


class Watchdog:
    """A thread of one driver, from its start to its end."""

    def __init__(self, settings: Settings, stream: str, epoch: int, status: DriverStatus) -> None:
        self._settings, self._stream, self._epoch, self._status = settings, stream, epoch, status
        self._context: WriteContext | None = None
        self._spark: SparkSession | None = None
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch, until the status is finished."""
        self._thread.start()

    def watch(self, context: WriteContext, spark: SparkSession) -> None:
        """From now on batches are committed for this context, by jobs of this session."""
        self._context, self._spark = context, spark

    def _run(self) -> None:
        while not self._status.finished.wait(INTERVAL_SECONDS):
            under_way = self._status.present_batch()
            if under_way and time.monotonic() - under_way.began > self._settings.stuck_batch_seconds:
                self._end(under_way)
                return

    def _end(self, under_way: UnderWay) -> None:
        """Record the ranges, then end the driver: gracefully if that is possible."""
        error = StreamError(
            "TM-STREAM-BATCH-STUCK",
            value=", ".join(f"partition {p}: {r.start}–{r.until}" for p, r in under_way.ranges.items())[:1000],
            seconds=f"{self._settings.stuck_batch_seconds:g}",
        )
        log.error("%s", error)
        with suppress(TidemillError):  # a database that is unavailable is the cause, and no record is
            if self._context is not None:
                suspect_batch(self._settings, self._context, under_way)
        self._status.end(error)
        if self._spark is not None:
            self._spark.sparkContext.cancelAllJobs()
        if not self._status.finished.wait(LEAVE_SECONDS):
            self._abandon(error)

    def _abandon(self, error: StreamError) -> None:
        """End the process: the thread of the query waits for what does not return."""
        columns = {**self._status.columns(), "waiting_for": None, "last_error": str(error)}
        with suppress(TidemillError), session(self._settings, Account.STREAM) as connection:
            heartbeats.report_heartbeat(connection, self._stream, self._epoch, "failed", **columns)
        os._exit(EXIT_CODE)
