"""The branches of a refresh: each ends in a state that people see, with a sentence where something is wrong.

The jobs that need Spark are replaced, except where the branch is about them; they run in ``test_runs.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from typer.testing import CliRunner

from support.refreshes import SUBMIT, Jobs, Surges, answer, answered, everything, surges_in
from tidemill import config
from tidemill.airflow import approval
from tidemill.airflow.dags import refresh_tasks
from tidemill.airflow.triggers import approval as approval_trigger
from tidemill.cli import main as cli
from tidemill.config import Account, Settings
from tidemill.deploy.apply import apply_all
from tidemill.errors import DatabaseUnavailable
from tidemill.ml.refresh import begin_refresh, end_refresh
from tidemill.ml.registry.history import waiting_version
from tidemill.ml.registry.promotion import promote_or_reject
from tidemill.spec import Pipeline, load_pipelines
from tidemill.store.connection import session
from tidemill.store.control.streams import request_state
from tidemill.testing import wait_until


@pytest.fixture(scope="module")
def applied(connections: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Surges]]:
    """Gives the pipeline as it promotes automatically or by a person; the database is one."""
    made: dict[str, tuple[Settings, Pipeline]] = {}
    last: list[str] = []
    with pytest.MonkeyPatch.context() as patch:

        def give(promote: str) -> Surges:
            if promote not in made:
                folder = tmp_path_factory.mktemp(promote)
                surges_in(folder, promotion={"approval": promote})
                patch.setenv("TIDEMILL_PIPELINES", str(folder))
                made[promote] = config.load(), load_pipelines(folder)["surges"]
            settings, pipeline = made[promote]
            if last != [promote]:  # what was applied last is what counts
                apply_all(settings, [pipeline], lambda line: None)
                last[:] = [promote]
            patch.setenv("TIDEMILL_PIPELINES", str(settings.pipelines))
            # Read anew for each test: a test run leaves its form and its retries in the DAG.
            bag = DagBag(settings.root / "dags" / "refreshes.py")
            assert bag.import_errors == {}
            dag = bag.dags["refresh__surges__flood"]
            for task in dag.tasks:
                task.retries, task.retry_delay = 0, timedelta(0)
            return Surges(settings, pipeline, dag)

        yield give


def clear(surges: Surges) -> None:
    """Nothing was committed, trained or decided."""
    for table in ("evaluations", "decisions", "drift", "refreshes", "model_versions", "incidents"):
        surges.query(f"DELETE FROM {table}")
    for table in ("commits", "streams", "leases", "heartbeats"):
        surges.query(f"DELETE FROM {table} WHERE stream = 'surges'")
    surges.query("UPDATE models SET champion_version = NULL, published_version = NULL WHERE pipeline = 'surges'")
    for table in ("surges", "surge_scores"):
        surges.query(f"DELETE FROM `{surges.settings.db_data}`.{table}")


@pytest.fixture
def surges(applied: Callable[[str], Surges], request: pytest.FixtureRequest) -> Surges:
    """The pipeline, new; promoted by measure unless the test requests otherwise."""
    found = applied(getattr(request, "param", "automatic"))
    clear(found)
    return found


@pytest.fixture
def jobs(surges: Surges, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """The replacement of Spark."""
    replacement = Jobs(surges)
    monkeypatch.setattr(SUBMIT, replacement.replacement())
    monkeypatch.setattr(approval_trigger, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(approval_trigger, "get_hitl_detail_content_detail", answered)
    return replacement


@pytest.fixture
def beside() -> Iterator[Callable[..., Future[Any]]]:
    """Runs something in a thread while the test runs a DAG."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


manual = pytest.mark.parametrize("surges", ["manual"], indirect=True)
SKIPPED = dict.fromkeys(("train", "promote", "score", "publish"), "skipped")
STOPPED = dict.fromkeys(("train", "promote", "score", "publish"), "upstream_failed")


def test_nothing_new_skips_everything(surges: Surges, jobs: Jobs) -> None:
    """Neither before the first commit nor after scores of the newest one were published."""
    assert surges.run() == {"decide": "success", **SKIPPED}
    surges.published()
    assert surges.run() == {"decide": "success", **SKIPPED}
    assert [state for state, _ in surges.refreshes()] == ["published"]


def test_a_stale_stream_fails_with_a_sentence(surges: Surges, jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """After it was waited for; no refresh is opened."""
    surges.commit()
    with session(surges.settings, Account.STREAM) as connection:
        request_state(connection, "surges", "running", "a test")
    assert surges.run() == {"decide": "failed", **STOPPED}
    assert surges.refreshes() == []
    assert jobs.ran == []


def test_a_better_challenger_is_promoted_scores_and_is_published(surges: Surges, jobs: Jobs) -> None:
    """As is the first one that is better than the baseline."""
    surges.published()
    jobs.metric = 0.9
    assert surges.run(force=True) == everything()
    assert surges.pointers() == (2, 2)
    assert surges.decisions() == [(1, "promoted", "measure"), (2, "promoted", "measure")]


def test_a_worse_challenger_is_rejected_and_the_champion_scores(surges: Surges, jobs: Jobs) -> None:
    """Readers see nothing of the challenger."""
    surges.published()
    jobs.metric = 0.7
    surges.commit()
    assert surges.run(force=True) == everything()
    assert surges.pointers() == (1, 1)
    assert surges.decisions()[-1] == (2, "rejected", "measure")


def test_a_first_challenger_below_the_baseline_ends_the_run_without_scores(surges: Surges, jobs: Jobs) -> None:
    """There is no champion to score with; the reason is in the row of the refresh."""
    jobs.metric = 0.5
    surges.commit()
    assert surges.run() == everything(score="skipped", publish="skipped")
    [(state, reason)] = surges.refreshes()
    assert state == "skipped"
    assert "baseline" in str(reason)


def test_what_the_form_asks_for_reaches_the_jobs_and_implies_training(surges: Surges, jobs: Jobs) -> None:
    """Though nothing was committed since the last publication."""
    surges.published()
    assert surges.run(train_from="2026-01-02", parameters={"maxIter": 3}) == everything()
    [(options,)] = surges.query("SELECT options FROM refreshes ORDER BY id DESC LIMIT 1")
    assert options == '{"from": "2026-01-02", "until": null, "parameters": {"maxIter": 3}}'


def test_a_form_that_makes_no_sense_is_not_tried_again(surges: Surges, jobs: Jobs) -> None:
    """However many tries there are."""
    surges.commit()
    decide = surges.dag.get_task("decide")
    decide.retries, decide.retry_delay = 8, timedelta(minutes=5)
    assert surges.run(train_from="the day before") == {"decide": "failed", **STOPPED}
    assert surges.refreshes() == []


def test_drift_fails_the_task_at_once_and_names_the_feature(surges: Surges, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real job: nothing is scored, the refresh is refused, an incident is open, and no other try is made."""
    jobs = Jobs(surges)
    with monkeypatch.context() as patch:
        patch.setattr(SUBMIT, jobs.replacement())
        surges.published()
    low = '{"height": {"kind": "number", "edges": [10, 20], "shares": [0.5, 0.4, 0.1, 0.0]}}'
    surges.query("UPDATE model_versions SET training_distribution = %s WHERE pipeline = 'surges'", low)
    surges.commit(rows=60, height=90)
    score = surges.dag.get_task("score")
    score.retries, score.retry_delay = 3, timedelta(minutes=5)
    ended = surges.run()
    assert ended == everything(train="skipped", promote="skipped", score="failed", publish="upstream_failed")
    state, reason = surges.refreshes()[-1]
    assert state == "refused"
    assert "height" in str(reason)
    assert surges.query("SELECT subject, kind FROM incidents WHERE closed_at IS NULL") == [
        ("model surges.flood", "drift")
    ]
    assert surges.run() == {"decide": "success", **SKIPPED}, "the same rows would be refused again"


@manual
def test_a_person_promotes_what_waits(surges: Surges, jobs: Jobs, beside: Callable[..., Future[Any]]) -> None:
    """Only then it becomes champion, and the decision names him."""
    answering = beside(answer, surges.dag, "Promote", "ada")
    surges.commit()
    assert surges.run() == everything(approve="success")
    answering.result()
    assert surges.pointers() == (1, 1)
    [(version, waited, by), (same, promoted, person)] = surges.decisions()
    assert (version, waited, by) == (1, "waiting", "measure")
    assert (same, promoted) == (1, "promoted")
    assert person.startswith("airflow: ada, ")


@manual
def test_a_person_rejects_what_waits_and_the_champion_scores(
    surges: Surges, jobs: Jobs, beside: Callable[..., Future[Any]]
) -> None:
    """Readers go on seeing the champion's scores, of the new rows as well. Without a champion no rows are scored."""
    answering = beside(answer, surges.dag, "Reject", "grace")
    surges.commit()
    assert surges.run() == everything(approve="success", score="skipped", publish="skipped")
    answering.result()
    assert surges.refreshes()[-1][0] == "skipped"
    answering = beside(answer, surges.dag, "Promote", "ada")
    surges.commit()
    assert surges.run() == everything(approve="success")
    answering.result()
    jobs.metric = 0.9
    answering = beside(answer, surges.dag, "Reject", "grace")
    surges.commit()
    assert surges.run(force=True) == everything(approve="success")
    answering.result()
    assert surges.pointers() == (2, 2)
    version, verdict, by = surges.decisions()[-1]
    assert (version, verdict, by.split(",")[0]) == (3, "rejected", "airflow: grace")


@manual
def test_an_answer_by_command_lets_the_run_go_on(
    surges: Surges, jobs: Jobs, beside: Callable[..., Future[Any]]
) -> None:
    """The question in Airflow is answered as well."""

    def by_command() -> str:
        def waits() -> bool:
            with session(surges.settings, Account.READ) as connection:
                return waiting_version(connection, "surges", "flood") is not None

        wait_until(waits, 60, "a version waits")
        # A process of its own: this one's output belongs to the run, which goes on beside it.
        command = [sys.executable, "-m", "tidemill", "models", "approve", "surges.flood"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    approved = beside(by_command)
    surges.commit()
    assert surges.run() == everything(approve="success")
    assert approved.result().endswith("surges.flood: version 1 is champion; its refresh scores and publishes\n")
    assert surges.decisions()[-1][2].endswith(" by command")


@manual
def test_a_question_without_an_answer_in_time_is_a_rejection(
    surges: Surges, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision states it."""
    monkeypatch.setattr(approval, "WAIT_DAYS", 0)
    surges.commit()
    assert surges.run() == everything(approve="success", score="skipped", publish="skipped")
    version, verdict, by = surges.decisions()[-1]
    assert (version, verdict) == (1, "rejected")
    assert by.startswith("airflow: no answer within 0 days")


@manual
def test_a_challenger_that_is_no_better_asks_no_person(surges: Surges, jobs: Jobs) -> None:
    """The task is skipped, and there is nothing to answer."""
    jobs.metric = 0.5
    surges.commit()
    assert surges.run() == everything(approve="skipped", score="skipped", publish="skipped")


def test_a_crash_between_scoring_and_publishing_is_made_up_for_by_a_retry(
    surges: Surges, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores that waited are published, and nothing is scored again."""
    real, crashes = refresh_tasks.publish_refresh, iter([True, False])

    def publish(*arguments: Any) -> int:
        if next(crashes):
            raise DatabaseUnavailable("TM-STORE-UNAVAILABLE", value="the connection was lost")
        return real(*arguments)

    monkeypatch.setattr(refresh_tasks, "publish_refresh", publish)
    task = surges.dag.get_task("publish")
    task.retries = 1
    surges.commit()
    assert surges.run() == everything()
    assert surges.pointers() == (1, 1)
    assert jobs.ran == ["train", "score"]


def test_a_run_is_refused_while_another_refreshes_the_model(surges: Surges, jobs: Jobs) -> None:
    """One by hand, which Airflow does not know; when it has ended the next run goes through."""
    surges.commit()
    with session(surges.settings, Account.STREAM) as connection:
        by_hand = begin_refresh(connection, surges.pipeline, "flood", "by hand")
        assert surges.run() == {"decide": "failed", **STOPPED}
        end_refresh(connection, by_hand, "skipped")
    assert surges.run() == everything()


def test_what_an_ended_run_left_open_is_closed_by_the_next(surges: Surges, jobs: Jobs) -> None:
    """A person marked it failed: none of its tasks was there to close it."""
    surges.commit()
    ended = surges.dag.test()
    surges.query("UPDATE refreshes SET state = 'running' WHERE run = %s", ended.run_id)
    surges.commit()
    assert surges.run()["publish"] == "success"
    assert [state for state, _ in surges.refreshes()] == ["failed", "published"]
    assert surges.refreshes()[0][1] == f"its run {ended.run_id} has ended"


def test_a_run_that_failed_without_a_word_of_its_task_closes_its_refresh(surges: Surges) -> None:
    """Its worker was killed: the DAG's own callback closes it. A refresh of another run stays open."""
    with session(surges.settings, Account.STREAM) as connection:
        begin_refresh(connection, surges.pipeline, "flood", "a killed run")
    callback = refresh_tasks.RecordRunFailure("surges", "flood")
    callback({"run_id": "another run", "reason": "task_failure"})
    assert surges.refreshes() == [("running", None)]
    callback({"run_id": "a killed run", "reason": "task_failure"})
    assert surges.refreshes() == [("failed", "its run failed: task_failure")]


def test_a_cleared_step_opens_its_refresh_again(surges: Surges, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person has cleared ends as published, and not as the failure before."""
    jobs.failing["score"] = "Cannot execute: x. Error code is: 5.\ntidemill: the connection was lost"
    surges.commit()
    assert surges.run()["score"] == "failed"
    assert surges.refreshes() == [("failed", "score: the connection was lost")]
    jobs.failing.clear()
    [(refresh_id,)] = surges.query("SELECT id FROM refreshes")

    class Ti:
        run_id, dag_id, task_id = "a run", surges.dag.dag_id, "publish"

        def xcom_pull(self, **which: str) -> int:
            return int(refresh_id)

    score = surges.dag.get_task("score")
    score.refresh = str(refresh_id)
    score.execute({"ti": Ti()})
    refresh_tasks.publish("surges", "flood", ti=Ti())
    assert [state for state, _ in surges.refreshes()] == ["published"]


def control(surges: Surges, **form: Any) -> str:
    """Run ``control_models`` with its form; the state it ends in."""
    bag = DagBag(surges.settings.root / "dags" / "control_models.py")
    dag = bag.dags["control_models"]
    dag.get_task("apply_decision").retries = 0
    return str(dag.test(run_conf={"model": "surges.flood", "version": None, **form}).state)


@manual
def test_the_form_of_control_models_answers_for_what_waits(surges: Surges, jobs: Jobs) -> None:
    """As the command does; where nothing waits it is red, and nothing changes."""
    with session(surges.settings, Account.STREAM) as connection:
        for number, action in enumerate(("approve", "reject")):
            jobs.metric = 0.9
            refresh_id = begin_refresh(connection, surges.pipeline, "flood", action)
            jobs.train(connection, refresh_id)
            assert promote_or_reject(connection, surges.pipeline, "flood", refresh_id).waiting
            end_refresh(connection, refresh_id, "skipped")
            assert control(surges, action=action) == "success"
            assert surges.decisions()[-1][:2] == (number + 1, {"approve": "promoted", "reject": "rejected"}[action])
            assert surges.decisions()[-1][2].startswith("airflow: ")
    assert control(surges, action="approve") == "failed"
    assert surges.pointers()[0] == 1


def test_a_rollback_by_form_and_by_command_is_at_once(surges: Surges, jobs: Jobs) -> None:
    """Champion and published version move together; who did it is in the decisions."""
    surges.published()
    jobs.metric = 0.9
    surges.run(force=True)
    for version in (1, 2):
        surges.query(
            f"INSERT INTO `{surges.settings.db_data}`.surge_scores"
            " (id, model_version, score, scored_commit, as_of_commit) VALUES (1, %s, 0.5, 1, 1)",
            version,
        )
    assert control(surges, action="rollback") == "success"
    assert surges.pointers() == (1, 1)
    run = CliRunner().invoke(cli.app, ["models", "rollback", "surges.flood", "--to", "2"], catch_exceptions=False)
    assert run.output.endswith("surges.flood: version 2 is champion and published\n")
    assert surges.pointers() == (2, 2)
    (_, verdict, form), (_, same, command) = surges.decisions()[-2:]
    assert verdict == same == "rolled back"
    assert form.startswith("airflow: ")
    assert command.endswith(" by command")


def test_a_model_is_shown_with_its_measures_and_its_decisions(surges: Surges, jobs: Jobs) -> None:
    """By command, as lines and as facts; the newest version first."""
    surges.published()
    jobs.metric = 0.7
    surges.run(force=True)
    surges.query("INSERT INTO drift SELECT MAX(id), 'height', 0.3, 0.25, 900 FROM refreshes")
    shown = CliRunner().invoke(cli.app, ["models", "show", "surges.flood"], catch_exceptions=False).output.splitlines()
    assert shown[0] == "surges.flood: champion 1, published 1"
    assert shown[1].startswith("version 2, rejected: trained ")
    assert shown[2] == "  areaUnderROC 0.7; champion 0.8, baseline 0.6"
    assert shown[4] == "  areaUnderROC 0.8; baseline 0.6"
    assert shown[5:7] == ["drift (PSI) of 900 new rows:", "  height 0.300 (limit 0.25), exceeded"]
    assert "version 2 rejected by measure" in shown[8]
    facts = CliRunner().invoke(cli.app, ["models", "show", "surges.flood", "--json"], catch_exceptions=False).output
    assert [each["version"] for each in json.loads(facts)["versions"]] == [2, 1]
    models = json.loads(CliRunner().invoke(cli.app, ["models", "--json"], catch_exceptions=False).output)
    [listed] = [each for each in models if each["pipeline"] == "surges"]
    assert (listed["model"], listed["champion_version"]) == ("flood", 1)
