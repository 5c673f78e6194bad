"""The wheel is the product: built, installed into an empty environment and used away from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.paths import PIPELINES, ROOT

PROGRAMS = Path(sys.executable).parent


@dataclass(frozen=True)
class Installation:
    """An environment with the locked packages and the wheel, and a folder with pipelines beside it."""

    programs: Path
    site: Path

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs in the folder, with nothing of the checkout's in its environment."""
        clean = {name: os.environ[name] for name in ("JAVA_HOME", "LANG") if name in os.environ}
        clean |= {"HOME": str(self.site), "PATH": f"{self.programs}{os.pathsep}{os.defpath}", **environ}
        return subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            cwd=self.site, env=clean, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def airflow(self, code: str) -> object:
        """What a program with Airflow imported prints as JSON."""
        found = self.run("tidemill", "paths", "--json")
        assert found.returncode == 0, found.stderr
        paths = json.loads(found.stdout)
        done = self.run(
            "python", "-c", code,
            AIRFLOW_HOME=str(self.site / "airflow"),
            AIRFLOW__CORE__DAGS_FOLDER=paths["dags"],
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{self.site}/airflow.db",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])


def _run(*command: str, cwd: Path = ROOT) -> None:
    environ = dict(os.environ)
    if "PIP_INDEX_URL" in environ:  # as the launcher does
        environ.setdefault("UV_DEFAULT_INDEX", environ["PIP_INDEX_URL"])
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The lock, then the wheel without its dependencies, as an engineer installs it."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"  # built from a copy: a build must not leave anything in the checkout
    kept = shutil.ignore_patterns(".git", ".venv", ".tidemill", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, source, ignore=kept)
    _run(str(PROGRAMS / "python"), "-m", "hatchling", "build", "-t", "wheel", "-d", str(place), cwd=source)
    _run(str(PROGRAMS / "uv"), "venv", "--quiet", "--python", sys.executable, str(place / "venv"))
    python = str(place / "venv" / "bin" / "python")
    lock = str(ROOT / "requirements.txt")
    _run(str(PROGRAMS / "uv"), "pip", "sync", "--quiet", "--python", python, "--require-hashes", lock)
    [wheel] = place.glob("*.whl")
    _run(str(PROGRAMS / "uv"), "pip", "install", "--quiet", "--python", python, "--no-deps", str(wheel))
    site = place / "site"
    shutil.copytree(PIPELINES, site / "pipelines")
    yield Installation(place / "venv" / "bin", site)
    shutil.rmtree(place)


def test_the_command_line_works_without_a_checkout(installation: Installation) -> None:
    """Help is printed, and the pipelines of the working directory are checked."""
    assert "Usage: tidemill" in installation.run("tidemill", "--help").stdout
    checked = installation.run("tidemill", "check", "--json")
    assert checked.returncode == 0, checked.stderr
    assert [each["pipeline"] for each in json.loads(checked.stdout)] == ["flights"]


def test_the_projects_files_come_along(installation: Installation) -> None:
    """DAG files, Spark entries, plugins and SQL are inside the environment, the same files as in a checkout."""
    paths = {
        name: Path(path) for name, path in json.loads(installation.run("tidemill", "paths", "--json").stdout).items()
    }
    for name in ("dags", "plugins", "spark_jobs", "sql"):
        assert installation.programs.parent in paths[name].parents
        ours = {path.relative_to(ROOT / name) for path in (ROOT / name).rglob("*.*") if "__pycache__" not in path.parts}
        theirs = {path.relative_to(paths[name]) for path in paths[name].rglob("*.*") if "__pycache__" not in path.parts}
        assert theirs == ours
    assert installation.run("tidemill", "paths", "dags").stdout.strip() == str(paths["dags"])


def test_every_module_of_the_checkout_is_in_the_wheel(installation: Installation) -> None:
    """Modules and package data: templates, the errors' messages, the list of JVM parts."""
    [package] = (installation.programs.parent / "lib").glob("python3.*/site-packages/tidemill")
    ours = {path.relative_to(ROOT / "src" / "tidemill") for path in (ROOT / "src" / "tidemill").rglob("*.*")}
    missing = {path for path in ours if "__pycache__" not in path.parts and not (package / path).exists()}
    assert missing == set()


def test_airflow_finds_provider_plugin_and_dags(installation: Installation) -> None:
    """Entry points register connection type and plugin; the bundle path holds the DAGs, without an import error."""
    code = """
import json
from airflow.providers_manager import ProvidersManager
from airflow import plugins_manager
from airflow.dag_processing.dagbag import DagBag
import os
plugins, errors = plugins_manager._get_plugins()
bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
print(json.dumps({
    "hook": "tidemill" in ProvidersManager().hooks,
    "plugins": [plugin.name for plugin in plugins if plugin.name == "tidemill"],
    "errors": [*errors.values(), *bag.import_errors.values()],
    "dags": sorted(bag.dags),
}))
"""
    found = installation.airflow(code)
    assert found == {
        "hook": True,
        "plugins": ["tidemill"],
        "errors": [],
        "dags": [
            "control_models", "control_streams", "maintenance", "refresh__flights__delay_minutes",
            "refresh__flights__late_arrival", "replay__flights", "stream__flights",
        ],
    }  # fmt: skip


def test_a_spark_job_runs_from_the_wheel(installation: Installation) -> None:
    """The packaged entry starts, and says in one sentence that it has no password to read what was applied."""
    entry = json.loads(installation.run("tidemill", "paths", "--json").stdout)["spark_jobs"]
    done = installation.run("python", f"{entry}/replay.py", "--pipeline", "nothing", "--replay", "1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "TM-CONFIG-SECRET-MISSING" in done.stderr
