"""The pipeline ``flights`` as it is in the database, beside a computation that shares no code with it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from confluent_kafka.admin import AdminClient

from support import expected
from tidemill.config import Account, Settings
from tidemill.kafka import topics
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import ledger, streams
from tidemill.store.maintenance.verify import verify
from tidemill.testing import wait_until

REFRESHES = ("refresh__flights__late_arrival", "refresh__flights__delay_minutes")


@dataclass
class Flown:
    """Flights that were played into Kafka and loaded by the stream."""

    settings: Settings
    pipeline: Pipeline
    client: AdminClient

    def row(self) -> StreamRow:
        """The stream now."""
        with session(self.settings, Account.READ) as connection:
            row = streams.read_stream(connection, "flights")
        assert row is not None
        return row

    def totals(self) -> ledger.Totals:
        """What the ledger adds up to."""
        with session(self.settings, Account.READ) as connection:
            return ledger.totals(connection, "flights")

    def table(self, name: str) -> pd.DataFrame:
        """A table of the operational schema, or part of one."""
        with session(self.settings, Account.READ, schema=self.settings.db_data) as connection:
            cursor = connection.cursor()
            cursor.execute(f"SELECT * FROM {name}")
            names = [column[0] for column in cursor.description]
            return pd.DataFrame(cursor.fetchall(), columns=names, dtype=object)

    def lag(self) -> int:
        """Offsets in Kafka that are not in the ledger."""
        ends = topics.offsets_at(self.client, "flights", "latest")
        with session(self.settings, Account.READ) as connection:
            at = ledger.positions(connection, "flights", "flights")
        return sum(end - at.get(partition, 0) for partition, end in ends.items())

    def wait_drained(self, seconds: float = 450) -> None:
        """Wait until everything that is in the topic is in the ledger."""
        wait_until(lambda: self.lag() == 0 and self.totals().records > 0, seconds, f"stream drained ({self.row()})")

    def assert_exact(self, flights: int) -> None:
        """Table and rollup equal the independent computation; the ledger agrees with Kafka and the tables."""
        assert expected.differences(expected.final_flights(flights), self.table("flights"), ["id"]) == []
        rollup = self.table("delays_by_hour")
        assert expected.differences(expected.final_rollup(flights), rollup, ["origin", "hour"]) == []
        ends = topics.offsets_at(self.client, "flights", "latest")
        with session(self.settings, Account.READ) as connection:
            assert verify(connection, self.settings, self.pipeline, ends) == []
