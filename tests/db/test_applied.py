"""Which pipeline is the current one: what was applied last, from its copy or from a folder that equals it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymysql.connections import Connection

from support.merges import EVENT
from support.paths import TIDES
from support.recording import make_pipeline
from tidemill.config import Account, Settings
from tidemill.deploy.snapshots import applied_pipeline, save_snapshot
from tidemill.errors import StoreError, StreamError
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.migrations import apply_pipeline, migrate_control


@pytest.fixture
def here(mariadb: Settings, tmp_path: Path) -> Settings:
    """The database's settings with a state folder and a pipelines folder of their own."""
    shutil.copy(mariadb.secrets_file, tmp_path)
    return mariadb.model_copy(update={"state": tmp_path, "pipelines": tmp_path / "pipelines"})


@pytest.fixture
def ebbing(here: Settings) -> Pipeline:
    """A pipeline folder that is not applied yet."""
    return make_pipeline(here.pipelines, "ebbing", (EVENT,))


@contextmanager
def connected(settings: Settings) -> Iterator[Connection[Any]]:
    """As the migrate account, the control plane made and nothing of the pipeline in it."""
    with session(settings, Account.MIGRATE) as connection:
        migrate_control(connection, settings.root / "sql")
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM pipelines WHERE pipeline = 'ebbing'")
        yield connection


def edit(pipeline: Pipeline, comment: str) -> Pipeline:
    """The folder with one more comment."""
    with (pipeline.folder / "pipeline.yaml").open("a") as file:
        file.write(f"\n# {comment}\n")
    return load_pipeline(pipeline.folder)


def test_what_was_applied_last_is_current_whatever_the_folder_holds(here: Settings, ebbing: Pipeline) -> None:
    """Edited, broken or removed: it is the copy that counts, until something else is applied."""
    with connected(here) as connection:
        save_snapshot(here, ebbing, apply_pipeline(connection, here, ebbing))
        edited = edit(ebbing, "edited")
        assert applied_pipeline(here, connection, "ebbing")[0].digest == ebbing.digest
        save_snapshot(here, edited, apply_pipeline(connection, here, edited))
        found, version = applied_pipeline(here, connection, "ebbing")
        assert (found.digest, version) == (edited.digest, 2)
        assert found.folder.is_relative_to(here.state / "applied" / "ebbing" / "2")
        (ebbing.folder / "pipeline.yaml").write_text("name: [")
        assert applied_pipeline(here, connection, "ebbing")[1] == 2
        shutil.rmtree(ebbing.folder)
        assert applied_pipeline(here, connection, "ebbing")[1] == 2


def test_where_no_copy_was_kept_the_folder_serves_if_it_is_the_applied_one(here: Settings, ebbing: Pipeline) -> None:
    """Another machine applied it. A folder that differs is refused with the remedy; a damaged copy does not count."""
    with connected(here) as connection:
        version = apply_pipeline(connection, here, ebbing)
        found, known = applied_pipeline(here, connection, "ebbing")
        assert (found.folder, known) == (ebbing.folder, version)
        place = save_snapshot(here, ebbing, version)
        (place / "pipeline.yaml").write_text("name: [")
        assert applied_pipeline(here, connection, "ebbing")[0].folder == ebbing.folder
        edit(ebbing, "edited")
        with pytest.raises(StreamError) as caught:
            applied_pipeline(here, connection, "ebbing")
        assert caught.value.code == "TM-DEPLOY-SNAPSHOT-MISSING"
        assert caught.value.remedy == "run ./tidemill apply ebbing"


def test_what_was_never_applied_is_not_current(here: Settings, ebbing: Pipeline) -> None:
    """A folder alone starts nothing."""
    with connected(here) as connection, pytest.raises(StreamError) as caught:
        applied_pipeline(here, connection, "ebbing")
    assert (caught.value.code, caught.value.value) == ("TM-DEPLOY-NEVER-APPLIED", "ebbing")


@pytest.mark.parametrize("fault", ["a table with other columns", "a column that the database refuses"])
def test_a_refused_pipeline_leaves_no_row_in_the_control_plane(here: Settings, fault: str) -> None:
    """No model that the console would show, no rollup and no version, whatever it was refused for."""
    text = (TIDES / "pipeline.yaml").read_text(encoding="utf-8").replace("tides", "neaps").replace("tide_", "neap_")
    if fault == "a column that the database refuses":
        text = text.replace("station: VARCHAR(8) NOT NULL", "station: VARCHAR(70000) NOT NULL")
    shutil.copytree(TIDES, here.pipelines / "neaps")
    (here.pipelines / "neaps" / "pipeline.yaml").write_text(text, encoding="utf-8")
    pipeline = load_pipeline(here.pipelines / "neaps")
    with connected(here) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE OR REPLACE TABLE {here.db_data}.neaps (id BIGINT NOT NULL PRIMARY KEY)")
        if fault == "a column that the database refuses":
            cursor.execute(f"DROP TABLE {here.db_data}.neaps")
        try:
            with pytest.raises(StoreError):
                apply_pipeline(connection, here, pipeline)
            for table in ("models", "rollups", "pipelines"):
                cursor.execute(f"SELECT COUNT(*) FROM {table} WHERE pipeline = 'neaps'")
                assert cursor.fetchone() == (0,), table
        finally:
            cursor.execute(f"DROP TABLE IF EXISTS {here.db_data}.neaps")
