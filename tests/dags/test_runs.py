"""Both kinds of DAG, run from end to end on real Kafka, MariaDB and Spark."""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG

from tidemill.airflow.dags.refresh_tasks import record_failure
from tidemill.config import Account, Settings
from tidemill.kafka import clients
from tidemill.ml.refresh import begin_refresh, end_refresh
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import ledger, streams
from tidemill.store.write import ledger_rows
from tidemill.supervisor.launcher import is_gone
from tidemill.testing import wait_until

READINGS = 2_000


@pytest.fixture(scope="module")
def dags(tides: tuple[Settings, Pipeline]) -> dict[str, DAG]:
    """The DAGs of the pipeline."""
    bag = DagBag(tides[0].root / "dags")
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture(scope="module")
def readings(tides: tuple[Settings, Pipeline]) -> int:
    """Readings of ten days in Kafka, whose floods follow the height and hardly the wind; returns how many."""
    settings, pipeline = tides
    chance = random.Random(7)
    producer = clients.producer(settings)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(READINGS):
        at = (start + timedelta(minutes=7 * number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        height, wind = chance.randint(0, 100), chance.randint(0, 100)
        reading = {
            "id": number,
            "station": chance.choice(["north", "south", "west"]),
            "read_at": at,
            "height": height,
            "wind": wind,
            "flooded": int(height + 0.2 * wind + chance.gauss(0, 10) > 70),
            "updated_at": at,
        }
        producer.produce(pipeline.source.topic, json.dumps(reading), key=str(number))
        producer.poll(0)
    assert producer.flush(60) == 0
    return READINGS


@pytest.fixture
def beside() -> Iterator[Callable[[Callable[[], None]], Future[None]]]:
    """Runs something in a thread while the test runs a DAG; what fails there fails the test."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


def states(run: Any) -> dict[str, str]:
    """The state of each task of a run."""
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def request_state(settings: Settings, desired_state: str) -> None:
    """Request a state of the stream."""
    with session(settings, Account.STREAM) as connection:
        streams.request_state(connection, "tides", desired_state, "a test")


def test_the_stream_is_started_loads_everything_and_is_stopped(
    tides: tuple[Settings, Pipeline],
    dags: dict[str, DAG],
    readings: int,
    beside: Callable[[Callable[[], None]], Future[None]],
) -> None:
    """The run lasts until the stop request, and leaves no driver behind."""
    settings, _ = tides
    request_state(settings, "running")

    def stop_when_loaded() -> None:
        try:
            with session(settings, Account.READ) as connection:
                wait_until(lambda: ledger.totals(connection, "tides").records >= readings, 450, "all are committed")
        finally:
            request_state(settings, "stopped")

    loading = beside(stop_when_loaded)
    run = dags["stream__tides"].test()
    loading.result()
    assert str(run.state) == "success"
    assert states(run) == {"await_start_request": "success", "prepare": "success", "run": "success"}
    with session(settings, Account.READ) as connection:
        row = streams.read_stream(connection, "tides")
        assert row is not None
        assert (row.epoch, row.state, row.failures_in_a_row) == (1, "stopped", 0)
        assert is_gone(row)
        assert ledger.totals(connection, "tides").written == readings


@pytest.fixture(scope="module")
def refreshed(tides: tuple[Settings, Pipeline], dags: dict[str, DAG]) -> dict[str, str]:
    """The task states of the first refresh of all."""
    return states(dags["refresh__tides__flood"].test())


def test_a_first_refresh_trains_judges_scores_and_publishes(
    tides: tuple[Settings, Pipeline], refreshed: dict[str, str], readings: int
) -> None:
    """Afterwards each row of the table has a score of the champion, and the champion beat the baseline."""
    settings, _ = tides
    assert refreshed == dict.fromkeys(("decide", "train", "promote", "score", "publish"), "success")
    with session(settings, Account.READ) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT champion_version, published_version FROM models WHERE pipeline = 'tides'")
        assert cursor.fetchone() == (1, 1)
        cursor.execute("SELECT state, scored_rows FROM refreshes WHERE pipeline = 'tides'")
        assert cursor.fetchone() == ("published", readings)
        cursor.execute(
            "SELECT version, value FROM evaluations WHERE metric = 'areaUnderROC' AND refresh_id IN"
            " (SELECT id FROM refreshes WHERE pipeline = 'tides') ORDER BY version"
        )
        (_, baseline), (_, champion) = cursor.fetchall()
        assert champion > baseline + 0.2
        cursor.execute(f"SELECT COUNT(*), COUNT(score) FROM {settings.db_data}.tides_scored")
        assert cursor.fetchone() == (readings, readings)


def test_a_refresh_without_new_commits_skips_everything(dags: dict[str, DAG], refreshed: dict[str, str]) -> None:
    """Nothing was committed since: no Spark is started."""
    assert refreshed["publish"] == "success"
    run = dags["refresh__tides__flood"].test()
    assert str(run.state) == "success"
    rest = dict.fromkeys(("train", "promote", "score", "publish"), "skipped")
    assert states(run) == {"decide": "success", **rest}


@pytest.mark.full
def test_a_refresh_after_a_commit_only_scores_as_long_as_no_training_is_due(
    tides: tuple[Settings, Pipeline], dags: dict[str, DAG], refreshed: dict[str, str]
) -> None:
    """The champion scores and what it scored is published, past the skipped training."""
    assert refreshed["publish"] == "success"
    settings, _ = tides
    with session(settings, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO commits (stream, epoch, pipeline_version, batch_id, topic, partition_id, from_offset,"
            " until_offset) VALUES ('tides', 1, 1, 999, 'tides', 0, 0, 0)"
        )
        ledger_rows.add_to_sums(connection, int(cursor.lastrowid))
    run = dags["refresh__tides__flood"].test()
    assert states(run) == {
        "decide": "success", "train": "skipped", "promote": "skipped", "score": "success", "publish": "success",
    }  # fmt: skip


def test_force_requests_training_regardless_of_the_schedule(
    tides: tuple[Settings, Pipeline], dags: dict[str, DAG], refreshed: dict[str, str]
) -> None:
    """The form of the DAG offers it."""
    assert refreshed["publish"] == "success"
    run = dags["refresh__tides__flood"].test(
        run_conf={"force": True}, mark_success_pattern="train|promote|score|publish"
    )
    assert states(run)["train"] == "success"
    assert states(run)["decide"] == "success"
    with session(tides[0], Account.STREAM) as connection, connection.cursor() as cursor:
        # None of its tasks was carried out, so none has closed it.
        cursor.execute("SELECT id FROM refreshes WHERE pipeline = 'tides' AND state = 'running'")
        [(left,)] = cursor.fetchall()
        end_refresh(connection, left, "skipped")


def test_a_task_that_failed_for_good_closes_its_refresh_with_the_reason(
    tides: tuple[Settings, Pipeline], refreshed: dict[str, str]
) -> None:
    """A refresh without a task that works on it is not left open."""
    assert refreshed["publish"] == "success"
    settings, pipeline = tides
    with session(settings, Account.STREAM) as connection, connection.cursor() as cursor:
        refresh_id = begin_refresh(connection, pipeline, "flood", "a run that fails")
        task = SimpleNamespace(task_id="train", xcom_pull=lambda **which: refresh_id)
        record_failure({"ti": task, "exception": ValueError("no rows")})
        cursor.execute("SELECT state, reason FROM refreshes WHERE id = %s", (refresh_id,))
        assert cursor.fetchone() == ("failed", "train: no rows")
