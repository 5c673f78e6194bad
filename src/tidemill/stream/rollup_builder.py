"""Builds rollups that are under construction beside a driver's queries."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from tidemill.config import Account, Settings
from tidemill.errors import Fenced, TidemillError, Transient
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import incidents
from tidemill.store.maintenance.rollup_backfill import backfill_all

log = logging.getLogger(__name__)
REBUILD_SECONDS = 60.0
"""How often a driver looks for rollups that are under construction."""


class RollupBuilder:
    """A thread of one driver, from its first query to its end."""

    def __init__(self, settings: Settings, pipeline: Pipeline, epoch: int) -> None:
        self.settings, self.pipeline, self.epoch = settings, pipeline, epoch
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._build, name="rollups", daemon=True)

    def start(self) -> None:
        """Begin, unless it has begun or there is nothing to build."""
        if self.pipeline.rollups and self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """Begin no other step. Does not wait for the one under way: it proves the epoch, as every commit does."""
        self._closing.set()

    def _build(self) -> None:
        """A database that is away is waited for; another driver ends it."""
        subject = f"stream {self.pipeline.name}"
        while not self._closing.is_set():
            try:
                backfill_all(self.settings, self.pipeline, self.epoch, lambda: not self._closing.is_set())
            except Fenced:
                return
            except TidemillError as error:
                log.warning("building rollups failed: %s", error)
                if not isinstance(error, Transient):
                    with suppress(TidemillError), session(self.settings, Account.STREAM) as connection:
                        incidents.open_incident(connection, subject, "rollup", f"a rollup cannot be built: {error}")
                    return
                self._closing.wait(2)
            else:
                with suppress(TidemillError), session(self.settings, Account.STREAM) as connection:
                    incidents.close_incident(connection, subject, "rollup")
                # A rollup may be put under construction again beside us, by a folder that is applied once more.
                self._closing.wait(REBUILD_SECONDS)
