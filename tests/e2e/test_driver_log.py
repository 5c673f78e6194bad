"""What a driver's log and its last heartbeat say: no error after a healthy life, and else why it ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.crashes import Crashing, Failpoints
from support.merges import ENTITY
from support.recording import make_pipeline
from tidemill.config import Account, Settings
from tidemill.deploy import apply
from tidemill.devstack.stack import Stack
from tidemill.failpoints import FAILPOINTS
from tidemill.kafka import clients
from tidemill.store.connection import session
from tidemill.store.control import streams
from tidemill.supervisor import launcher
from tidemill.testing import wait_until

SECONDS = 180
_STACK = re.compile(r"^\s+at [\w.$/]+\(|^Traceback |^Caused by: |^[\w.$]+(?:Exception|Error)\b", re.MULTILINE)
"""A line of a stack trace of Java or of Python."""


@pytest.fixture
def crashing(
    stack: Stack, mariadb: Settings, kafka: Settings, tmp_path: Path, run_seed: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Crashing]:
    """A stream without a driver. Its batches take longer than they should, so that the second one ends the query."""
    settings = stack.settings.model_copy(update={"pipelines": tmp_path})
    pipeline = make_pipeline(
        tmp_path, "ripple", (ENTITY,), partitions=2, max_records_per_batch=2000, target_batch_seconds=0.01
    )
    apply.apply_all(settings, [pipeline], lambda _: None)
    with session(settings, Account.STREAM) as connection:
        streams.request_state(connection, pipeline.name, "running", "a test")
    failpoints = Failpoints(tmp_path / "failpoints")
    monkeypatch.setenv(FAILPOINTS, str(failpoints.folder))
    crashing = Crashing(settings, pipeline, stack, failpoints, clients.admin(settings), run_seed=run_seed)
    yield crashing
    failpoints.clear()
    crashing.stop_driver()


@pytest.mark.full
def test_the_last_report_of_a_driver_is_why_it_ended(crashing: Crashing) -> None:
    """After a healthy life, in which a query was replaced and the stop came while a batch ran, its log has no stack
    trace. The next one's JVM is killed: its Python process, which lives on for a moment, reports the reason."""
    crashing.produce(seed=0, count=8000)
    crashing.drain()
    assert crashing.drivers == 1
    row = crashing.row()
    log = Path(str(row.log_file))
    assert "the next batches take up to 1000 records" in log.read_text()
    crashing.failpoints.arm("before COMMIT")
    crashing.produce(seed=1, count=500)
    crashing.failpoints.reached("before COMMIT")
    request(crashing, "stopped")
    wait_until(lambda: crashing.row().state == "stopping", SECONDS, "it has read the stop request")
    crashing.failpoints.release("before COMMIT")
    wait_until(lambda: launcher.is_gone(row), SECONDS, "the driver has left")
    assert crashing.row().state == "stopped"
    assert [line for line in log.read_text().splitlines() if _STACK.match(line)] == []

    request(crashing, "running")
    crashing.drain()
    row = wait_until(lambda: row if (row := crashing.row()).state == "running" else None, SECONDS, "it runs")
    psutil.Process(row.pid).kill()
    last = wait_until(lambda: last if (last := crashing.row()).state == "failed" else None, SECONDS, "its last words")
    assert (last.epoch, last.heartbeat_epoch) == (row.epoch, row.epoch)
    assert "[TM-STREAM-JVM-ENDED]" in (last.last_error or "")
    assert launcher.stop_driver(last, grace_seconds=60)
    assert crashing.differences() == []


def request(crashing: Crashing, state: str) -> None:
    """Request a state of the stream."""
    with session(crashing.settings, Account.STREAM) as connection:
        streams.request_state(connection, crashing.pipeline.name, state, "a test")
