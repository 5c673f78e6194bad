"""Refreshes in a running Airflow. Streams are in ``tests/e2e/test_faults.py``, and both in ``test_trinity.py``."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from support import expected
from support.faults import Supervised
from support.flights_rows import REFRESHES, Flown
from support.refreshes import Surges, surges_in
from support.up_here import Up
from tidemill.deploy.apply import apply_all
from tidemill.devstack.airflow_api import AirflowApi
from tidemill.devstack.stack import Stack
from tidemill.devstack.up import connections
from tidemill.kafka import clients
from tidemill.spec import load_pipelines
from tidemill.supervisor.launcher import is_gone
from tidemill.testing import wait_until

DAG_ID, STREAM, FLIGHTS = "stream__flights", "flights", 5_000


@pytest.fixture(scope="module")
def running(airflow_stack: Stack) -> Iterator[Supervised]:
    """The stream, started by Airflow because the state running was requested."""
    settings = airflow_stack.settings
    apply_all(settings, load_pipelines(settings.pipelines).values(), lambda line: None)
    with AirflowApi(settings) as api:
        for connection in connections(settings):
            api.put_connection(connection)
        # A schedule that has passed is made up for as soon as its DAG is on: now, while there is nothing to learn from.
        for dag in (DAG_ID, *REFRESHES):
            api.wait_for_dag(dag)
            api.unpause(dag)
        supervised = Supervised(settings, api, STREAM)
        supervised.request_state("running")
        wait_until(lambda: supervised.row.epoch, 360, "a driver is started")
        supervised.until_state("running", supervised.row.epoch)
        yield supervised
        api.pause(DAG_ID)
        supervised.request_state("stopped")
        wait_until(lambda: is_gone(supervised.row), 180, "the driver has left")


@pytest.mark.full
def test_too_few_flights_for_a_model_end_with_the_reason(
    running: Supervised, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If no challenger is better than the baseline, nothing is published, and ``--until-scored`` exits with 8.

    The feed is undisturbed: table, rollup and ledger are what an independent computation makes of it. A disturbed one
    is in ``test_trinity.py``.
    """
    played = Up(monkeypatch, "--until-scored", "--limit", str(FLIGHTS))
    try:
        played.run()
    finally:
        for dag in REFRESHES:
            running.api.pause(dag)
    stderr = capsys.readouterr().err
    assert played.exit_code == 8, stderr
    assert "[TM-DEVSTACK-NO-SCORES]" in stderr
    assert "baseline" in stderr
    settings = running.settings
    flown = Flown(settings, load_pipelines(settings.pipelines)[STREAM], clients.admin(settings))
    flown.assert_exact(FLIGHTS)
    total, sent = flown.totals(), expected.sent(settings.kafka_bootstrap, STREAM)
    assert sent == {"total": expected.record_counts(FLIGHTS)["total"], "malformed": 0}
    assert total.written + total.stale == total.records == sent["total"]
    assert (total.quarantined, total.filtered, total.gap) == (0, 0, 0)


@pytest.fixture
def api(airflow_stack: Stack) -> Iterator[AirflowApi]:
    """Airflow, with its connections to the other servers."""
    with AirflowApi(airflow_stack.settings) as api:
        for connection in connections(airflow_stack.settings):
            api.put_connection(connection)
        yield api


def test_commits_start_a_refresh_that_a_person_approves(airflow_stack: Stack, api: AirflowApi) -> None:
    """The asset's trigger fires once; how far it has reported is kept; the challenger waits for an answer.

    No worker is occupied meanwhile. The answer is sent as Airflow's page sends it, and the run goes on.
    """
    settings, name, dag = airflow_stack.settings, "squalls", "refresh__squalls__flood"
    surges_in(settings.pipelines, name, score={"schedule": None, "after_commits": 2}, promotion={"approval": "manual"})
    try:
        surges = Surges(settings, load_pipelines(settings.pipelines)[name])
        apply_all(settings, [surges.pipeline], lambda line: None)
        api.wait_for_dag(dag)
        api.unpause(dag)
        newest = [surges.commit(200), surges.commit(200)][-1]
        [run] = wait_until(lambda: api.dag_runs(dag), 300, "a run is set off")
        assert run["run_type"] == "asset_triggered"
        kept = f"/assets/{asset_of(api, f'{name}/commits/2')}/state-store"
        wait_until(lambda: f'"value": {newest}' in json.dumps(api.request("GET", kept)), 60, "the cursor is kept")
        place = f"/dags/{dag}/dagRuns/{run['dag_run_id']}/taskInstances"
        wait_until(lambda: api.request("GET", f"{place}/approve")["state"] == "deferred", 600, "a person is asked")
        asked = api.request("GET", f"{place}/approve/-1/hitlDetails")
        # Not answered at once: an answer before Airflow's scheduler knows that the worker has released the task
        # makes it consider the task lost and ask again.
        at = datetime.fromisoformat(asked["created_at"])
        wait_until(lambda: (datetime.now(UTC) - at).total_seconds() > 10, 60, "a person has read it")
        assert asked["subject"] == "Promote version 1 of squalls.flood?"
        answer = {"chosen_options": ["Promote"], "params_input": {}}
        api.request("PATCH", f"{place}/approve/-1/hitlDetails", answer)
        assert api.wait_for_run(dag, run["dag_run_id"], 600)["state"] == "success", api.task_instances(
            dag, run["dag_run_id"]
        )
        assert surges.pointers() == (1, 1)
        assert surges.decisions()[-1][2].startswith("airflow: admin, ")
        assert len(api.dag_runs(dag)) == 1
    finally:
        api.pause(dag)
        shutil.rmtree(settings.pipelines / name)


def asset_of(api: AirflowApi, name: str) -> int:
    """The id of an asset."""
    [found] = api.request("GET", "/assets", name_pattern=name)["assets"]
    return int(found["id"])
