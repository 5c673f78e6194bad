"""SIGKILL to each part at each named point of the write path: whatever dies when, the tables are exact."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.crashes import POINTS, Crashing, Failpoints
from support.merges import ENTITY, EVENT
from support.recording import make_pipeline
from tidemill.config import Account, Settings
from tidemill.deploy import apply
from tidemill.devstack.stack import Stack
from tidemill.failpoints import FAILPOINTS
from tidemill.kafka import clients
from tidemill.processes import session_members
from tidemill.store.connection import session
from tidemill.store.control import streams
from tidemill.supervisor import launcher
from tidemill.testing import wait_until

pytestmark = pytest.mark.lane("crashes")

VICTIMS = ("worker", "database", "broker", "driver")
PARTITIONS = 4


@pytest.fixture(scope="module")
def running(
    stack: Stack, mariadb: Settings, kafka: Settings, tmp_path_factory: pytest.TempPathFactory, run_seed: int
) -> Iterator[Crashing]:
    """One long-lived stream with two tables, and a driver that can be held at the failpoints."""
    folder = tmp_path_factory.mktemp("crashes")
    # A task whose worker died is run again by the same driver, which is one more way to meet an old commit.
    settings = stack.settings.model_copy(update={"pipelines": folder, "spark_master": "local[2,4]"})
    pipeline = make_pipeline(folder, "swell", (ENTITY, EVENT), partitions=PARTITIONS)
    apply.apply_all(settings, [pipeline], lambda _: None)
    failpoints = Failpoints(folder / "failpoints")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(FAILPOINTS, str(failpoints.folder))
        with session(settings, Account.STREAM) as connection:
            streams.request_state(connection, pipeline.name, "running", "a test")
        crashing = Crashing(settings, pipeline, stack, failpoints, clients.admin(settings), run_seed=run_seed)
        yield crashing
        failpoints.clear()
        crashing.stop_driver()


@pytest.fixture
def crashing(running: Crashing) -> Crashing:
    """The stream at rest: a driver at work, nothing to do, nobody held."""
    running.failpoints.clear()
    running.ensure_driver()
    running.drain()
    return running


IN_EVERY_RUN = {("before COMMIT", victim) for victim in VICTIMS} | {("after COMMIT", "database")}
"""Of the points before COMMIT the last one stands for all three; after it, a commit must not be made twice."""


@pytest.mark.parametrize(
    ("victim", "point"),
    [
        pytest.param(victim, point, marks=() if (point, victim) in IN_EVERY_RUN else pytest.mark.full)
        for victim in VICTIMS
        for point in POINTS
    ],
)
def test_tables_are_exact_after(crashing: Crashing, victim: str, point: str) -> None:
    """One part is killed at one point, comes back, and all that was produced is in the tables, once."""
    held = crashing.produce_to(point, seed=VICTIMS.index(victim) * 10 + POINTS.index(point))
    if victim == "worker":
        os.kill(held, signal.SIGKILL)
        crashing.failpoints.release(point)
    elif victim == "driver":
        crashing.kill_driver()
        crashing.failpoints.release(point)
    else:
        server = {"database": "mariadb", "broker": "kafka"}[victim]
        crashing.kill_server(server)
        crashing.failpoints.release(point)
        crashing.restart_server(server)
    crashing.drain()
    assert crashing.differences() == []


def test_of_two_live_drivers_one_is_refused(crashing: Crashing) -> None:
    """A driver that was suspended while another acquired the lease resumes in mid-batch, commits nothing and exits."""
    crashing.produce_to("after stage", seed=100)
    old = crashing.row()
    assert old.pid is not None
    asleep = session_members(old.pid)
    for process in asleep:
        process.suspend()
    crashing.start_driver()
    crashing.drain()
    for process in asleep:
        process.resume()
    crashing.failpoints.release("after stage")
    crashing.produce(seed=101)
    wait_until(lambda: launcher.is_gone(old), 240, "the older driver has left")
    assert old.log_file is not None
    assert "TM-STORE-LEASE-LOST" in Path(old.log_file).read_text()
    crashing.drain()
    assert crashing.differences() == []
    assert not launcher.is_gone(crashing.row())
