"""The pipeline of the guide is sound. The whole page is followed by ``tests/e2e/test_guide.py``, in the full suite."""

from __future__ import annotations

from pathlib import Path

from support.guide_page import steps
from tidemill.spec import load_pipeline


def test_the_guides_pipeline_loads(tmp_path: Path) -> None:
    """Its three files are a folder that ``check`` accepts, with one model that scores live; its feed compiles."""
    files = {step.path: step.text for step in steps() if step.kind == "file"}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    pipeline = load_pipeline(tmp_path / "pipelines" / "parcels")
    assert list(pipeline.models) == ["breaks"]
    assert pipeline.models["breaks"].score.live
    compile(files["parcels.py"], "parcels.py", "exec")
