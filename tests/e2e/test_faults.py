"""Faults of Airflow, Kafka and the database, and actions of people, under a running stream: it recovers by itself.

One stream with a steady feed lives through all of it, in this order. After each fault one driver lives, there never
were two at once, and the tables hold every record that was sent, and no other. A driver that is killed while all else
runs is in ``test_trinity.py``; parts that are killed at each point of a commit are in ``test_crashes.py``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.faults import Feed, Observer, Surf, processes, write_second_version
from support.merges import ENTITY
from support.recording import make_pipeline
from tidemill.config import Account
from tidemill.deploy import apply
from tidemill.devstack import child_process, secrets
from tidemill.devstack.airflow_api import AirflowApi
from tidemill.devstack.servers import airflow
from tidemill.devstack.stack import Stack
from tidemill.devstack.up import connections
from tidemill.kafka import clients
from tidemill.spec import load_pipeline
from tidemill.store.connection import session
from tidemill.testing import wait_until

NAME = "surf"
RECORDS_PER_SECOND = 200
PAUSE_SECONDS = 90.0
"""Between two commits of a stream that did not notice anything, while a whole Airflow starts on the same two cores."""
LEAVE_SECONDS = 360.0
SCHEDULER, TRIGGERER, API = "airflow-scheduler", "airflow-triggerer", "airflow-api-server"
AIRFLOW = (API, SCHEDULER, "airflow-dag-processor", TRIGGERER)


@pytest.fixture(scope="module")
def surf(airflow_stack: Stack, run_seed: int) -> Iterator[Surf]:
    """The stream, fed and running, under an Airflow that found its folder by itself."""
    settings = airflow_stack.settings
    folder = settings.pipelines / NAME
    pipeline = make_pipeline(settings.pipelines, NAME, (ENTITY,), partitions=2)
    apply.apply_all(settings, [pipeline], lambda _: None)
    feed, observer = Feed(settings, pipeline, RECORDS_PER_SECOND, run_seed), Observer(settings, NAME)
    with AirflowApi(settings) as api:
        surf = Surf(settings, api, NAME, airflow_stack, pipeline, feed, observer, clients.admin(settings))
        try:
            feed.start()
            observer.start()
            for connection in connections(settings):
                api.put_connection(connection)
            api.wait_for_dag(surf.dag)
            api.unpause(surf.dag)
            surf.request_state("running")
            surf.until_state("running", 1)
            yield surf
        finally:
            feed.end()
            observer.end()
            surf.request_state("stopped")
            wait_until(lambda: not [*processes(surf.settings, NAME)], LEAVE_SECONDS, "the driver has left")
            api.pause(surf.dag)
            shutil.rmtree(folder)


def test_no_worker_slot_is_occupied_while_the_stream_runs(surf: Surf) -> None:
    """The task is with the triggerer."""
    surf.until_deferred()


def test_its_task_links_to_the_log_of_the_driver_that_runs(surf: Surf) -> None:
    """Only people who may see the console can open it. No secret of the installation is in it."""
    settings, api = surf.settings, surf.api
    [newest, *_] = api.dag_runs(surf.dag)
    address = f"/dags/{surf.dag}/dagRuns/{newest['dag_run_id']}/taskInstances/run/links"
    link = wait_until(lambda: api.request("GET", address)["extra_links"]["Driver log"], 120, "the link")
    assert link == f"/tidemill/logs/{NAME}"
    assert httpx.get(settings.airflow_url + link, timeout=120, trust_env=False).status_code in (401, 403)
    body = {"username": airflow.ADMIN, "password": settings.secret(secrets.AIRFLOW_ADMIN).get_secret_value()}
    token = httpx.post(f"{settings.airflow_url}/auth/token", json=body, timeout=120, trust_env=False).json()
    header = {"Authorization": f"Bearer {token['access_token']}"}
    page = httpx.get(settings.airflow_url + link, headers=header, timeout=120, trust_env=False)
    assert page.status_code == 200
    assert "Running Spark version" in page.text
    held = json.loads(settings.secrets_file.read_text()).values()
    assert not [secret for secret in held if str(secret) in page.text]


def test_a_killed_scheduler_is_not_noticed(surf: Surf) -> None:
    """The driver commits on while there is none, and the next one finds it watched."""
    before, watched = surf.row, surf.until_deferred()
    surf.kill_children(SCHEDULER)
    surf.until_commits()
    surf.restart_children(SCHEDULER)
    surf.assert_same_driver(before, PAUSE_SECONDS)
    assert surf.until_deferred()["try_number"] == watched["try_number"]
    surf.assert_sound()


def test_a_driver_killed_while_no_triggerer_watches_comes_back(surf: Surf) -> None:
    """Without a triggerer the stream runs on; what dies meanwhile, the next triggerer notices."""
    before = surf.row
    surf.kill_children(TRIGGERER)
    surf.until_commits()
    surf.assert_same_driver(before, PAUSE_SECONDS)
    surf.kill_driver()
    surf.restart_children(TRIGGERER)
    after = surf.until_state("running", before.epoch + 1)
    assert after.epoch == before.epoch + 1
    surf.until_commits()
    surf.assert_sound()


@pytest.mark.full
def test_a_killed_airflow_is_not_noticed(surf: Surf) -> None:
    """With all four processes gone the driver commits on; the Airflow that is started next watches it as it is."""
    before = surf.row
    surf.kill_children(*AIRFLOW)
    surf.until_commits()
    surf.restart_children(*AIRFLOW)
    surf.until_deferred()
    surf.assert_same_driver(before, PAUSE_SECONDS)
    surf.assert_sound()


@pytest.mark.parametrize(
    ("api_seconds", "server_seconds"), [(0, 5), pytest.param(90, 60, marks=pytest.mark.full)], ids=["short", "long"]
)
def test_airflows_api_kafka_and_the_database_are_unavailable_at_once(
    surf: Surf, api_seconds: float, server_seconds: float
) -> None:
    """None of them ends the driver: it commits on without the API, and goes on by itself when the others are back.

    The outages overlap, so that no part could replace another, and end in another order than they began. Supervision
    works afterwards, as all the tests that follow show: they share this Airflow. Those of Kafka and of the
    database alone are in ``test_driver.py``.
    """
    before = surf.row
    api_killed_at = surf.kill_children(API)
    surf.until_commits()
    surf.assert_same_driver(before, PAUSE_SECONDS)
    broker_killed_at = surf.kill_children("kafka")
    wait_until(lambda: surf.row.waiting_for, 180, "the driver waits for Kafka")
    database_killed_at = surf.kill_children("mariadb")
    _until(broker_killed_at + server_seconds)
    surf.restart_children("kafka")
    _until(database_killed_at + server_seconds)
    surf.restart_children("mariadb")
    _until(api_killed_at + api_seconds)
    surf.restart_children(API)
    surf.until_commits()
    after = surf.assert_sound()
    assert (after.epoch, after.pid, after.failures_in_a_row) == (before.epoch, before.pid, 0)
    surf.until_deferred()


def test_a_cleared_task_adopts_the_driver(surf: Surf) -> None:
    """The driver does not notice."""
    before, task = surf.row, surf.until_deferred()
    surf.clear(task)
    surf.until_deferred(tries=task["try_number"] + 1)
    surf.assert_same_driver(before, PAUSE_SECONDS)
    surf.assert_sound()


def test_a_paused_dag_leaves_the_stream_alone(surf: Surf) -> None:
    """Pausing stops no stream. A task that is cleared meanwhile runs once the DAG is unpaused, and adopts it."""
    before, task = surf.row, surf.until_deferred()
    surf.api.pause(surf.dag)
    surf.clear(task)
    surf.until_commits()
    assert surf.task()["state"] != "deferred"
    surf.api.unpause(surf.dag)
    surf.until_deferred(tries=task["try_number"] + 1)
    surf.assert_same_driver(before, PAUSE_SECONDS)
    surf.assert_sound()


def test_marking_the_task_failed_stops_the_stream_until_it_is_started_again(surf: Surf) -> None:
    """It is a stop request like any other, with its author; the next run of the DAG waits for a start request."""
    before, task = surf.row, surf.until_deferred()
    surf.mark(task, "failed")
    assert surf.row.desired_state == "stopped"
    row = surf.until_state("stopped", before.epoch)
    assert (row.epoch, row.desired_state) == (before.epoch, "stopped")
    assert row.requested_by.startswith("airflow: run ")
    wait_until(lambda: not [*processes(surf.settings, NAME)], LEAVE_SECONDS, "the driver has left")
    surf.request_state("running")
    after = surf.until_state("running", before.epoch + 1)
    assert after.epoch == before.epoch + 1
    surf.assert_sound()


def test_a_changed_pipeline_is_rolled_to(surf: Surf) -> None:
    """Once applied, the driver finishes its batch and leaves, and one of the new version follows: no failure.

    Its new rollup counts the rows of before, too, beside the running stream.
    """
    before = surf.row
    rollup = write_second_version(surf.pipeline)
    result = _tidemill(surf, "apply", NAME)
    assert result.returncode == 0, result.stderr
    after = surf.until_state("running", before.epoch + 1)
    assert (after.epoch, after.pipeline_version) == (before.epoch + 1, 2)
    assert (after.failures_in_a_row, after.last_failed_at) == (0, before.last_failed_at)
    assert "TM-STORE-LEASE-LOST" not in Path(before.log_file or "").read_text()
    surf.pipeline = load_pipeline(surf.pipeline.folder)
    state = f"SELECT state FROM rollups WHERE pipeline = '{NAME}' AND rollup = '{rollup}'"
    wait_until(lambda: _query(surf, state) == "ready", 180, "the rollup counts all rows")
    assert _query(surf, f"SELECT rows_built FROM rollups WHERE rollup = '{rollup}'") > 100
    # That it counts them rightly is part of what follows: each rollup is recounted from its table.
    surf.until_commits()
    surf.assert_sound()


def test_a_broken_change_is_rejected_and_the_applied_version_stays_in_use(surf: Surf) -> None:
    """``apply`` prints the reason in one sentence, Airflow shows it as an import error; the stream keeps its version.

    Its DAG stays, built from the version that was applied last.
    """
    before, declaration = surf.row, surf.pipeline.folder / "pipeline.yaml"
    sound = declaration.read_text()
    declaration.write_text(sound.replace("rollups:", "rollup:"))
    try:
        result = _tidemill(surf, "apply", NAME)
        assert result.returncode != 0
        assert result.stderr.startswith("tidemill: ")
        assert "rollups" in result.stderr
        assert result.stderr.count("\n") == 1
        wait_until(
            lambda: any(NAME in each["stack_trace"] for each in surf.api.import_errors()), 360, "an import error"
        )
        surf.assert_same_driver(before, PAUSE_SECONDS)
        surf.kill_driver()
        after = surf.until_state("running", before.epoch + 1)
        assert (after.epoch, after.pipeline_version) == (before.epoch + 1, before.pipeline_version)
        assert surf.api.wait_for_dag(surf.dag)["is_stale"] is False
        surf.until_commits()
        surf.assert_sound()
    finally:
        declaration.write_text(sound)


def test_no_incident_is_left_open(surf: Surf) -> None:
    """What was wrong for a while has cleared by itself."""

    def is_clear() -> bool:
        with session(surf.settings, Account.READ) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT kind FROM incidents WHERE subject = %s AND closed_at IS NULL", (f"stream {NAME}",))
            return not cursor.fetchall()

    wait_until(is_clear, 240, "all incidents of the stream are closed")


def test_marking_the_run_failed_while_no_triggerer_runs_stops_the_stream(surf: Surf) -> None:
    """No trigger has to watch the task for that. Last, because the stream is not started again."""
    before, task = surf.row, surf.until_deferred()
    surf.kill_children(TRIGGERER)
    try:
        surf.api.request("PATCH", f"/dags/{surf.dag}/dagRuns/{task['dag_run_id']}", {"state": "failed"})
        row = surf.until_state("stopped", before.epoch)
    finally:
        surf.restart_children(TRIGGERER)
    by = f"airflow: run {task['dag_run_id']} was marked failed"
    assert (row.epoch, row.desired_state, row.requested_by) == (before.epoch, "stopped", by)


def _until(moment: float) -> None:
    """Let an outage last."""
    wait_until(lambda: time.monotonic() >= moment, 120, "the outage is over")


def _query(surf: Surf, sql: str) -> Any:
    """The one value that a query of the control plane gives."""
    with session(surf.settings, Account.READ) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
        return row[0] if row else None


def _tidemill(surf: Surf, *words: str) -> subprocess.CompletedProcess[str]:
    """A command, as a user gives it."""
    return subprocess.run(
        [sys.executable, "-m", "tidemill", *words],
        env=child_process.environment(surf.settings), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
