"""No pipeline's fault touches the DAGs of another one, at whatever step it is found."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.dag_processing.dagbag import DagBag

from support.paths import ROOT, TIDES
from tidemill.airflow.dags.maintenance import maintenance_dag
from tidemill.airflow.dags.pipelines import fail_on_rejected_pipelines
from tidemill.airflow.dags.refresh import refresh_dags
from tidemill.airflow.dags.replay import replay_dags
from tidemill.airflow.dags.stream import stream_dags
from tidemill.config import Settings
from tidemill.deploy import catalog, check_cache
from tidemill.errors import SpecError
from tidemill.spec.folder import digest_of

CONTENT: dict[str, Any] = yaml.safe_load((TIDES / "pipeline.yaml").read_text(encoding="utf-8"))
INTACT = {"stream__tides", "replay__tides", "refresh__tides__flood"}
FOR_ALL = {"maintenance", "control_streams", "control_models"}
NONSENSE = (
    *(None, "", " ", "x", 0, -1, 1e308, float("nan"), 10**30, True, [], {}, [[]], {"x": {"y": []}}, "\0", "\x1b[31m"),
    *("é" * 5000, "{{ 1 / 0 }}", "${HOME}", "'; DROP TABLE x; --", "../../etc/passwd", "(" * 3000, "a\nb", "* * * *"),
    *("@once", b"bytes", "2026-13-45"),
)
BUILDS = (stream_dags, replay_dags, refresh_dags)


@pytest.fixture
def project(own: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with the intact pipeline ``tides`` and a second one, ``ebbs``, that reads the same."""
    shutil.copytree(TIDES, tmp_path / "pipelines" / "tides")
    shutil.copytree(TIDES, tmp_path / "pipelines" / "ebbs")
    monkeypatch.setenv("TIDEMILL_STATE", str(tmp_path))
    monkeypatch.setenv("TIDEMILL_PIPELINES", str(tmp_path / "pipelines"))
    settings = own.model_copy(update={"pipelines": tmp_path / "pipelines"})
    write(settings, ebbs())
    return settings


def ebbs() -> dict[str, Any]:
    """The content of the second pipeline."""
    return {**copy.deepcopy(CONTENT), "name": "ebbs"}


def write(settings: Settings, content: Any) -> None:
    """Give the second pipeline this content."""
    text = yaml.safe_dump(content)
    (settings.pipelines / "ebbs" / "pipeline.yaml").write_text(text, encoding="utf-8")


def places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value of the file, blocks included."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*place, key)
        yield from places(value, (*place, key))


def test_a_fault_that_the_checks_did_not_find_is_named_and_touches_no_neighbour(project: Settings) -> None:
    """A schedule that Airflow refuses, in a pipeline that passed the checks of some version: the DAG files of this
    project give all other DAGs, and the import error names pipeline and file."""
    content = ebbs()
    content["models"]["flood"]["score"]["schedule"] = "*/10 * * *"
    write(project, content)
    folder = project.pipelines / "ebbs"
    entry = project.state / "checked" / check_cache._entry_name("ebbs", digest_of(folder))
    queries = {"flood": catalog.find_entry(project, "tides").pipeline.models["flood"].query}
    check_cache._write_entry(entry, content, queries)
    bag = DagBag(ROOT / "dags")
    assert set(bag.dags) == INTACT | {"stream__ebbs", "replay__ebbs"} | FOR_ALL
    [(file, message)] = bag.import_errors.items()
    assert file.endswith("rejected_pipelines.py")
    assert f"pipeline ebbs: {folder / 'pipeline.yaml'}" in message


def test_a_schedule_that_is_none_is_rejected_by_the_checks(project: Settings) -> None:
    """The same schedule, checked: the pipeline has no DAG, and its neighbours have all of theirs."""
    content = ebbs()
    content["models"]["flood"]["score"]["schedule"] = "*/10 * * *"
    write(project, content)
    bag = DagBag(ROOT / "dags")
    assert set(bag.dags) == INTACT | FOR_ALL
    [message] = bag.import_errors.values()
    assert "pipeline ebbs: [TM-SPEC-SCHEDULE]" in message


def test_two_pipelines_never_have_one_dag_id(project: Settings) -> None:
    """Two underscores separate pipeline and model, and a model's name has none of them."""
    content = ebbs()
    content["models"]["a__b"] = content["models"].pop("flood")
    write(project, content)
    with pytest.raises(SpecError, match="TM-SPEC-MODEL-NAME"):
        catalog.find_entry(project, "ebbs")


@pytest.mark.full
@pytest.mark.parametrize("place", list(places(CONTENT)), ids=lambda place: ".".join(map(str, place)))
def test_nonsense_in_any_field_touches_no_neighbour(project: Settings, place: tuple[Any, ...]) -> None:
    """The pipeline is rejected with a sentence, or it has valid DAGs; its neighbour has all of its own."""
    for value in NONSENSE:
        content = ebbs()
        block = content
        for key in place[:-1]:
            block = block[key]
        block[place[-1]] = value
        write(project, content)
        entries = {entry.pipeline.name: entry for entry in catalog.read_catalog(project)}
        assert "tides" in entries
        built = {dag.dag_id for build in BUILDS for dag in build(project, entries["tides"])}
        assert built == INTACT
        maintenance_dag(entry.pipeline for entry in entries.values()).validate()
        if "ebbs" in entries:
            fail_on_rejected_pipelines(project, BUILDS)
        else:
            [sentence] = catalog.list_rejections(project)
            assert sentence.startswith("pipeline ebbs: [TM-SPEC-")
            assert "TM-SPEC-CHECK-FAILED" not in sentence or value == "(" * 3000, sentence
