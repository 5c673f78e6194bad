"""The whole loop on real servers: what is in the end in the tables equals a computation that shares no code with it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support import expected
from support.faults import Supervised
from support.flights_rows import REFRESHES, Flown
from support.up_here import Up
from tidemill.config import Account
from tidemill.deploy import apply
from tidemill.devstack.airflow_api import AirflowApi
from tidemill.devstack.stack import Stack
from tidemill.devstack.up import switch_on
from tidemill.kafka import clients, topics
from tidemill.spec import load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import streams
from tidemill.testing import wait_until


@dataclass
class Trinity(Flown):
    """The running stack with the pipeline ``flights``."""

    api: AirflowApi

    def sent(self) -> int:
        """How many records are in the topic."""
        return sum(topics.offsets_at(self.client, "flights", "latest").values())

    def clear(self) -> None:
        """As if nothing had ever come: the stream stopped, tables and topic made anew."""
        assert apply.stop_streams(self.settings, 60) == []
        kept = ("migrations", "pipelines", "streams", "leases", "heartbeats", "models")
        with session(self.settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
            for schema in (self.settings.db_data, self.settings.db_control):
                cursor.execute(
                    "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
                    " AND table_type = 'BASE TABLE'",
                    (schema,),
                )
                for (table,) in cursor.fetchall():
                    if schema == self.settings.db_data or table not in kept:
                        cursor.execute(f"TRUNCATE TABLE {schema}.{table}")
        self.client.delete_topics(["flights"])["flights"].result(60)
        wait_until(lambda: "flights" not in self.client.list_topics(timeout=60).topics, 60, "topic deleted")
        topics.create_topic(self.client, self.pipeline.source)
        wait_until(lambda: "flights" in self.client.list_topics(timeout=60).topics, 60, "topic made anew")


@pytest.fixture(scope="module")
def running(airflow_stack: Stack) -> Iterator[Trinity]:
    """Everything up, DAGs switched on, the stream wished to run."""
    settings = airflow_stack.settings
    pipeline = load_pipeline(settings.pipelines / "flights")
    apply.apply_all(settings, [pipeline], print)
    with AirflowApi(settings) as api:
        switch_on(api, settings, [pipeline], print)
        yield Trinity(settings, pipeline, clients.admin(settings), api)
        apply.stop_streams(settings, 60)
        for dag in ("stream__flights", *(f"refresh__flights__{model}" for model in pipeline.models)):
            api.pause(dag)


@pytest.fixture
def trinity(running: Trinity) -> Trinity:
    """An empty pipeline whose stream is wanted."""
    running.clear()
    with session(running.settings, Account.STREAM) as connection:
        streams.request_state(connection, "flights", "running", apply.STACK)
    return running


def test_the_loop_turns_though_its_driver_is_killed(
    trinity: Trinity, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    """``up --until-scored`` exits with 0: table, rollup and ledger are exact; Airflow trained, scored and published.

    The feed is disturbed: duplicates, disorder and malformed records; and the driver dies of SIGKILL in mid-load.
    Airflow starts another. From the promotion on the stream scores what it writes. An undisturbed feed, of which there
    is too little, is in ``test_on_airflow.py``; ``up`` in a process of its own is in ``test_up.py``.
    """
    flights = 20_000
    wait_until(lambda: trinity.row().state == "running", 360, "stream running")
    # These are 22 days of flights, in 25 s: so slowly that the load is still under way when the driver is killed.
    chaos, speed = "duplicates=0.1,disorder=500,malformed=0.01", str(22 * 86_400 / 25)
    feeding = Up(monkeypatch, "--until-scored", "--limit", str(flights), "--speed", speed, "--chaos", chaos)
    feeding.start()
    wait_until(lambda: trinity.totals().commits, 180, "a commit")
    before = trinity.row()
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    at_death = trinity.sent()
    after: Any = wait_until(lambda: trinity.row().epoch > before.epoch and trinity.row(), 180, "another driver")
    assert after.desired_state == "running"
    wait_until(lambda: not feeding.is_alive(), 1200, "the first scores are published")
    said = capsys.readouterr()
    assert feeding.exit_code == 0, said
    assert "the first scores are published" in said.out
    assert trinity.sent() > at_death, "the driver died in mid-load"
    trinity.assert_exact(flights)
    total, sent = trinity.totals(), expected.sent(trinity.settings.kafka_bootstrap, "flights")
    assert (total.records, total.quarantined) == (sent["total"], sent["malformed"])
    assert sent["total"] - sent["malformed"] > expected.record_counts(flights)["total"], "some came twice"
    assert sent["malformed"] > 0
    assert total.written + total.stale == sent["total"] - sent["malformed"]
    assert (total.filtered, total.gap) == (0, 0)

    scored = trinity.table("flights_scored")
    departed = scored["departed_at"].notna()
    assert departed.sum() > 19_000
    assert scored.loc[departed, "score"].between(0, 1).all()
    assert scored.loc[~departed, "score"].isna().all()
    if pytestconfig.getoption("full"):
        _predicts_minutes(trinity)

    # With no further refresh the same driver scores what comes next.
    epoch = trinity.row().epoch
    late = {
        "id": 10**9, "status": "departed", "carrier": "UA", "flight": 1, "origin": "EWR", "dest": "ORD",
        "distance": 719, "scheduled_at": "2013-01-20T15:00:00Z", "departed_at": "2013-01-20T17:10:00Z",
        "dep_delay": 130, "updated_at": "2013-01-20T17:10:00Z",
    }  # fmt: skip
    producer = clients.producer(trinity.settings)
    producer.produce("flights", json.dumps(late), key=str(late["id"]))
    assert producer.flush(60) == 0
    trinity.wait_drained()
    scored = trinity.table(f"flights_scored WHERE id = {late['id']}")
    # A refresh that its schedule began may have trained before, on what there was then.
    with session(trinity.settings, Account.READ) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT champion_version FROM models WHERE pipeline = 'flights' AND model = 'late_arrival'")
        assert (scored.loc[0, "model_version"],) == cursor.fetchone()
    assert scored.loc[0, "score"] > 0.5
    assert trinity.row().epoch == epoch


def _predicts_minutes(trinity: Trinity) -> None:
    """The second model of the same table is a regression."""
    dag = REFRESHES[1]
    run = trinity.api.trigger(dag)
    assert trinity.api.wait_for_run(dag, run, 900)["state"] == "success", trinity.api.task_instances(dag, run)
    scored = trinity.table("flights_scored")
    departed = scored["departed_at"].notna()
    minutes = scored.loc[departed, ["dep_delay", "predicted_delay"]].astype(float)
    assert minutes["predicted_delay"].notna().all()
    assert minutes.corr().iloc[0, 1] > 0.9, "who leaves late arrives late"
    assert scored.loc[~departed, "predicted_delay"].isna().all()


def test_a_request_to_stop_ends_the_task_well(running: Trinity) -> None:
    """The driver has left, and the stream's task has succeeded. The last test: nothing starts the stream again."""
    supervised = Supervised(running.settings, running.api, "flights")
    epoch, task = supervised.row.epoch, supervised.until_deferred()
    supervised.request_state("stopped")
    supervised.until_state("stopped", epoch)
    wait_until(lambda: supervised.task(task["dag_run_id"])["state"] == "success", 180, "the task has succeeded")
