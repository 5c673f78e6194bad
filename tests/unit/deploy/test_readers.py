"""Who reads pipeline folders: ``check``, ``plan``, ``apply`` and ``test``. Everything else gets what was applied."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from support.paths import ROOT

READERS = {
    # These read folders because a person asks about the folder.
    "cli/commands/options.py": {"load_pipeline", "load_pipelines", "read_pipelines", "settings.pipelines"},
    "cli/commands/pipelines.py": {"read_pipelines", "settings.pipelines"},
    "cli/commands/develop.py": {"settings.pipelines"},
    "devstack/up.py": {"load_pipelines", "settings.pipelines"},  # applies all of them
    # These make the difference between a folder and what was applied.
    "deploy/snapshots.py": {"load_pipeline", "newest_snapshot", "settings.pipelines"},
    "deploy/catalog.py": {"load_cached", "newest_snapshot", "find_entry", "read_catalog", "settings.pipelines"},
    "deploy/check_cache.py": {"load_cached"},
    "spec/__init__.py": {"load_pipeline", "load_pipelines"},
    "spec/loader.py": {"load_pipeline", "load_pipelines"},
    # DAGs are built from snapshots.
    "airflow/dags/pipelines.py": {"read_catalog"},
    # The launcher names the folder of a snapshot.
    "spark_jobs/stream.py": {"load_pipeline"},
}
"""Module of the package -> the names by which it reaches folders, each with a reason above it."""
NAMES = {"load_pipeline", "load_pipelines", "load_cached", "read_pipelines", "read_catalog", "find_entry"} | {
    "newest_snapshot"
}


def reached(source: str) -> Iterator[str]:
    """The names of :data:`NAMES` that a module uses, and ``settings.pipelines``."""
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)
        if name in NAMES:
            yield name
        if isinstance(node, ast.Attribute) and node.attr == "pipelines":
            owner = getattr(node.value, "id", None) or getattr(node.value, "attr", "")
            if owner.endswith("settings"):
                yield "settings.pipelines"


def test_only_what_asks_about_a_folder_reads_it() -> None:
    """A command, task or job that acts on the live stack has :func:`applied_pipeline`, and no other way."""
    package = ROOT / "src" / "tidemill"
    found = {path.relative_to(package).as_posix(): set(reached(path.read_text())) for path in package.rglob("*.py")}
    assert {module: names for module, names in found.items() if names} == READERS


@pytest.mark.parametrize(
    "source",
    [
        "from tidemill.spec import load_pipeline",
        "import tidemill.spec\ntidemill.spec.load_pipeline(folder)",
        "from tidemill.spec import load_pipelines as read",
        "folder = settings.pipelines / name",
        "folder = self._settings.pipelines / name",
        "from tidemill.deploy import catalog\ncatalog.find_entry(settings, name)",
    ],
)
def test_a_new_reader_would_be_found(source: str) -> None:
    """However it is imported."""
    assert list(reached(source))
