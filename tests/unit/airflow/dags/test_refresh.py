"""When a model's DAG runs, which tasks it has, and what Airflow's asset graph shows of it."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.sdk import AssetOrTimeSchedule

from support.paths import TIDES
from tidemill import config
from tidemill.airflow import assets
from tidemill.airflow.dags.refresh import refresh_dag, schedule
from tidemill.deploy.catalog import CatalogEntry
from tidemill.spec import load_pipeline
from tidemill.spec.schema import Approval, Model

PIPELINE = load_pipeline(TIDES)


def changed(part: str, **values: Any) -> Model:
    """The model ``flood`` with other values in one of its blocks."""
    model = PIPELINE.models["flood"]
    return model.model_copy(update={part: getattr(model, part).model_copy(update=values)})


def dag_of(model: Model) -> Any:
    """Its DAG."""
    pipeline = PIPELINE.model_copy(update={"models": {"flood": model}})
    return refresh_dag(config.load(), CatalogEntry(pipeline), "flood")


def test_a_schedule_alone_is_cron() -> None:
    """As the pipeline writes it."""
    assert schedule("tides", changed("score", schedule="@daily", after_commits=None)) == "@daily"


def test_commits_alone_are_an_asset_with_the_commit_trigger() -> None:
    """Its name has the stream and the number."""
    [asset] = schedule("tides", changed("score", schedule=None, after_commits=5))
    assert asset.uri == "x-tidemill://tides/commits/5"
    [watcher] = asset.watchers
    assert watcher.trigger.serialize() == (
        "tidemill.airflow.triggers.commit_events.CommitTrigger",
        {"stream": "tides", "commits": 5, "conn_id": "tidemill_db"},
    )


def test_with_schedule_and_commits_whichever_comes_first_starts_a_run() -> None:
    """The clock runs on beside the commits."""
    found = schedule("tides", changed("score", schedule="@daily", after_commits=5))
    assert isinstance(found, AssetOrTimeSchedule)
    assert [asset.uri for asset in found.asset_condition.objects] == ["x-tidemill://tides/commits/5"]


def test_a_person_is_asked_only_if_the_model_requires_it() -> None:
    """Between judging and scoring."""
    assert "approve" not in dag_of(changed("promotion", approval=Approval.AUTOMATIC)).task_ids
    dag = dag_of(changed("promotion", approval=Approval.MANUAL))
    assert dag.get_task("approve").upstream_task_ids == {"promote"}
    assert dag.get_task("approve").downstream_task_ids == {"score"}


def test_the_asset_graph_goes_from_table_to_model_to_scores() -> None:
    """Each task declares what it reads and writes."""
    dag = dag_of(PIPELINE.models["flood"])

    def of(task: str, which: str) -> set[str]:
        return {asset.uri.removeprefix("x-tidemill://tides/") for asset in getattr(dag.get_task(task), which)}

    assert (of("train", "inlets"), of("train", "outlets")) == ({"tables/tides"}, {"models/flood"})
    assert (of("score", "inlets"), of("score", "outlets")) == ({"tables/tides", "models/flood"}, set())
    assert (of("publish", "inlets"), of("publish", "outlets")) == (
        {"tables/tides", "models/flood"},
        {"scores/tide_scores"},
    )


def test_the_page_states_when_the_dag_runs_and_whether_a_person_is_asked() -> None:
    """In words."""
    model = changed("score", schedule="@daily", after_commits=5)
    assert "on the schedule `@daily` and each time the stream has made 5 commits" in dag_of(model).doc_md
    assert "| `approve` |" in dag_of(changed("promotion", approval=Approval.MANUAL)).doc_md
    assert "| `approve` |" not in dag_of(model).doc_md


def test_a_dataset_has_the_servers_name_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenLineage calls a table as MySQL does; a model lives in the control plane."""
    monkeypatch.setenv("TIDEMILL_DB_HOST", "db.example")
    monkeypatch.setenv("TIDEMILL_DB_PORT", "3306")
    monkeypatch.setenv("TIDEMILL_DB_STREAM_PASSWORD", "geheim")
    found = [assets.to_openlineage(each("tides", "x")) for each in (assets.table, assets.scores, assets.model)]
    assert [(each.namespace, each.name) for each in found] == [
        ("mysql://db.example:3306", "operational.x"),
        ("mysql://db.example:3306", "operational.x"),
        ("tidemill://db.example:3306/tidemill", "tides.x"),
    ]
    assert "geheim" not in repr(found)


def test_an_incomplete_asset_uri_is_rejected() -> None:
    """It would name nothing."""
    assert assets.sanitize_uri(urlsplit("x-tidemill://tides/models/flood")).netloc == "tides"
    with pytest.raises(ValueError, match="an asset URI of Tidemill has the form"):
        assets.sanitize_uri(urlsplit("x-tidemill://tides"))
