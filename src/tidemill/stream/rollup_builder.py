"""The builder of a driver's rollups: a thread that builds those under construction while queries run."""

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
        """Begin, unless the thread runs already or the pipeline has no rollups."""
        if self.pipeline.rollups and self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """Begin no other step. The running step is not waited for: it checks the fencing token, as a commit does."""
        self._closing.set()

    def _build(self) -> None:
        """Build until the driver ends, or another one acquires the lease. An unavailable database is waited for."""
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
                # A rollup may be put under construction again while the driver runs, when its folder is applied again.
                self._closing.wait(REBUILD_SECONDS)
