"""``control_streams`` on the real database, with real processes for drivers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError
from typer.testing import CliRunner

from tidemill import config
from tidemill.airflow.triggers import request_outcome
from tidemill.airflow.triggers.request_outcome import RequestOutcomeTrigger, StateRequest
from tidemill.cli import main as cli
from tidemill.config import Account, Settings
from tidemill.deploy.apply import apply_all
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.spec import Pipeline, load_pipelines
from tidemill.store.connection import session
from tidemill.store.control import leases, streams

STREAM = "tides"
ANEW = "tides: restart requested\n"
DRIVER = Path(__file__).with_name("tiny_driver.py")


@dataclass
class Keeper:
    """In place of ``stream__tides``: starts a driver if the stream is to run and has none."""

    settings: Settings
    over: threading.Event = field(default_factory=threading.Event)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def keep(self) -> None:
        """Until it is over."""
        with session(self.settings, Account.STREAM) as connection:
            while not self.over.wait(0.1):
                row = streams.read_stream(connection, STREAM)
                if row is None or row.desired_state != "running" or row.halted_reason or self.is_driven():
                    continue
                epoch = leases.acquire_lease(connection, STREAM, row.newest_version, "a test")
                argv = [sys.executable, str(DRIVER), STREAM, "--epoch", str(epoch)]
                process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                self.processes.append(process)
                leases.record_driver(connection, STREAM, epoch, host=socket.gethostname(), pid=process.pid)

    def is_driven(self) -> bool:
        """Whether its driver has not left."""
        return any(process.poll() is None for process in self.processes)


@pytest.fixture(scope="module")
def tides(connections: Settings) -> Iterator[tuple[Settings, Pipeline]]:
    """The pipeline ``tides``, applied; for this module only, since those after it may mean the project's own."""
    folder = Path(__file__).parent / "pipelines"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIDEMILL_PIPELINES", str(folder))
        settings, pipelines = config.load(), load_pipelines(folder)
        apply_all(settings, pipelines.values(), lambda line: None)
        yield settings, pipelines[STREAM]


@pytest.fixture
def dag(tides: tuple[Settings, Pipeline], monkeypatch: pytest.MonkeyPatch) -> Iterator[DAG]:
    """The DAG, and a stream without a row."""
    settings, _ = tides
    monkeypatch.setattr(request_outcome, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(request_outcome, "is_gone", lambda row: False)  # these processes carry no launcher's mark
    (settings.state / "behaviour").write_text("good")
    clear(settings)
    bag = DagBag(settings.root / "dags" / "control_streams.py")
    assert bag.import_errors == {}
    yield bag.dags["control_streams"]
    clear(settings)


def clear(settings: Settings) -> None:
    """No request, no lease, no heartbeat."""
    with session(settings, Account.STREAM) as connection, connection.cursor() as cursor:
        for table in ("streams", "leases", "heartbeats"):
            cursor.execute(f"DELETE FROM {table} WHERE stream = %s", (STREAM,))


@pytest.fixture
def keeper(tides: tuple[Settings, Pipeline], dag: DAG) -> Iterator[Keeper]:
    """Acts on requests."""
    keeper = Keeper(tides[0])
    thread = threading.Thread(target=keeper.keep)
    thread.start()
    yield keeper
    keeper.over.set()
    thread.join()
    for process in keeper.processes:
        process.kill()
        process.wait()


def read(settings: Settings) -> StreamRow:
    """The stream now."""
    with session(settings, Account.STREAM) as connection:
        row = streams.read_stream(connection, STREAM)
    assert row is not None
    return row


def run(dag: DAG, **form: str) -> tuple[str, dict[str, str]]:
    """One run with the form filled in: its state and those of its tasks."""
    run = dag.test(run_conf=form)
    return str(run.state), {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def outcome(settings: Settings, desired_state: str, seconds: float) -> dict[str, list[str]]:
    """The event of a trigger that waits so long for a requested state."""
    requests = [StateRequest(stream=STREAM, desired_state=desired_state, by="a test", after_epoch=0)]
    trigger = RequestOutcomeTrigger(requests, time.time() + seconds, seconds)

    async def first() -> Any:
        return await asyncio.wait_for(anext(trigger.run()), seconds + 20)

    return dict(asyncio.run(first()).payload)


def test_a_form_starts_restarts_and_stops_a_stream_and_records_who_requested_it(
    tides: tuple[Settings, Pipeline], dag: DAG, keeper: Keeper
) -> None:
    """Each run ends when it is so: with a driver, with the next driver, with none."""
    done = ("success", {"request": "success", "await_outcome": "success"})
    assert run(dag, stream=STREAM, action="start") == done
    row = read(tides[0])
    assert (row.desired_state, row.state, row.epoch) == ("running", "running", 1)
    assert row.requested_by.startswith("airflow: dag_test, manual__")
    assert run(dag, stream=STREAM, action="restart") == done
    row = read(tides[0])
    assert (row.desired_state, row.state, row.epoch, row.exit_epoch) == ("running", "running", 2, 1)
    # The first one left of its own accord.
    assert keeper.processes[0].wait(60) == 0
    assert run(dag, stream=STREAM, action="stop") == done
    assert (read(tides[0]).desired_state, read(tides[0]).state) == ("stopped", "stopped")
    assert keeper.processes[1].wait(60) == 0


def test_all_are_restarted_but_for_those_that_a_person_stopped(
    tides: tuple[Settings, Pipeline], dag: DAG, keeper: Keeper
) -> None:
    """A restart of everything starts no stopped stream."""
    with session(tides[0], Account.STREAM) as connection:
        streams.request_state(connection, STREAM, "stopped", "a person")
    assert run(dag, stream="all", action="restart")[0] == "success"
    assert (read(tides[0]).desired_state, read(tides[0]).requested_by) == ("stopped", "a person")
    assert keeper.processes == []


def test_a_start_resets_a_halted_stream(tides: tuple[Settings, Pipeline], dag: DAG, keeper: Keeper) -> None:
    """As ./tidemill start does."""
    with session(tides[0], Account.STREAM) as connection:
        streams.request_state(connection, STREAM, "running", "a person")
        streams.open_circuit(connection, STREAM, "6 drivers broke")
    assert run(dag, stream=STREAM, action="start")[0] == "success"
    assert read(tides[0]).halted_reason is None


def test_a_stream_that_is_halted_while_it_is_waited_for_ends_the_run_with_the_reason(
    tides: tuple[Settings, Pipeline], dag: DAG
) -> None:
    """At once: nothing will change it but a person."""
    with session(tides[0], Account.STREAM) as connection:
        streams.request_state(connection, STREAM, "running", "a person")
        streams.open_circuit(connection, STREAM, "6 drivers broke")
    assert outcome(tides[0], "running", 60) == {
        "reached": [],
        "failed": ["stream tides is not running: it is halted: 6 drivers broke"],
    }


def test_a_stream_that_does_not_come_ends_the_run_after_its_time(
    tides: tuple[Settings, Pipeline], dag: DAG, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing acts on the request here. The task fails and names what to check; the request stays in effect."""
    monkeypatch.setattr(dag.get_task("await_outcome"), "wait_seconds", 1)
    assert run(dag, stream=STREAM, action="start") == ("failed", {"request": "success", "await_outcome": "failed"})
    assert read(tides[0]).desired_state == "running"
    [sentence] = outcome(tides[0], "running", 0)["failed"]
    assert sentence == (
        "stream tides is not running after 0 s: no driver was started; check that the DAG stream__tides is not paused"
    )


def test_an_unavailable_database_is_waited_for(
    tides: tuple[Settings, Pipeline], dag: DAG, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And named at the deadline."""
    right = json.loads(os.environ["AIRFLOW_CONN_TIDEMILL_DB"])
    monkeypatch.setenv("AIRFLOW_CONN_TIDEMILL_DB", json.dumps(right | {"port": 1}))
    [sentence] = outcome(tides[0], "running", 0.5)["failed"]
    assert sentence.startswith("stream tides is not running after 0 s: ")
    assert "database" in sentence


def test_a_form_with_an_unknown_stream_starts_no_run(tides: tuple[Settings, Pipeline], dag: DAG) -> None:
    """Airflow itself rejects it, by the form's list."""
    for form in ({"stream": "ebb", "action": "start"}, {"action": "stop"}, {"stream": STREAM, "action": "pause"}):
        with pytest.raises(ParamValidationError):
            dag.test(run_conf=form)
    with session(tides[0], Account.STREAM) as connection:
        assert streams.read_stream(connection, STREAM) is None


def test_the_command_line_writes_the_same_requests_also_for_a_rejected_folder(
    tides: tuple[Settings, Pipeline], dag: DAG, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running stream can always be stopped, also by a name with a completed slash; an unknown one is an error."""
    monkeypatch.setenv("TIDEMILL_PIPELINES", str(tmp_path / "pipelines"))
    shutil.copytree(tides[1].folder, tmp_path / "pipelines" / STREAM)
    (tmp_path / "pipelines" / STREAM / "pipeline.yaml").write_text("name: [")
    runner = CliRunner()
    with session(tides[0], Account.STREAM) as connection:
        streams.request_state(connection, STREAM, "stopped", "a person")
        leases.acquire_lease(connection, STREAM, 1, "a test")
    assert runner.invoke(cli.app, ["restart", STREAM, "--wait-seconds", "0"]).output == ANEW
    row = read(tides[0])
    assert (row.desired_state, row.exit_epoch) == ("running", 1)
    assert row.requested_by.endswith(" by command")
    assert runner.invoke(cli.app, ["stop", f"{STREAM}/"]).output == "tides: desired state is stopped\n"
    assert read(tides[0]).desired_state == "stopped"
    refused = runner.invoke(cli.app, ["stop", "ebb"])
    assert "TM-SPEC-PIPELINE-UNKNOWN" in str(refused.exception)
