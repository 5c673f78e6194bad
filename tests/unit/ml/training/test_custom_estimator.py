"""An author's estimator: where its module is looked for, and what is said when something is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pyspark.ml import Pipeline

from tidemill.errors import ModelError
from tidemill.ml.training.custom_estimator import custom_pipeline

EMPTY = "from pyspark.ml import Pipeline\nimport beside\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's folder with two modules, one of which imports the other."""
    place = tmp_path / "shop"
    place.mkdir()
    (place / "beside.py").write_text("STAGES = []\n")
    (place / "forest.py").write_text(
        f"{EMPTY}seen = []\n\ndef build(features, parameters):\n"
        "    made = Pipeline(stages=beside.STAGES)\n    made.given = (features, parameters)\n    return made\n"
    )
    return place


def test_the_folder_comes_first(folder: Path) -> None:
    """The function is given features and parameters; nothing of the folder stays importable, nor anything in it."""
    (folder / "json.py").write_text("from forest import build\n")
    import json  # noqa: PLC0415 -- the installed one, in use before and after

    made = custom_pipeline("json:build", folder, ("a", "b"), {"depth": 3})
    assert isinstance(made, Pipeline)
    assert made.given == (["a", "b"], {"depth": 3})
    assert sys.modules["json"] is json
    assert "forest" not in sys.modules
    assert str(folder) not in sys.path
    assert {path.name for path in folder.iterdir()} == {"beside.py", "forest.py", "json.py"}, "no compiled files"


def test_another_version_is_another_module(folder: Path, tmp_path: Path) -> None:
    """Two folders, and two versions of one, hold modules of one name: each training sees its own."""
    custom_pipeline("forest:build", folder, [], {})
    (folder / "forest.py").write_text(f"{EMPTY}def build(features, parameters):\n    return 'the second one'\n")
    with pytest.raises(ModelError, match=r"estimator forest:build does not return a Pipeline: str; return an unfitted"):
        custom_pipeline("forest:build", folder, [], {})
    with pytest.raises(ModelError, match=r"cannot be imported: ModuleNotFoundError: No module named 'forest'; put"):
        custom_pipeline("forest:build", tmp_path, [], {})


def test_then_come_installed_packages(folder: Path) -> None:
    """A module that the folder has not is an installed one, here one that takes no positional arguments."""
    with pytest.raises(ModelError, match=r"estimator pyspark\.ml:Pipeline raises: TypeError"):
        custom_pipeline("pyspark.ml:Pipeline", folder, [], {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param(
            "import nowhere", r"cannot be imported: ModuleNotFoundError: No module named 'nowhere'", id="import"
        ),
        pytest.param("1 / 0", r"cannot be imported: ZeroDivisionError: division by zero; put forest into", id="body"),
        pytest.param("def build(:", r"cannot be imported: SyntaxError: ", id="syntax"),
        pytest.param("grow = 1", r"cannot be imported: AttributeError: .*'build'", id="no-such-function"),
        pytest.param(
            "def build(f, p):\n    raise ValueError('no\\ndepth')", r"raises: ValueError: no depth; ", id="raise"
        ),
        pytest.param("def build(f, p):\n    return None", r"does not return a Pipeline: NoneType; ", id="nothing"),
    ],
)
def test_what_is_wrong_with_it_is_a_sentence(folder: Path, text: str, sentence: str) -> None:
    """Whatever goes wrong in the author's module is one line that names it."""
    (folder / "forest.py").write_text(text)
    with pytest.raises(ModelError, match=sentence) as raised:
        custom_pipeline("forest:build", folder, [], {})
    assert "\n" not in str(raised.value)
