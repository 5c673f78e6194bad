"""The warning that a stream does not run what its pipeline folder holds."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.paths import TIDES
from tidemill.airflow.dags.prepare import unapplied_changes
from tidemill.config import Settings
from tidemill.spec import load_pipeline


def test_a_folder_that_differs_from_the_deployed_version_causes_a_warning(settings: Settings, tmp_path: Path) -> None:
    """Edited, invalid or removed, it prevents no driver from starting."""
    folder = tmp_path / "pipelines" / "tides"
    shutil.copytree(TIDES, folder)
    project = settings.model_copy(update={"pipelines": folder.parent})
    spec = load_pipeline(folder)
    assert unapplied_changes(project, spec, 3) == []
    declaration = folder / "pipeline.yaml"
    declaration.write_text(declaration.read_text() + "# edited\n")
    assert unapplied_changes(project, spec, 3) == [
        "the stream runs version 3 of tides, which was deployed last: the folder has unapplied changes;"
        " run ./tidemill apply tides to apply them"
    ]
    declaration.write_text(declaration.read_text() + "rollpus: {}\n")
    [sentence] = unapplied_changes(project, spec, 3)
    assert "version 3 of tides" in sentence
    assert "TM-SPEC-KEY-UNKNOWN" in sentence
    shutil.rmtree(folder)
    assert "TM-SPEC-PIPELINE-UNKNOWN" in unapplied_changes(project, spec, 3)[0]
