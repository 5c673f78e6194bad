"""A driver whose servers become unavailable waits, in the same process and under the same epoch; nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.crashes import Crashing, Failpoints
from support.merges import ENTITY
from support.recording import make_pipeline
from tidemill.config import Account, Settings
from tidemill.deploy import apply
from tidemill.devstack.stack import Stack
from tidemill.kafka import clients
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.connection import session
from tidemill.store.control import streams
from tidemill.supervisor import launcher
from tidemill.testing import wait_until

SECONDS = 180


@pytest.fixture(scope="module")
def crashing(
    stack: Stack, mariadb: Settings, kafka: Settings, tmp_path_factory: pytest.TempPathFactory, run_seed: int
) -> Iterator[Crashing]:
    """One stream with one driver, which all tests of this module share; the last one stops it."""
    folder = tmp_path_factory.mktemp("driver")
    settings = stack.settings.model_copy(update={"pipelines": folder})
    pipeline = make_pipeline(folder, "slack", (ENTITY,), partitions=2)
    apply.apply_all(settings, [pipeline], lambda _: None)
    with session(settings, Account.STREAM) as connection:
        streams.request_state(connection, pipeline.name, "running", "a test")
    failpoints = Failpoints(folder / "failpoints")
    crashing = Crashing(settings, pipeline, stack, failpoints, clients.admin(settings), run_seed=run_seed)
    crashing.start_driver()
    crashing.produce(seed=0)
    crashing.drain()
    yield crashing
    crashing.stop_driver()


@contextmanager
def outage(crashing: Crashing, server: str) -> Iterator[None]:
    """SIGKILL to a server, which is back after the block."""
    crashing.kill_server(server)
    try:
        yield
    finally:
        crashing.restart_server(server)


def log_of(row: StreamRow) -> Callable[[], str]:
    """What a driver logs from here on."""
    assert row.log_file is not None
    log = Path(row.log_file)
    length = len(log.read_text())
    return lambda: log.read_text()[length:]


def assert_same_driver(crashing: Crashing, before: StreamRow) -> None:
    """The driver of ``before`` is at work, waits for nothing, and everything that was produced is in the tables."""
    crashing.drain()
    assert crashing.drivers == 1
    wait_until(
        lambda: (crashing.row().state, crashing.row().waiting_for, crashing.row().lag_records) == ("running", None, 0),
        SECONDS,
        "a heartbeat without an outage",
    )
    row = crashing.row()
    assert (row.pid, row.epoch, row.heartbeat_epoch) == (before.pid, before.epoch, before.epoch)
    assert not launcher.is_gone(row)
    assert crashing.differences() == []


def test_an_unavailable_database_is_waited_for(crashing: Crashing) -> None:
    """Its death ends a query; the driver finds the next one's positions in it as soon as it is back.

    That a newer version of the pipeline was applied meanwhile is no error: it runs the version of its lease.
    """
    before = crashing.row()
    logged = log_of(before)
    with session(crashing.settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pipelines (pipeline, version, digest) VALUES (%s, %s, 'newer')",
            (crashing.pipeline.name, before.newest_version + 1),
        )
    with outage(crashing, "mariadb"):
        crashing.produce(seed=1)
        wait_until(lambda: "waiting: " in logged(), SECONDS, "the driver waits")
        crashing.produce(seed=2)
    assert_same_driver(crashing, before)
    assert "all servers answer" in logged()


def test_an_unavailable_broker_is_waited_for(crashing: Crashing) -> None:
    """The heartbeat continues and reports what is unavailable; records that producers held back meanwhile follow."""
    before = crashing.row()
    crashing.produce(seed=3)
    with ThreadPoolExecutor(1) as pool:
        with outage(crashing, "kafka"):
            producing = pool.submit(crashing.produce, 4)
            row = wait_until(
                lambda: row if (row := crashing.row()).waiting_for else None, SECONDS, "the driver reports it"
            )
            assert (row.state, row.epoch) == ("running", before.epoch)
            assert "TM-KAFKA-UNAVAILABLE" in (row.waiting_for or "")
            heartbeat_at = row.heartbeat_at
            wait_until(lambda: crashing.row().heartbeat_at != heartbeat_at, SECONDS, "the next heartbeat")
            wait_until(lambda: crashing.row().lag_records is None, SECONDS, "the lag is unknown")
        producing.result(2 * SECONDS + 10)
    assert_same_driver(crashing, before)


def test_the_heartbeat_reports_the_metrics_of_the_stream(crashing: Crashing) -> None:
    """Latency, throughput, lag and the newest record are there once records were committed."""
    crashing.produce(seed=5)
    crashing.drain()
    row = wait_until(lambda: row if (row := crashing.row()).behind_seconds == 0 else None, SECONDS, "no lag")
    assert 0 < (row.latency_p50_ms or 0) <= (row.latency_p99_ms or 0)
    assert row.records_per_second
    assert row.batch_limit == 20_000
    assert row.newest_at is not None
    assert abs((row.now - row.newest_at).total_seconds()) < 2 * SECONDS


def test_a_stream_that_is_stopped_while_its_broker_is_unavailable_ends(crashing: Crashing) -> None:
    """The stop request is in the database, which answers: the driver does not wait for the broker first."""
    row = crashing.row()
    with outage(crashing, "kafka"):
        wait_until(lambda: crashing.row().waiting_for, SECONDS, "the driver waits")
        with session(crashing.settings, Account.STREAM) as connection:
            streams.request_state(connection, crashing.pipeline.name, "stopped", "a test")
        wait_until(lambda: launcher.is_gone(row), SECONDS, "the driver has left")
    left = crashing.row()
    assert (left.state, left.epoch, left.last_error, left.waiting_for) == ("stopped", row.epoch, None, None)
    assert crashing.differences() == []
