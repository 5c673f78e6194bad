"""A record that ends the JVM: driver by driver the range is narrowed, until no driver reads the record."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from support.edges import SECONDS, Edge
from tidemill.config import Account, Settings
from tidemill.devstack.stack import Stack
from tidemill.kafka import clients
from tidemill.store.connection import session
from tidemill.store.control import leases, streams
from tidemill.store.migrations import migrate_control
from tidemill.stream.suspicion import REASON
from tidemill.supervisor import launcher
from tidemill.testing import wait_until

_number = itertools.count(1)
GOOD = 300
MOST_DRIVERS = 9
BLANKS = 300 * 2**20
"""More than half of the heap; Kafka has some 10 kB of it."""


def blanks() -> bytes:
    """A record that is small in Kafka's log, and too large for the heap once it is unpacked."""
    return json.dumps({"id": 0}).encode() + b" " * BLANKS


def drain(stream: Edge, settings: Settings) -> int:
    """Start one driver after another, as the supervision does, until the stream is drained; how many there were."""
    for drivers in range(1, MOST_DRIVERS + 1):
        with session(settings, Account.STREAM) as connection:
            epoch = leases.acquire_lease(connection, stream.name, stream.version, "a test")
            driver = launcher.launch(settings, stream.pipeline, epoch)
            where = {"host": driver.host, "pid": driver.pid, "log_file": str(driver.log_file)}
            leases.record_driver(connection, stream.name, epoch, **where)
            row = streams.read_stream(connection, stream.name)
            assert row is not None

            def ended(row: streams.StreamRow = row) -> bool:
                return launcher.is_gone(row) or stream.positions() == stream.ends()

            wait_until(ended, 3 * SECONDS, f"driver {drivers} drained or gone")
            if stream.positions() == stream.ends():
                streams.request_state(connection, stream.name, "stopped", "a test")
                assert launcher.stop_driver(row, grace_seconds=60)
                return drivers
            streams.count_failure(connection, stream.name, epoch)
    raise AssertionError(f"{MOST_DRIVERS} drivers did not drain it")


@pytest.mark.full
def test_a_deadly_record_is_quarantined_unread(
    stack: Stack, mariadb: Settings, kafka: Settings, tmp_path: Path
) -> None:
    """Its neighbours are written, and the failures in a row never reach the number that opens the circuit."""
    settings = stack.settings.model_copy(
        update={"spark_driver_memory": "512m", "stuck_batch_seconds": 60.0, "pipelines": tmp_path}
    )
    with session(mariadb, Account.MIGRATE) as connection:
        migrate_control(connection, mariadb.root / "sql")
    folder = tmp_path / f"deadly{next(_number)}"
    folder.mkdir()
    stream = Edge(settings, None, clients.admin(kafka), folder)  # type: ignore[arg-type]
    stream.declare()
    stream.create(1, **{"max.message.bytes": str(2 * BLANKS)})
    stream.send(range(1, GOOD // 2 + 1))
    limit = {"message.max.bytes": 10**9, "compression.type": "zstd", "batch.size": 2 * BLANKS}
    producer = clients.producer(settings, limit)
    producer.produce(stream.name, blanks(), partition=0)
    assert producer.flush(SECONDS) == 0
    assert stream.ends() == {0: GOOD // 2 + 1}
    stream.send(range(GOOD // 2 + 1, GOOD + 1))
    with session(settings, Account.STREAM) as connection:
        streams.request_state(connection, stream.name, "running", "a test")
    drivers = drain(stream, settings)
    assert drivers <= MOST_DRIVERS
    assert stream.ids() == list(range(1, GOOD + 1))
    ((offset, reason),) = stream.query(
        f"SELECT record_offset, reason FROM quarantine WHERE stream = '{stream.name}' AND record_value IS NULL"
    )
    assert offset == GOOD // 2
    assert reason == REASON or "memory" in reason
    assert stream.differences() == []
