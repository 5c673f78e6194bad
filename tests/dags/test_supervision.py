"""The operator and the triggers on the real database, with real processes for drivers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import psutil
import pymysql
import pytest
from airflow.sdk.exceptions import AirflowException, TaskDeferred
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent
from pymysql.connections import Connection

from tidemill.airflow.connections import find_cluster, open_connection
from tidemill.airflow.operators import StreamOperator
from tidemill.airflow.triggers import poller
from tidemill.airflow.triggers import stream as triggers
from tidemill.airflow.triggers.stream import StartRequestedTrigger, StreamTrigger
from tidemill.config import Account, Settings
from tidemill.deploy import snapshots
from tidemill.deploy.apply import apply_all
from tidemill.devstack import secrets
from tidemill.errors import Fenced
from tidemill.lifecycle.driver_state import DriverState
from tidemill.lifecycle.limits import LIMITS, View
from tidemill.lifecycle.stream_row import FAILING, FRESHNESS, StreamRow
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import heartbeats, leases, streams
from tidemill.store.control import incidents as incident_rows
from tidemill.supervisor import launcher
from tidemill.supervisor.actions import StreamActions
from tidemill.supervisor.launcher import stop_driver
from tidemill.testing import wait_until

STREAM = "tides"


@dataclass
class Scene:
    """A stream with the desired state running, and control over all that acts on it."""

    settings: Settings
    connection: Connection[Any]

    @property
    def row(self) -> StreamRow:
        """The stream now."""
        found = streams.read_stream(self.connection, STREAM)
        assert found is not None
        return found

    def behave(self, how: str) -> None:
        """How drivers started from now on behave."""
        (self.settings.state / "behaviour").write_text(how)

    def request_state(self, desired_state: str) -> None:
        """Request a state of the stream."""
        streams.request_state(self.connection, STREAM, desired_state, "a test")

    def work(self) -> StreamTrigger | None:
        """Let the task work until it defers; returns what it watches with, None where it has ended."""
        try:
            StreamOperator(task_id="run", pipeline=STREAM).execute({"run_id": "a run"})
        except TaskDeferred as deferred:
            return cast(StreamTrigger, deferred.trigger)
        return None

    def started(self) -> StreamTrigger:
        """Let the task start a driver, and wait until it speaks."""
        trigger = self.work()
        assert trigger is not None
        self.until(lambda row: row.heartbeat_epoch == row.epoch)
        return trigger

    def until(self, condition: Callable[[StreamRow], bool]) -> StreamRow:
        """The row as soon as it fulfils the condition."""
        return wait_until(lambda: row if condition(row := self.row) else None, 60, "the row")

    def kill(self) -> None:
        """SIGKILL to the driver's process."""
        os.kill(int(self.row.pid or 0), signal.SIGKILL)
        wait_until(lambda: launcher.is_gone(self.row), 60, "the driver is gone")

    def let_pass(self, seconds: float) -> None:
        """Let time pass for the stream, though not for its heartbeat: all its other times move back."""
        times = {"streams": ("requested_at", "last_failed_at", "exit_requested_at"), "leases": ("acquired_at",)}
        with self.connection.cursor() as cursor:
            for table, columns in times.items():
                changes = ", ".join(f"{each} = {each} - INTERVAL {seconds} SECOND" for each in columns)
                cursor.execute(f"UPDATE {table} SET {changes} WHERE stream = %s", (STREAM,))

    def age_heartbeat(self, seconds: float) -> None:
        """Move the newest heartbeat back, of a driver that reports no other."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE heartbeats SET heartbeat_at = heartbeat_at - INTERVAL {seconds} SECOND WHERE stream = %s",
                (STREAM,),
            )

    def incidents(self) -> list[tuple[str, bool]]:
        """Kind of each incident of the stream, and whether it is open."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT kind, closed_at IS NULL FROM incidents WHERE subject = %s ORDER BY id", (f"stream {STREAM}",)
            )
            return [(kind, bool(is_open)) for kind, is_open in cursor.fetchall()]


@pytest.fixture
def scene(tides: tuple[Settings, Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A stream that is to run, without driver and history; drivers behave well."""
    program = tmp_path / "spark-submit"
    entry = Path(__file__).with_name("tiny_driver.py")
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{entry}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(launcher, "spark_submit", lambda environment: str(program))
    monkeypatch.setattr(poller, "POLL_SECONDS", 0.1)
    with session(tides[0], Account.STREAM) as connection:
        with connection.cursor() as cursor:
            for table in ("streams", "leases", "heartbeats"):
                cursor.execute(f"DELETE FROM {table} WHERE stream = %s", (STREAM,))
            cursor.execute("DELETE FROM incidents WHERE subject = %s", (f"stream {STREAM}",))
            # The folder is the version that was applied last.
            cursor.execute("DELETE FROM pipelines WHERE pipeline = %s AND digest <> %s", (STREAM, tides[1].digest))
        scene = Scene(tides[0], connection)
        scene.behave("good")
        scene.request_state("running")
        yield scene
        stop_driver(scene.row, grace_seconds=0)


QUIET_SECONDS = 1.0
"""Ten polls without an event."""


def event_of(trigger: StreamTrigger | StartRequestedTrigger, seconds: float) -> TriggerEvent | None:
    """What the trigger fires within some seconds, None if nothing."""
    return asyncio.run(first_of(trigger, seconds))


async def first_of(trigger: StreamTrigger | StartRequestedTrigger, seconds: float) -> TriggerEvent | None:
    """The same, beside others."""
    with suppress(TimeoutError):
        return await asyncio.wait_for(anext(trigger.run()), seconds)
    return None


def reason_of(trigger: StreamTrigger, seconds: float = 60) -> str:
    """Why the trigger wakes its task."""
    event = event_of(trigger, seconds)
    assert event is not None
    return str(event.payload["reason"])


def test_a_stream_that_is_to_run_gets_a_driver_and_the_task_releases_its_worker(scene: Scene) -> None:
    """The control plane knows where the driver runs, and its log is there."""
    trigger = scene.started()
    row = scene.row
    assert (row.epoch, trigger.epoch) == (1, 1)
    assert "is good" in Path(row.log_file or "").read_text()
    assert psutil.Process(row.pid).is_running()


def test_a_second_task_adopts_the_driver_of_the_first(scene: Scene) -> None:
    """A retry, a cleared task or a restarted Airflow starts nothing beside what lives."""
    scene.started()
    before = scene.row
    scene.work()
    assert (scene.row.epoch, scene.row.pid) == (before.epoch, before.pid)


def test_the_trigger_is_quiet_while_all_is_well(scene: Scene) -> None:
    """It does not resume its task without a reason."""
    assert event_of(scene.started(), QUIET_SECONDS) is None


def test_a_killed_driver_is_noticed_at_once_and_the_same_task_starts_the_next(scene: Scene) -> None:
    """The process is seen to be gone long before its heartbeat is old. What happened is an open incident."""
    trigger = scene.started()
    scene.kill()
    assert "ended without a report" in reason_of(trigger)
    scene.started()
    assert (scene.row.epoch, scene.row.failures_in_a_row) == (2, 1)
    assert scene.incidents() == [(FAILING, True)]


@pytest.mark.parametrize("spoke", [False, True])
def test_the_row_of_a_driver_that_was_killed_has_the_reason(scene: Scene, spoke: bool) -> None:
    """Its own last words, where a part of it lived on to report them, else the cause by its log; counted once."""
    scene.started()
    lost = scene.row
    with Path(str(lost.log_file)).open("a") as log:
        log.write("Terminating due to java.lang.OutOfMemoryError: Java heap space\n")
    scene.kill()
    if spoke:
        heartbeats.report_heartbeat(scene.connection, STREAM, lost.epoch, "failed", last_error="my last words")
    actions = StreamActions(scene.settings, scene.connection, "a test", find_cluster)
    for _ in range(2):
        sentence = actions.record_failure(lost, DriverState.LOST, "it was killed")
        row = scene.row
        assert (row.state, row.heartbeat_epoch, row.failures_in_a_row) == ("failed", lost.epoch, 1)
        if spoke:
            assert row.last_error == "my last words"
        else:
            assert "it was killed; the cause by its log: [TM-STREAM-JVM-OUT-OF-MEMORY]" in (row.last_error or "")
        assert sentence.endswith(f"failed: {row.last_error}")
    scene.started()
    before = scene.row
    assert "it was killed" in actions.record_failure(lost, DriverState.LOST, "it was killed")
    assert (scene.row.epoch, scene.row.state, scene.row.last_error) == (before.epoch, "running", None)


def test_a_second_failure_without_a_commit_fails_the_task_with_the_drivers_own_words(scene: Scene) -> None:
    """Who opens the red task reads the cause first, and then the end of the log."""
    scene.behave("fails")

    def work_on() -> None:
        while trigger := scene.work():
            assert reason_of(trigger) == "the table is full: tides; make room"

    with pytest.raises(AirflowException) as caught:
        work_on()
    sentence, *tail = str(caught.value).splitlines()
    assert sentence == "the driver of stream tides, epoch 2, failed: the table is full: tides; make room"
    assert "driver of tides, epoch 2, is fails" in tail
    assert scene.row.failures_in_a_row == 2


def test_no_other_file_of_the_machine_is_read_into_the_tasks_log(scene: Scene) -> None:
    """The lease names the log, and whoever may write the lease may not read everything by it: links count as what they
    lead to."""
    scene.behave("fails")
    held = scene.settings.secrets_file
    link = scene.settings.state / "logs" / "streams" / "tides-link.log"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(held)
    errors = {}
    try:
        for named in ("of the first failure, which fails no task", str(held), str(link), f"{link.parent}/../../run"):
            try:
                trigger = scene.work()
                assert trigger is not None
                reason_of(trigger)
                leases.record_driver(scene.connection, STREAM, scene.row.epoch, log_file=named)
                scene.work()
            except AirflowException as error:
                errors[named] = str(error)
            scene.let_pass(61)
    finally:
        link.unlink()
    assert len(errors) == 3
    for named, text in errors.items():
        assert f"is not shown here: {named}" in text
        assert scene.settings.secret("root").get_secret_value() not in text


def test_after_six_failures_without_a_commit_the_circuit_opens_until_the_next_start(scene: Scene) -> None:
    """A halted stream is left alone, with an incident; a start request closes it."""
    scene.behave("fails")
    errors = []
    for _ in range(20):
        if scene.row.halted_reason:
            break
        try:
            trigger = scene.work()
        except AirflowException as error:
            errors.append(str(error))
        else:
            assert trigger is not None
            reason_of(trigger)
        scene.let_pass(61)
    assert "stream tides is halted: 6 drivers failed without a commit" in errors[-1]
    assert scene.row.epoch == 6
    assert ("halted", True) in scene.incidents()
    assert event_of(StartRequestedTrigger(STREAM), QUIET_SECONDS) is None
    scene.behave("good")
    scene.request_state("running")
    assert isinstance(event_of(StartRequestedTrigger(STREAM), 60), TaskSuccessEvent)
    scene.started()
    assert ("halted", False) in scene.incidents()


def test_a_stream_that_is_stopped_ends_its_task_when_its_driver_has_exited(scene: Scene) -> None:
    """The driver exits by itself."""
    trigger = scene.started()
    pid = scene.row.pid
    scene.request_state("stopped")
    assert reason_of(trigger) == "it is to be stopped, and it has no driver"
    assert scene.work() is None
    assert scene.row.state == "stopped"
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_driver_that_does_not_exit_is_killed(scene: Scene) -> None:
    """After its time to exit. Killing it is no failure of the stream."""
    scene.behave("stubborn")
    trigger = scene.started()
    scene.request_state("stopped")
    scene.let_pass(121)
    assert reason_of(trigger) == "its driver was requested to exit more than 120 s ago"
    pid = scene.row.pid
    assert scene.work() is None
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert (scene.row.state, scene.row.failures_in_a_row) == ("stopped", 0)


def test_a_driver_without_a_heartbeat_is_known_by_its_process(scene: Scene) -> None:
    """Whose end is observed."""
    scene.behave("mute")
    trigger = scene.work()
    assert trigger is not None
    scene.kill()
    assert "ended without a report" in reason_of(trigger)


def test_a_restart_lets_the_driver_leave_and_starts_the_next(scene: Scene) -> None:
    """It finishes its batch; the next one is of the same version, and nothing has failed."""
    trigger = scene.started()
    old = scene.row
    streams.request_exit(scene.connection, STREAM, "a person")
    assert reason_of(trigger) == "its desired state is running, and it has no driver"
    assert (scene.row.epoch, scene.row.state) == (old.epoch, "stopped")
    scene.started()
    row = scene.row
    assert (row.epoch, row.pipeline_version, row.failures_in_a_row) == (old.epoch + 1, old.pipeline_version, 0)
    assert scene.incidents() == []


@pytest.fixture
def folder(tides: tuple[Settings, Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pipeline's folder, to be edited."""
    copy = tmp_path / "pipelines" / STREAM
    copy.mkdir(parents=True)
    for path in tides[1].folder.iterdir():
        if path.is_file():
            (copy / path.name).write_text(path.read_text())
    monkeypatch.setenv("TIDEMILL_PIPELINES", str(copy.parent))
    return copy


def edit(folder: Path, text: str) -> None:
    """Add to the folder's declaration."""
    with (folder / "pipeline.yaml").open("a") as file:
        file.write(text)


def test_a_newer_version_of_the_pipeline_rolls_the_driver(scene: Scene, folder: Path) -> None:
    """The old driver leaves by itself, and only then the next one comes, of the version applied."""
    trigger = scene.started()
    old = scene.row
    edit(folder, f"# {folder}\n")
    apply_all(scene.settings, [load_pipeline(folder)], lambda line: None)
    newest = scene.row.newest_version
    assert reason_of(trigger) == f"version {old.pipeline_version} runs, version {newest} is applied"
    leaving = scene.work()
    assert leaving is not None
    assert (scene.row.epoch, scene.row.exit_epoch) == (old.epoch, old.epoch)
    assert reason_of(leaving) == "its desired state is running, and it has no driver"
    assert scene.row.state == "stopped"
    scene.started()
    assert (scene.row.epoch, scene.row.pipeline_version) == (old.epoch + 1, newest)
    assert newest > (old.pipeline_version or 0)
    assert (scene.row.failures_in_a_row, scene.incidents()) == (0, [])


def test_a_driver_that_does_not_exit_for_the_next_is_killed(scene: Scene) -> None:
    """After its time to exit. Killing it is no failure of the stream."""
    scene.behave("stubborn")
    trigger = scene.started()
    streams.request_exit(scene.connection, STREAM, "a person")
    assert event_of(trigger, QUIET_SECONDS) is None
    scene.let_pass(121)
    assert reason_of(trigger) == "its driver has been leaving for more than 120 s"
    scene.behave("good")
    old = scene.row
    scene.started()
    # One epoch to shut the old driver out, and one for the next.
    assert (scene.row.epoch, scene.row.failures_in_a_row) == (old.epoch + 2, 0)
    assert not psutil.pid_exists(old.pid) or psutil.Process(old.pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("text", ["# edited\n", "nonsense: [\n"], ids=["edited", "broken"])
def test_a_folder_that_was_not_applied_changes_nothing(scene: Scene, folder: Path, text: str) -> None:
    """What was applied goes on, and is what is started again."""
    snapshots.save_snapshot(scene.settings, load_pipeline(folder), scene.row.newest_version)
    trigger = scene.started()
    old = scene.row
    edit(folder, text)
    assert event_of(trigger, QUIET_SECONDS) is None
    assert scene.work() is not None
    assert scene.row.epoch == old.epoch
    scene.kill()
    reason_of(trigger)
    scene.started()
    assert (scene.row.epoch, scene.row.pipeline_version) == (old.epoch + 1, old.pipeline_version)


def test_a_driver_that_hangs_is_lost_once_it_was_watched_for_long_enough(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process exists and reports nothing. The task acts on the trigger's observation, and ends the process."""
    monkeypatch.setattr(poller, "LIMITS", replace(LIMITS, silence_seconds=1, view_seconds=3))
    trigger = scene.started()
    old = scene.row
    os.kill(int(old.pid or 0), signal.SIGSTOP)
    scene.let_pass(8)
    scene.age_heartbeat(8)
    # One read is not enough: the database may have been unavailable.
    assert scene.work() is not None
    assert scene.row.epoch == old.epoch
    assert event_of(trigger, 1.5) is None
    event = event_of(trigger, 60)
    assert event is not None
    assert "no heartbeat for" in event.payload["reason"]
    with pytest.raises(TaskDeferred):
        StreamOperator(task_id="run", pipeline=STREAM).resume({"run_id": "a run"}, event.payload)
    assert (scene.row.epoch, scene.row.failures_in_a_row) == (old.epoch + 1, 1)
    assert not psutil.pid_exists(old.pid) or psutil.Process(old.pid).status() == psutil.STATUS_ZOMBIE


def test_an_action_that_comes_too_late_starts_nothing(scene: Scene, tides: tuple[Settings, Pipeline]) -> None:
    """It was decided on an outdated row: another task was faster, or a person has requested another state."""
    actions = StreamActions(scene.settings, scene.connection, "a test", find_cluster)
    before = scene.row
    scene.started()
    now = scene.row
    for stale in (before, replace(now, requested_at=before.requested_at.replace(year=2020))):
        with pytest.raises(Fenced):
            actions.start(stale, tides[1], now.newest_version, {})
        with pytest.raises(Fenced):
            actions.kill(stale)
        actions.request_exit(before)
    assert (scene.row.epoch, scene.row.pid, scene.row.exit_epoch) == (now.epoch, now.pid, None)


def test_a_circuit_that_opens_too_late_does_not_undo_a_request(scene: Scene) -> None:
    """The task that decided on the earlier request reads the row again."""
    before = scene.row
    scene.request_state("running")
    assert not streams.open_circuit(scene.connection, STREAM, "it broke", requested_at=before.requested_at)
    assert scene.row.halted_reason is None
    assert streams.open_circuit(scene.connection, STREAM, "it broke", requested_at=scene.row.requested_at)
    assert scene.incidents() == [("halted", True)]


def test_a_late_word_of_the_driver_before_does_not_overwrite_the_next_ones(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read its epoch, another driver acquired the lease, and only then it wrote."""
    leases.acquire_lease(scene.connection, STREAM, 1, "a test")
    stale = scene.row
    leases.acquire_lease(scene.connection, STREAM, 1, "a test")
    heartbeats.report_heartbeat(scene.connection, STREAM, 2, "stopped", batches=7)
    with monkeypatch.context() as patch:
        patch.setattr(heartbeats, "read_stream", lambda connection, stream: stale)
        heartbeats.report_heartbeat(scene.connection, STREAM, 1, "running", batches=1)
    assert (scene.row.heartbeat_epoch, scene.row.state, scene.row.batches) == (2, "stopped", 7)


def test_an_incident_resumes_the_task_which_notifies_of_it(scene: Scene) -> None:
    """Once; and then it watches on."""
    trigger = scene.started()
    incident_rows.open_incident(scene.connection, f"stream {STREAM}", "a kind", "something happened")
    assert reason_of(trigger) == "an incident has a pending notification"
    again = scene.work()
    assert again is not None
    assert (scene.row.pending_notifications, again.pending_notifications) == (0, 0)
    assert event_of(again, QUIET_SECONDS) is None


def test_a_notification_that_failed_does_not_resume_the_task_at_once_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again after a while."""
    epoch = scene.started().epoch
    incident_rows.open_incident(scene.connection, f"stream {STREAM}", "a kind", "something happened")
    assert event_of(StreamTrigger(STREAM, epoch, pending_notifications=1), QUIET_SECONDS) is None
    monkeypatch.setattr(triggers, "RETRY_SECONDS", 0.5)
    assert event_of(StreamTrigger(STREAM, epoch, pending_notifications=1), 60) is not None


def test_tables_that_are_older_than_promised_are_an_incident_while_they_are(
    scene: Scene, tides: tuple[Settings, Pipeline]
) -> None:
    """The trigger opens and closes the incident; the task notifies of both."""
    trigger = scene.started()
    promised = tides[1].slo.freshness_seconds
    assert trigger.freshness_seconds == promised
    scene.let_pass(2 * promised)

    def lags(seconds: float) -> None:
        with scene.connection.cursor() as cursor:
            cursor.execute(
                "UPDATE heartbeats SET behind_seconds = %s, lag_records = %s, heartbeat_at = UTC_TIMESTAMP(6)"
                " WHERE stream = %s",
                (seconds, int(seconds > 0), STREAM),
            )

    os.kill(int(scene.row.pid or 0), signal.SIGSTOP)
    lags(2 * promised)
    assert reason_of(trigger) == "an incident has a pending notification"
    assert scene.incidents() == [(FRESHNESS, True)]
    again = scene.work()
    assert again is not None
    lags(0)
    assert reason_of(again) == "an incident has a pending notification"
    assert scene.incidents() == [(FRESHNESS, False)]
    os.kill(int(scene.row.pid or 0), signal.SIGCONT)


@dataclass
class Counted:
    """Connections and statements of pollers."""

    opened: int = 0
    open: int = 0
    statements: Counter[str] = None  # type: ignore[assignment]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Counts connections and statements of pollers."""
    counts, lock = Counted(statements=Counter()), threading.Lock()

    def opened(*args: Any, **kwargs: Any) -> Connection[Any]:
        connection = open_connection(*args, **kwargs)
        query, shut = connection.query, connection.close

        def counting(sql: Any, *args: Any, **kwargs: Any) -> Any:
            with lock:
                counts.statements[str(sql).split()[0]] += 1
            return query(sql, *args, **kwargs)

        def closing() -> None:
            counts.open -= 1
            shut()

        monkeypatch.setattr(connection, "query", counting)
        monkeypatch.setattr(connection, "close", closing)
        counts.opened += 1
        counts.open += 1
        return connection

    monkeypatch.setattr(poller, "open_connection", opened)
    return counts


def test_one_query_a_poll_serves_all_triggers_and_the_last_one_closes_the_connection(
    scene: Scene, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred triggers cost what one does; each gets the events of its own stream."""
    monkeypatch.setattr(poller, "POLL_SECONDS", 0.2)
    epoch = scene.started().epoch
    others = [StreamTrigger(STREAM, epoch, freshness_seconds=60) for _ in range(98)]
    elsewhere = StreamTrigger(STREAM, epoch + 1)
    unknown = StartRequestedTrigger("a_stream_without_a_row")

    async def together() -> list[TriggerEvent | None]:
        return await asyncio.gather(*(first_of(each, 2) for each in (elsewhere, unknown, *others)))

    events = asyncio.run(together())
    assert events[0] is not None
    assert events[0].payload["reason"] == f"another driver acquired the lease: epoch {epoch}"
    assert events[1:] == [None] * 99
    assert (counted.opened, counted.open) == (1, 0)
    # Two seconds hold ten looks, fewer on a busy machine. Those who come and go may cause one more each time, never one
    # for each.
    assert 2 <= counted.statements["SELECT"] <= 14
    assert not {*counted.statements} - {"SELECT", "SET"}


def test_a_trigger_that_raises_fails_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task fails with the error; the others are watched on."""
    epoch = scene.started().epoch
    good, bad = StreamTrigger(STREAM, epoch), StreamTrigger(STREAM, epoch)
    monkeypatch.setattr(bad, "on_observation", lambda observation: 1 / 0)

    async def together() -> list[Any]:
        return await asyncio.gather(*(first_of(each, 5) for each in (good, bad)), return_exceptions=True)

    found = asyncio.run(together())
    assert found[0] is None
    assert isinstance(found[1], ZeroDivisionError)


def test_another_process_that_acquires_the_lease_resumes_the_task(scene: Scene) -> None:
    """It then watches the new driver."""
    trigger = scene.started()
    leases.acquire_lease(scene.connection, STREAM, 1, "another process")
    assert reason_of(trigger) == "another driver acquired the lease: epoch 2"


def test_a_commit_closes_the_incident_of_the_failures_before_it(scene: Scene) -> None:
    """A stream that recovers by itself needs no person; its recovery is notified."""
    incident_rows.open_incident(scene.connection, f"stream {STREAM}", FAILING, "it broke")
    trigger = scene.started()
    scene.until(lambda row: row.state == "running")
    heartbeats.report_heartbeat(scene.connection, STREAM, scene.row.epoch, "running", batches=1)
    assert reason_of(trigger) == "an incident has a pending notification"
    assert scene.incidents() == [(FAILING, False)]


def test_the_first_task_waits_for_the_start_request_and_needs_no_worker(scene: Scene) -> None:
    """Its trigger ends it."""
    scene.request_state("stopped")
    assert event_of(StartRequestedTrigger(STREAM), QUIET_SECONDS) is None
    scene.request_state("running")
    assert isinstance(event_of(StartRequestedTrigger(STREAM), 60), TaskSuccessEvent)


def test_an_unavailable_database_is_waited_for(
    connections: Settings, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart of the database is no failure of the stream. Each task's log has one line, and events come after it."""
    epoch = scene.started().epoch
    here = os.environ["AIRFLOW_CONN_TIDEMILL_DB"]
    monkeypatch.setenv("AIRFLOW_CONN_TIDEMILL_DB", json.dumps(json.loads(here) | {"port": 1}))
    reported: Counter[int] = Counter()
    watching = [StreamTrigger(STREAM, epoch) for _ in range(3)]
    for number, trigger in enumerate(watching):
        monkeypatch.setattr(trigger, "on_unavailable", lambda error, number=number: reported.update([number]))

    async def outage() -> list[TriggerEvent | None]:
        waiting = [asyncio.create_task(first_of(trigger, 20)) for trigger in watching]
        await asyncio.wait(waiting, timeout=QUIET_SECONDS)
        assert not any(each.done() for each in waiting)
        os.environ["AIRFLOW_CONN_TIDEMILL_DB"] = here
        await asyncio.wait(waiting, timeout=QUIET_SECONDS)
        assert not any(each.done() for each in waiting)
        leases.acquire_lease(scene.connection, STREAM, 1, "another process")
        return await asyncio.gather(*waiting)

    events = asyncio.run(outage())
    assert reported == {0: 1, 1: 1, 2: 1}
    assert [event.payload["reason"] for event in events if event] == [
        f"another driver acquired the lease: epoch {epoch + 1}"
    ] * 3


def test_a_driver_does_not_leave_for_a_version_that_cannot_be_started(
    scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version was registered and its copy is nowhere: the old one goes on, and its task is asked at times only."""
    trigger = scene.started()
    old = scene.row
    with session(scene.settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pipelines (pipeline, version, digest) VALUES (%s, %s, 'lost')",
            (STREAM, old.newest_version + 1),
        )
    try:
        assert "is applied" in reason_of(trigger)
        patient = scene.work()
        assert patient is not None
        assert (scene.row.epoch, scene.row.exit_epoch, scene.row.state) == (old.epoch, None, "running")
        assert event_of(patient, QUIET_SECONDS) is None
        monkeypatch.setattr(triggers, "RETRY_SECONDS", 0.2)
        assert "is applied" in reason_of(StreamTrigger(**patient.serialize()[1]))
    finally:
        with session(scene.settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM pipelines WHERE pipeline = %s AND digest = 'lost'", (STREAM,))


def test_no_driver_is_declared_lost_while_the_database_accepts_no_writes(scene: Scene) -> None:
    """A driver cannot write heartbeats then, although a read-only server answers queries."""
    poll_session = poller._PollSession()
    poll_session._connection = scene.connection
    poll_session._view = View(scene.row.now, scene.row.now)
    password = scene.settings.secret(secrets.DB_ROOT).get_secret_value()
    root = pymysql.connect(
        host="127.0.0.1", port=scene.settings.db_port, user="root", password=password, ssl_disabled=True
    )
    with closing(root), root.cursor() as cursor:
        cursor.execute("SET GLOBAL read_only = 1")
        try:
            assert not poll_session._accepts_writes(STREAM)
            assert poll_session._view is None
        finally:
            cursor.execute("SET GLOBAL read_only = 0")
    poll_session._view = View(scene.row.now, scene.row.now)
    assert poll_session._accepts_writes(STREAM)


def test_a_trigger_of_an_older_version_goes_on_watching() -> None:
    """What waits in Airflow's database while it is upgraded has arguments that are of no use any more."""
    former = {"stream": STREAM, "epoch": 3, "version": 1, "newest": 2, "conn_id": "tidemill_db"}
    trigger = StreamTrigger(**former)
    assert (trigger.epoch, trigger.freshness_seconds, trigger.missing_version) == (3, None, None)


def test_incidents_of_a_stream_close_when_it_is_stopped(scene: Scene) -> None:
    """Neither failures of its drivers nor the age of its tables need attention any more."""
    subject = f"stream {STREAM}"
    for kind in (FAILING, FRESHNESS):
        incident_rows.open_incident(scene.connection, subject, kind, "it is bad")
    scene.request_state("stopped")
    assert event_of(StartRequestedTrigger(STREAM, freshness_seconds=30), QUIET_SECONDS) is None
    assert scene.incidents() == [(FAILING, False), (FRESHNESS, False)]
