"""Pipelines as they were applied last or, where nothing was applied, as their folders are; and what is cached."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.paths import TIDES
from tidemill import spec
from tidemill.config import Settings
from tidemill.deploy import catalog, check_cache, snapshots
from tidemill.deploy.catalog import find_entry, list_rejections
from tidemill.deploy.check_cache import load_cached
from tidemill.errors import SpecError
from tidemill.spec import Pipeline, load_pipeline
from tidemill.spec.checks import pipeline as checks_of_pipeline


@pytest.fixture
def project(own: Settings, tmp_path: Path) -> Settings:
    """Settings with a folder of pipelines that holds ``tides``."""
    shutil.copytree(TIDES, tmp_path / "pipelines" / "tides")
    return own.model_copy(update={"pipelines": tmp_path / "pipelines"})


def edit(settings: Settings, file: str, change: Callable[[str], str]) -> None:
    """Change a file of the pipeline ``tides``."""
    path = settings.pipelines / "tides" / file
    path.write_text(change(path.read_text()))


def break_it(settings: Settings) -> None:
    """Misspell a key."""
    edit(settings, "pipeline.yaml", lambda text: text + "rollpus: {}\n")


def test_a_broken_folder_gives_way_to_the_version_applied_last(project: Settings) -> None:
    """The DAGs go on with it; what is wrong with the folder is said once, and that the version goes on."""
    before = load_pipeline(project.pipelines / "tides")
    snapshots.save_snapshot(project, before, 3)
    break_it(project)
    [found] = catalog.read_catalog(project)
    assert found.pipeline.digest == before.digest
    assert "did you mean rollups?" in found.rejection
    assert found.rejection.endswith("version 3, applied last, stays in use")
    assert list_rejections(project) == [f"pipeline tides: {found.rejection}"]


def test_a_broken_folder_that_was_never_applied_is_left_out_and_told(project: Settings) -> None:
    """Nothing of it is known to be right."""
    break_it(project)
    assert list(catalog.read_catalog(project)) == []
    [sentence] = list_rejections(project)
    assert sentence.startswith("pipeline tides: [TM-SPEC-KEY-UNKNOWN] unknown key")
    with pytest.raises(SpecError) as caught:
        find_entry(project, "tides")
    assert caught.value.code == "TM-SPEC-KEY-UNKNOWN"


EDITS: dict[str, Callable[[Settings], None]] = {
    "a schedule": lambda settings: edit(settings, "pipeline.yaml", lambda text: text.replace("@daily", "@hourly")),
    "an owner": lambda settings: edit(settings, "pipeline.yaml", lambda text: text.replace("owner: ", "owner: the_")),
    "a column": lambda settings: edit(settings, "transform.sql", lambda text: text.replace("height", "level")),
    "features": lambda settings: edit(settings, "features.sql", lambda text: text + "\n-- another\n"),
    "a broken file": break_it,
    "no YAML": lambda settings: edit(settings, "pipeline.yaml", lambda text: "name: ["),
    "a removed file": lambda settings: (settings.pipelines / "tides" / "transform.sql").unlink(),
    "a removed folder": lambda settings: shutil.rmtree(settings.pipelines / "tides"),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_no_edit_counts_before_it_is_applied(project: Settings, change: Callable[[Settings], None]) -> None:
    """DAGs are built from what was applied last, whatever the folder holds; once it is applied, the edit counts."""
    before = load_pipeline(project.pipelines / "tides")
    copy = snapshots.save_snapshot(project, before, 3)
    change(project)
    [found] = catalog.read_catalog(project)
    assert found.pipeline == before.model_copy(update={"folder": copy})
    [sentence] = snapshots.unapplied_changes(project, found.pipeline, 3)
    assert sentence.startswith("version 3 of tides, which was applied last, stays in use")
    try:
        edited = load_pipeline(project.pipelines / "tides")
    except SpecError:
        return
    snapshots.save_snapshot(project, edited, 4)
    [found] = catalog.read_catalog(project)
    assert found.pipeline.digest == edited.digest != before.digest
    assert snapshots.unapplied_changes(project, found.pipeline, 4) == []


def test_a_pipeline_is_retired_by_removing_its_folder_and_its_copies(project: Settings) -> None:
    """One of the two alone keeps it; a folder without a copy is a pipeline that was not applied here yet."""
    snapshots.save_snapshot(project, load_pipeline(project.pipelines / "tides"), 3)
    kept = project.pipelines / "kept"
    (project.pipelines / "tides").rename(kept)
    assert [found.pipeline.name for found in catalog.read_catalog(project)] == ["tides"]
    shutil.rmtree(project.state / "applied" / "tides")
    kept.rename(project.pipelines / "tides")
    assert [found.pipeline.folder for found in catalog.read_catalog(project)] == [project.pipelines / "tides"]
    shutil.rmtree(project.pipelines / "tides")
    assert list(catalog.read_catalog(project)) == []


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"name: [", b"- a list\n", b""], ids=str)
def test_whatever_a_folder_holds_the_others_are_not_taken_away(project: Settings, content: bytes) -> None:
    """Neither by bytes that are no text nor by what is no YAML."""
    other = project.pipelines / "surges"
    other.mkdir()
    (other / "pipeline.yaml").write_bytes(content)
    assert [found.pipeline.name for found in catalog.read_catalog(project)] == ["tides"]
    assert len(list_rejections(project)) == 1


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pipelines that were taken apart, in order."""
    seen: list[str] = []

    def watch(pipeline: Pipeline) -> Pipeline:
        seen.append(pipeline.name)
        return checks_of_pipeline.check_pipeline(pipeline)

    monkeypatch.setattr(check_cache, "check_pipeline", watch)
    return seen


def test_a_folder_is_taken_apart_once_for_each_content(project: Settings, checks: list[str]) -> None:
    """What is remembered says the same as the folder, which is another one when a byte of it changes."""
    folder = project.pipelines / "tides"
    first, again = load_cached(project, folder), load_cached(project, folder)
    assert checks == ["tides"]
    assert first == again == load_pipeline(folder)
    edit(project, "pipeline.yaml", lambda text: text.replace("owner: ", "owner: the_", 1))
    assert load_cached(project, folder).owner != first.owner
    assert checks == ["tides", "tides"]


def test_what_is_wrong_is_never_remembered_as_right(project: Settings, checks: list[str]) -> None:
    """Neither the second time nor when another file of the folder changes what was right."""
    folder = project.pipelines / "tides"
    load_cached(project, folder)
    [sql] = {table.from_ for table in load_pipeline(folder).tables.values()}
    edit(project, sql, lambda text: text + "\nGROUP BY 1\n")
    for _ in range(2):
        with pytest.raises(SpecError):
            load_cached(project, folder)
    assert len(checks) == 3


def test_what_json_cannot_say_is_not_remembered_as_something_else(project: Settings, checks: list[str]) -> None:
    """A day is a day in YAML and a text in JSON."""
    folder = project.pipelines / "tides"
    edit(project, "pipeline.yaml", lambda text: text + "resources: {conf: {spark.some.flag: true, spark.number: 7}}\n")
    assert load_cached(project, folder) == load_cached(project, folder) == load_pipeline(folder)
    assert checks == ["tides"]
    for said in ("2026-03-01", "{1: 2}"):
        check_cache._write_entry(project.state / "checked" / "x", yaml.safe_load(f"start: {said}"), {})
        assert not (project.state / "checked" / "x").exists()


def test_a_damaged_cache_entry_is_ignored(project: Settings, checks: list[str]) -> None:
    """The folder is checked again, and the entry is written again."""
    folder = project.pipelines / "tides"
    load_cached(project, folder)
    [entry] = (project.state / "checked").iterdir()
    for torn in (b"", b'{"name": "ti', b"\xff", b"[]", b"{}", b'{"content": [], "queries": {"flood": {}}}'):
        entry.write_bytes(torn)
        assert load_cached(project, folder) == load_cached(project, folder) == load_pipeline(folder)
    assert len(checks) == 7


def test_a_folder_is_checked_again_by_another_version_of_the_checks(
    project: Settings, checks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was right for one version of the code or of the parser may not be for the next."""
    folder = project.pipelines / "tides"
    load_cached(project, folder)
    monkeypatch.setattr(check_cache, "_checker_digest", lambda: "another")
    load_cached(project, folder)
    assert checks == ["tides", "tides"]


def test_the_version_of_the_checks_is_the_code_of_every_module_of_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of those in its sub-packages, where most checks are."""
    copy = tmp_path / "spec"
    shutil.copytree(spec.__path__[0], copy)
    monkeypatch.setattr(spec, "__path__", [str(copy)])
    digest = check_cache._checker_digest.__wrapped__
    before = digest()
    (copy / "checks" / "tables.py").write_text("# another rule\n")
    assert digest() != before


def test_a_folder_that_is_saved_while_it_is_read_is_not_remembered(
    project: Settings, checks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finding would be of another content than it is named by."""
    folder = project.pipelines / "tides"
    really = checks_of_pipeline.check_pipeline

    def save_meanwhile(pipeline: Pipeline) -> Pipeline:
        checked = really(pipeline)
        edit(project, "pipeline.yaml", lambda text: text + "# saved\n")
        return checked

    monkeypatch.setattr(check_cache, "check_pipeline", save_meanwhile)
    load_cached(project, folder)
    assert not (project.state / "checked").exists()
    assert checks == []


def test_sql_that_the_folders_digest_does_not_cover_is_looked_at_each_time(
    project: Settings, checks: list[str]
) -> None:
    """Behind a link to another place it may change without the folder becoming another version."""
    folder = project.pipelines / "tides"
    [sql] = {table.from_ for table in load_pipeline(folder).tables.values()}
    elsewhere = project.pipelines.parent / "elsewhere"
    elsewhere.mkdir()
    (folder / sql).rename(elsewhere / sql)
    (folder / "sql").symlink_to(elsewhere)
    edit(project, "pipeline.yaml", lambda text: text.replace(sql, f"sql/{sql}"))
    load_cached(project, folder)
    load_cached(project, folder)
    assert checks == ["tides", "tides"]


def test_a_state_folder_that_cannot_be_written_costs_only_time(project: Settings, checks: list[str]) -> None:
    """Here a file stands where the folder should be."""
    project.state.mkdir(parents=True, exist_ok=True)
    (project.state / "checked").touch()
    for _ in range(2):
        assert load_cached(project, project.pipelines / "tides").name == "tides"
    assert checks == ["tides", "tides"]


def test_an_apply_of_a_broken_folder_is_refused_before_anything_is_done(project: Settings) -> None:
    """Neither database nor broker is asked, for the sound one beside it neither; one sentence, and exit code 2."""
    shutil.copytree(TIDES, project.pipelines / "ebbs")
    break_it(project)
    environment = os.environ | project.environment()
    command = [sys.executable, "-m", "tidemill", "apply", "tides"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    [sentence] = done.stderr.splitlines()
    assert "did you mean rollups?" in sentence
    assert not (project.state / "applied").exists()
