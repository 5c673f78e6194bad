"""What is checked before a driver is started, on the real broker and database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.airflow.dags.prepare import prepare
from tidemill.config import Account, Settings
from tidemill.deploy.snapshots import save_snapshot
from tidemill.errors import SourceError, SpecError, StreamError
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import streams


@pytest.fixture
def ebbs(tides: tuple[Settings, Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a pipeline of which a version is registered, and whose topic was never made."""
    settings, pipeline = tides
    folder = tmp_path / "pipelines" / "no_ebbs"
    shutil.copytree(pipeline.folder, folder)
    path = folder / "pipeline.yaml"
    path.write_text(path.read_text().replace("name: tides", "name: no_ebbs").replace("topic: tides", "topic: no_ebbs"))
    monkeypatch.setenv("TIDEMILL_PIPELINES", str(folder.parent))
    with session(settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
        digest = load_pipeline(folder).digest
        cursor.execute("INSERT INTO pipelines (pipeline, version, digest) VALUES ('no_ebbs', 1, %s)", (digest,))
        yield folder
        cursor.execute("DELETE FROM pipelines WHERE pipeline = 'no_ebbs'")


def test_a_topic_that_is_not_there_is_named_with_its_remedy(ebbs: Path) -> None:
    """No driver is started for it, and the error is one sentence."""
    with pytest.raises(SourceError) as caught:
        prepare("no_ebbs")
    assert (caught.value.code, caught.value.parameters["topic"]) == ("TM-AIRFLOW-TOPIC-MISSING", "no_ebbs")
    assert caught.value.remedy == "create it with ./tidemill apply no_ebbs"


def test_what_was_applied_and_is_nowhere_any_more_starts_nothing(ebbs: Path) -> None:
    """Neither is there a copy of it, nor is the folder what was applied."""
    (ebbs / "pipeline.yaml").write_text((ebbs / "pipeline.yaml").read_text() + "# edited\n")
    with pytest.raises(StreamError, match=r"run \./tidemill apply no_ebbs"):
        prepare("no_ebbs")


def test_what_was_never_applied_starts_nothing(
    tides: tuple[Settings, Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the command, or the nearest name if there is no such folder either."""
    shutil.copytree(tides[1].folder, tmp_path / "tide")
    monkeypatch.setenv("TIDEMILL_PIPELINES", str(tmp_path))
    with pytest.raises(StreamError, match=r"TM-DEPLOY-NEVER-APPLIED.* tide; run \./tidemill apply tide"):
        prepare("tide")
    shutil.rmtree(tmp_path / "tide")
    with pytest.raises(SpecError, match=r"TM-SPEC-PIPELINE-UNKNOWN.* tide; did you mean tides\?"):
        prepare("tide")


def test_a_pipeline_that_is_applied_and_has_its_topic_is_ready(tides: tuple[Settings, Pipeline]) -> None:
    """Nothing is raised, whatever the stream did before."""
    prepare("tides")


def test_a_folder_that_holds_no_text_only_causes_a_warning(
    tides: tuple[Settings, Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The deployed version stays in use, whatever was saved since."""
    settings, pipeline = tides
    with session(settings, Account.READ) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT MAX(version) FROM pipelines WHERE pipeline = 'tides'")
        save_snapshot(settings, pipeline, int(cursor.fetchone()[0]))
    folder = tmp_path / "pipelines" / "tides"
    shutil.copytree(pipeline.folder, folder)
    (folder / "transform.sql").write_bytes(b"SELECT \xff FROM records")
    monkeypatch.setenv("TIDEMILL_PIPELINES", str(folder.parent))
    with session(settings, Account.STREAM) as connection:
        streams.request_state(connection, "tides", "running", "a test")
    with caplog.at_level("WARNING"):
        prepare("tides")
    assert "the folder is rejected" in caplog.text


def test_a_stream_that_is_to_be_stopped_needs_no_topic(ebbs: Path, tides: tuple[Settings, Pipeline]) -> None:
    """The task ``run`` still has to act on its last driver, whether or not the topic exists."""
    with session(tides[0], Account.STREAM) as connection, connection.cursor() as cursor:
        streams.request_state(connection, "no_ebbs", "stopped", "a test")
        try:
            prepare("no_ebbs")
        finally:
            cursor.execute("DELETE FROM streams WHERE stream = 'no_ebbs'")
