"""The warning that the product does not use what a pipeline folder holds."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.paths import TIDES
from tidemill.config import Settings
from tidemill.deploy.snapshots import unapplied_changes
from tidemill.spec import load_pipeline


def test_a_folder_that_differs_from_the_applied_version_causes_a_warning(settings: Settings, tmp_path: Path) -> None:
    """Edited, invalid or removed: each is named, and nothing is raised."""
    folder = tmp_path / "pipelines" / "tides"
    shutil.copytree(TIDES, folder)
    project = settings.model_copy(update={"pipelines": folder.parent})
    spec = load_pipeline(folder)
    assert unapplied_changes(project, spec, 3) == []
    declaration = folder / "pipeline.yaml"
    declaration.write_text(declaration.read_text() + "# edited\n")
    assert unapplied_changes(project, spec, 3) == [
        "version 3 of tides, which was applied last, stays in use: the folder has unapplied changes;"
        " run ./tidemill apply tides to apply them"
    ]
    declaration.write_text(declaration.read_text() + "rollpus: {}\n")
    [sentence] = unapplied_changes(project, spec, 3)
    assert "version 3 of tides" in sentence
    assert "TM-SPEC-KEY-UNKNOWN" in sentence
    shutil.rmtree(folder)
    assert unapplied_changes(project, spec, 3)[0].endswith(f"although its folder is missing in {folder.parent}")
