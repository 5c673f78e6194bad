"""Custom estimators: where the module is imported from, and the error when something is wrong with it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from pyspark.ml import Pipeline

from support.paths import TIDES
from tidemill.config import Settings
from tidemill.deploy.snapshots import save_snapshot
from tidemill.errors import ModelError
from tidemill.ml.training.custom_estimator import custom_pipeline
from tidemill.spec import load_pipeline

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
    with pytest.raises(ModelError) as raised:
        custom_pipeline("forest:build", folder, [], {})
    assert (raised.value.code, raised.value.value) == ("TM-ML-ESTIMATOR-NO-PIPELINE", "str")
    with pytest.raises(ModelError) as raised:
        custom_pipeline("forest:build", tmp_path, [], {})
    assert raised.value.code == "TM-ML-ESTIMATOR-NOT-IMPORTED"
    assert raised.value.value == "ModuleNotFoundError: No module named 'forest'"


def test_a_package_with_sub_packages_is_imported_from_the_copy_of_an_applied_folder(
    own: Settings, tmp_path: Path
) -> None:
    """The names that ``__init__.py`` defines are those of the applied version, also after the folder has changed."""
    folder = Path(shutil.copytree(TIDES, tmp_path / "pipelines" / "tides"))
    (folder / "trees" / "deep").mkdir(parents=True)
    (folder / "trees" / "__init__.py").write_text("from trees.deep import build\n")
    (folder / "trees" / "deep" / "__init__.py").write_text(
        "from pyspark.ml import Pipeline\n\ndef build(features, parameters):\n    return Pipeline(stages=[])\n"
    )
    copy = save_snapshot(own, load_pipeline(folder), 1)
    (folder / "trees" / "__init__.py").write_text("")
    assert isinstance(custom_pipeline("trees:build", copy, [], {}), Pipeline)


def test_then_come_installed_packages(folder: Path) -> None:
    """A module that the folder has not is an installed one, here one that takes no positional arguments."""
    with pytest.raises(ModelError) as raised:
        custom_pipeline("pyspark.ml:Pipeline", folder, [], {})
    assert raised.value.code == "TM-ML-ESTIMATOR-RAISES"
    assert str(raised.value.value).startswith("TypeError: ")


@pytest.mark.parametrize(
    ("text", "condition", "value"),
    [
        pytest.param("import nowhere", "NOT-IMPORTED", "ModuleNotFoundError: No module named 'nowhere'", id="import"),
        pytest.param("1 / 0", "NOT-IMPORTED", "ZeroDivisionError: division by zero", id="body"),
        pytest.param("def build(:", "NOT-IMPORTED", "SyntaxError: ", id="syntax"),
        pytest.param("grow = 1", "NOT-IMPORTED", "AttributeError: ", id="no-such-function"),
        pytest.param(
            "def build(f, p):\n    raise ValueError('no\\ndepth')", "RAISES", "ValueError: no depth", id="raise"
        ),
        pytest.param("def build(f, p):\n    return None", "NO-PIPELINE", "NoneType", id="nothing"),
    ],
)
def test_an_error_of_the_authors_module_is_one_line(folder: Path, text: str, condition: str, value: str) -> None:
    """The error's code names the condition, its value what the module raised or returned."""
    (folder / "forest.py").write_text(text)
    with pytest.raises(ModelError) as raised:
        custom_pipeline("forest:build", folder, [], {})
    assert raised.value.code == f"TM-ML-ESTIMATOR-{condition}"
    assert str(raised.value.value).startswith(value)
    assert "\n" not in str(raised.value)
