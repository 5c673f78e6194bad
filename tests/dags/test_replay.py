"""The DAG of replays, run from end to end on real Kafka, MariaDB and Spark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG

from tidemill import config
from tidemill.airflow.dags.replay_tasks import record_failure
from tidemill.config import Account, Settings
from tidemill.deploy.apply import apply_all
from tidemill.kafka import clients
from tidemill.spec import load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import leases, ledger, replays

TIDES = Path(__file__).parent / "pipelines" / "tides"


@dataclass(frozen=True)
class Ebbs:
    """A stream that has passed over four readings, one of them no JSON, and the DAG that replays them."""

    settings: Settings
    dag: DAG

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with session(self.settings, Account.READ) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def run(self, **form: Any) -> tuple[str, dict[str, str], Any]:
        """State of the run and of its tasks, and the result of ``report``."""
        run = self.dag.test(run_conf=form)
        tasks = {ti.task_id: ti for ti in run.get_task_instances()}
        result = tasks["report"].xcom_pull(task_ids="report") if str(tasks["report"].state) == "success" else None
        return str(run.state), {name: str(ti.state) for name, ti in tasks.items()}, result


@pytest.fixture(scope="module")
def ebbs(connections: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ebbs]:
    """A pipeline like ``tides``, applied, whose position is past what its topic holds."""
    folder = tmp_path_factory.mktemp("pipelines") / "ebbs"
    folder.mkdir()
    for path in TIDES.iterdir():
        text = path.read_text().replace("tides", "ebbs").replace("floods_by", "ebbs_by").replace("tide_s", "ebb_s")
        (folder / path.name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIDEMILL_PIPELINES", str(folder.parent))
        settings, pipeline = config.load(), load_pipeline(folder)
        apply_all(settings, [pipeline], lambda line: None)
        producer = clients.producer(settings)
        at = "2026-01-01T00:00:00Z"
        reading = {"station": "north", "read_at": at, "height": 1, "wind": 2, "flooded": 0, "updated_at": at}
        for number in range(3):
            producer.produce("ebbs", json.dumps(reading | {"id": number}), partition=number % 2)
        producer.produce("ebbs", "torn", partition=0)
        assert producer.flush(60) == 0
        with session(settings, Account.STREAM) as connection:
            leases.acquire_lease(connection, "ebbs", 1, "a test")
            ledger.begin_at(connection, "ebbs", "ebbs", {0: 3, 1: 1})
        yield Ebbs(settings, DagBag(settings.root / "dags").dags["replay__ebbs"])


def test_a_replay_requested_by_form_is_run_and_reported(ebbs: Ebbs) -> None:
    """Its row has the requester; the result is that of the last task."""
    state, tasks, result = ebbs.run(kind="time", **{"from": "earliest"}, dry_run=False)
    assert (state, tasks) == ("success", dict.fromkeys(("request", "run", "report"), "success"))
    assert (result["records"], result["written"], result["quarantined"], result["retracted"]) == (4, 3, 1, 0)
    assert ebbs.query(f"SELECT id FROM {ebbs.settings.db_data}.ebbs ORDER BY id") == [(0,), (1,), (2,)]
    ((requested_by, replay_state),) = ebbs.query(
        f"SELECT requested_by, state FROM replays WHERE id = {result['replay']}"
    )
    assert requested_by.startswith("airflow: ")
    assert replay_state == "done"


@pytest.mark.parametrize(
    "form",
    [
        {"kind": "offsets", "offsets": "0-5"},
        {"kind": "offsets", "offsets": "0:0-5", "reason": "torn"},
        {"kind": "time"},
    ],
    ids=["no offsets", "two kinds", "nothing"],
)
def test_a_form_that_makes_no_sense_fails_at_once(ebbs: Ebbs, form: dict[str, Any]) -> None:
    """No job is started for it, it is not tried again, and nothing is written down."""
    before = ebbs.query("SELECT COUNT(*) FROM replays")
    state, tasks, _ = ebbs.run(**form)
    assert (state, tasks) == ("failed", {"request": "failed", "run": "upstream_failed", "report": "upstream_failed"})
    assert ebbs.query("SELECT COUNT(*) FROM replays") == before


def test_a_replay_is_a_dry_run_by_default(ebbs: Ebbs) -> None:
    """A slip of the finger changes nothing."""
    assert ebbs.dag.params["dry_run"] is True


def test_a_task_that_failed_for_good_closes_its_replay(ebbs: Ebbs) -> None:
    """With Airflow's reason, where the job could not give its own."""
    with session(ebbs.settings, Account.STREAM) as connection:
        replay_id = replays.request_replay(connection, "ebbs", 1, {}, "a test")
        task = SimpleNamespace(task_id="run", xcom_pull=lambda **which: replay_id)
        record_failure({"ti": task, "exception": ValueError("no Spark")})
        record_failure({"ti": task, "exception": ValueError("too late")})
        found = replays.read(connection, replay_id)
    assert (found.state, found.last_error) == ("failed", "run: no Spark")
