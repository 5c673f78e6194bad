"""What the plain parts of the feedback loop may import: Airflow's tasks and the command line start with them."""

import subprocess
import sys

import pytest

PLAIN = (
    "refresh",
    "registry.artifacts",
    "registry.decisions",
    "registry.details",
    "registry.history",
    "registry.promotion",
    "registry.pruning",
    "registry.review",
    "registry.status",
    "registry.versions",
    "serving.feature_bins",
    "serving.publish",
    "data.leakage",
    "data.split",
    "training.options",
)
HEAVY = ("airflow", "numpy", "pandas", "pyarrow", "pyspark")


def imported_by(*modules: str) -> list[str]:
    """The heavy packages that a fresh interpreter has loaded after importing modules of ``tidemill.ml``."""
    imports = ", ".join(f"tidemill.ml.{name}" for name in modules)
    code = f"import sys, {imports}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_plain_modules_import_nothing_heavy() -> None:
    """They import neither Spark nor pandas, numpy or Arrow, on which a command or a task would wait."""
    assert imported_by(*PLAIN) == []


@pytest.mark.parametrize(("module", "packages"), [("training.train", {"numpy", "pyarrow", "pyspark"})])
def test_training_imports_spark(module: str, packages: set[str]) -> None:
    """The check above would notice a heavy import."""
    assert set(imported_by(module)) >= packages
