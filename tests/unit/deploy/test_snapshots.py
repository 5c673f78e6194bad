"""Copies of applied folders: whole, of the same digest, few, and untouched by what becomes of the folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.paths import ROOT
from tidemill.config import Settings
from tidemill.deploy.snapshots import newest_snapshot, save_snapshot
from tidemill.errors import SpecError
from tidemill.spec import Pipeline, load_pipeline
from tidemill.spec.folder import digest_of

Edit = Callable[[str], Pipeline]


@pytest.fixture
def edit(own: Settings, tmp_path: Path) -> Edit:
    """Copies the shipped pipeline once, and changes it by a comment."""
    folder = tmp_path / "pipelines" / "flights"
    shutil.copytree(ROOT / "pipelines" / "flights", folder)
    (folder / ".hidden").write_text("not part of it")

    def change(comment: str) -> Pipeline:
        with (folder / "transform.sql").open("a") as file:
            file.write(f"\n-- {comment}\n")
        return load_pipeline(folder)

    return change


def test_a_copy_is_the_same_pipeline(own: Settings, edit: Edit) -> None:
    """Same digest, same meaning; cases and hidden files stay behind; it loads from where it is found."""
    pipeline = edit("one")
    place = save_snapshot(own, pipeline, 1)
    assert newest_snapshot(own, "flights") == place == own.state / "applied" / "flights" / "1" / "flights"
    found = load_pipeline(place)
    assert found.model_copy(update={"folder": pipeline.folder}) == pipeline
    assert sorted(path.name for path in place.iterdir()) == sorted(
        path.name for path in pipeline.folder.iterdir() if path.name not in ("cases", ".hidden")
    )


@pytest.mark.parametrize(
    "name",
    [
        "forest.py",
        "trees/__init__.py",
        "trees/deep/__init__.py",
        "trees/deep/oak.py",
        "__main__.py",
        "__init__.py",
        "trees/_private.py",
        "trees/__dunder__/weights.bin",
        "data/words.txt",
        "legacy.pyc",
    ],
)
def test_every_file_that_can_be_imported_or_read_counts(own: Settings, edit: Edit, name: str) -> None:
    """At any depth and under any name that Python gives a meaning: without it, and with other bytes, it is another
    version, and the copy has the same bytes."""
    before = edit("one")
    file = before.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    digests = {before.digest}
    for version, content in enumerate((b"", b"STAGES = []\n", b"STAGES = [1]\n"), 1):
        file.write_bytes(content)
        pipeline = load_pipeline(before.folder)
        digests.add(pipeline.digest)
        assert (save_snapshot(own, pipeline, version) / name).read_bytes() == content
    assert len(digests) == 4


@pytest.mark.parametrize("name", ["__pycache__/forest.cpython-311.pyc", "trees/__pycache__/oak.pyc", "trees/.cache/x"])
def test_what_running_the_pipeline_leaves_behind_does_not_count(own: Settings, edit: Edit, name: str) -> None:
    """Bytecode and hidden files make no version, and are in no copy."""
    before = edit("one")
    (before.folder / name).parent.mkdir(parents=True)
    (before.folder / name).write_bytes(b"cached")
    pipeline = load_pipeline(before.folder)
    assert pipeline.digest == before.digest
    assert not (save_snapshot(own, pipeline, 1) / name).exists()


def test_nothing_is_newest_where_nothing_was_kept(own: Settings) -> None:
    """Neither without the state folder nor with other pipelines in it."""
    assert newest_snapshot(own, "flights") is None


def test_an_edited_or_removed_folder_changes_no_copy(own: Settings, edit: Edit) -> None:
    """It is what was applied that runs."""
    pipeline = edit("one")
    place = save_snapshot(own, pipeline, 1)
    edit("two")
    assert digest_of(place) == pipeline.digest
    shutil.rmtree(pipeline.folder)
    assert load_pipeline(place).digest == pipeline.digest


def test_the_newest_three_stay_and_what_a_driver_runs(own: Settings, edit: Edit) -> None:
    """Versions are numbers: 10 is newer than 9."""
    for version in (2, 8, 9, 10, 11):
        save_snapshot(own, edit(str(version)), version, leased=[2])
    kept = {path.name for path in (own.state / "applied" / "flights").iterdir()}
    assert kept == {"2", "9", "10", "11"}
    found = newest_snapshot(own, "flights")
    assert found is not None
    assert found.parent.name == "11"


def test_copies_of_a_database_that_is_no_more_make_way(own: Settings, edit: Edit) -> None:
    """Its versions were counted from one again; the newest copy is the one that was applied last."""
    for version in (7, 8, 9, 1):
        save_snapshot(own, edit(str(version)), version)
    found = newest_snapshot(own, "flights")
    assert found is not None
    assert found.parent.name == "1"


def test_keeping_again_leaves_a_whole_copy_alone_and_mends_a_damaged_one(own: Settings, edit: Edit) -> None:
    """A driver may be reading the whole one."""
    pipeline = edit("one")
    place = save_snapshot(own, pipeline, 1)
    before = place.stat().st_ino
    save_snapshot(own, pipeline, 1)
    assert place.stat().st_ino == before
    (place / "transform.sql").unlink()
    assert digest_of(save_snapshot(own, pipeline, 1)) == pipeline.digest


def test_a_folder_that_changed_while_it_was_applied_is_not_kept(own: Settings, edit: Edit) -> None:
    """A copy that is not the version would run under its name; nothing is left of the attempt."""
    pipeline = edit("one")
    edit("two")
    with pytest.raises(SpecError) as caught:
        save_snapshot(own, pipeline, 1)
    assert caught.value.code == "TM-DEPLOY-FOLDER-CHANGED"
    assert newest_snapshot(own, "flights") is None
    assert list((own.state / "applied" / "flights").iterdir()) == []


def test_a_folder_whose_files_lie_behind_a_link_is_not_kept(own: Settings, edit: Edit) -> None:
    """They are in no digest, so another content would run under the same version; the copy has not got them."""
    folder = edit("one").folder
    (folder.parent / "elsewhere").mkdir()
    (folder / "transform.sql").rename(folder.parent / "elsewhere" / "transform.sql")
    (folder / "sql").symlink_to(folder.parent / "elsewhere")
    text = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(text.replace("transform.sql", "sql/transform.sql"))
    with pytest.raises(SpecError, match="TM-SPEC-FILE-MISSING"):
        save_snapshot(own, load_pipeline(folder), 1)
    assert newest_snapshot(own, "flights") is None
