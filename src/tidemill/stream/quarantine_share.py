"""The share of quarantined records among the newest: an incident where it is high, and a stop where it is declared."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from tidemill.config import Account, Settings
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import incidents, streams
from tidemill.store.write.ledger_rows import Counts

KIND = "quarantine-share"
NEWEST_RECORDS = 1_000
FEWEST_RECORDS = 100
"""Of fewer records no share is taken."""
INCIDENT_SHARE = 0.2


class QuarantineShare:
    """The share of quarantined records among the newest that one driver has committed.

    The next driver counts anew, so that a stream that a person has started again is judged by what it reads since.
    """

    def __init__(self) -> None:
        self._batches: deque[tuple[int, int]] = deque()
        self._is_high: bool | None = None
        """Whether the incident is open; None while this driver does not know."""

    def note(self, counts: Iterable[Counts]) -> None:
        """Count the records of a batch; batches that the newest 1,000 records do not reach are dropped."""
        records = quarantined = 0
        for each in counts:
            records += each.written + each.duplicate + each.stale + each.filtered + each.quarantined
            quarantined += each.quarantined
        self._batches.append((records, quarantined))
        while self.records - self._batches[0][0] >= NEWEST_RECORDS:
            self._batches.popleft()

    @property
    def records(self) -> int:
        """Records among which the share is taken."""
        return sum(records for records, _ in self._batches)

    @property
    def share(self) -> float | None:
        """From 0 to 1; None while there are too few records."""
        records = self.records
        return sum(bad for _, bad in self._batches) / records if records >= FEWEST_RECORDS else None

    def report(self, settings: Settings, pipeline: Pipeline) -> bool:
        """Open or close the incident, and stop the stream if the pipeline's limit is reached.

        Returns:
            Whether the stream was stopped: the driver is to commit no further batch.

        Raises:
            TidemillError: the database does not take it.
        """
        share, limit = self.share, pipeline.quarantine.pause_at
        if share is None:
            return False
        pauses = limit is not None and share >= limit
        is_high = pauses or share > INCIDENT_SHARE
        if is_high == self._is_high and not pauses:
            return False
        subject = f"stream {pipeline.name}"
        with session(settings, Account.STREAM) as connection:
            if pauses:  # unless a person requests something else at this moment: the next batch asks again
                row = streams.read_stream(connection, pipeline.name)
                pauses = row is not None and streams.request_stop(connection, row, f"quarantine.pause_at: {limit:g}")
            if is_high:
                stopped = f"; the stream is stopped, because quarantine.pause_at is {limit:g}" if pauses else ""
                message = f"{share:.0%} of the newest {self.records} records are in quarantine{stopped}"
                incidents.open_incident(connection, subject, KIND, message)
                incidents.restate_incident(connection, subject, KIND, message)
            else:
                incidents.close_incident(connection, subject, KIND)
        self._is_high = is_high
        return pauses
