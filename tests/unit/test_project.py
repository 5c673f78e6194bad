"""The project's own rules, each with a case that proves the rule can be broken."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main

from support.paths import ROOT
from tidemill.cli.main import app

PROGRAMS = Path(sys.executable).parent


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one of the environment's programs."""
    return subprocess.run(
        [str(PROGRAMS / command[0]), *command[1:]], cwd=cwd, capture_output=True, text=True, check=False
    )


def tracked() -> list[Path]:
    """Every file of the project, as git knows them; of a copy without git, every file outside its caches."""
    found = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = found.stdout.splitlines() if found.returncode == 0 else []
    return [ROOT / name for name in names if (ROOT / name).is_file()] or [p for p in ROOT.rglob("*") if p.is_file()]


def text_files() -> dict[Path, str]:
    """The files that are text."""
    found = {}
    for path in tracked():
        try:
            found[path.relative_to(ROOT)] = path.read_text()
        except UnicodeDecodeError:
            continue
    return found


def test_the_linter_finds_nothing() -> None:
    """ruff check and ruff format have nothing to say."""
    checked = run("ruff", "check", ".")
    assert checked.returncode == 0, checked.stdout
    formatted = run("ruff", "format", "--check", ".")
    assert formatted.returncode == 0, formatted.stdout


def test_every_type_is_known(type_check: subprocess.Popen[str]) -> None:
    """mypy --strict over the package."""
    said, _ = type_check.communicate(timeout=600)
    assert type_check.returncode == 0, said


def test_the_rooms_import_only_what_they_may() -> None:
    """import-linter's contracts hold."""
    checked = run("lint-imports", "--no-cache")
    assert checked.returncode == 0, checked.stdout


BREACHES = {
    "spec-is-pure": ("spec/schema.py", "import pymysql"),
    "lifecycle-is-pure": ("lifecycle/decide.py", "import tidemill.config"),
    "drivers-without-airflow": ("store/control/ledger.py", "import airflow"),
    "control-without-spark": ("console/queries.py", "import pyspark"),
    "demo-is-a-guest": ("stream/driver.py", "import tidemill.demo.feed"),
    "rooms-in-layers": ("store/connection.py", "import tidemill.stream.metrics"),
}
"""Contract of import-linter -> a module, and a line that breaks the contract there."""


def contracts() -> list[str]:
    """The ids of the contracts that pyproject.toml declares."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [contract["id"] for contract in declared["tool"]["importlinter"]["contracts"]]


@pytest.mark.parametrize("contract", contracts())
def test_a_broken_room_would_be_seen(contract: str, tmp_path: Path) -> None:
    """Each contract can fail: of a copy with a forbidden import, import-linter says so."""
    subprocess.run(["cp", "-r", str(ROOT / "src"), str(ROOT / "pyproject.toml"), str(tmp_path)], check=True)
    module, line = BREACHES[contract]
    broken = tmp_path / "src" / "tidemill" / module
    broken.write_text(f"{broken.read_text()}\n{line}\n")
    checked = subprocess.run(
        [str(PROGRAMS / "lint-imports"), "--no-cache", "--contract", contract],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path / "src")},
    )  # fmt: skip
    assert checked.returncode != 0
    assert "BROKEN" in checked.stdout


def test_both_pysparks_are_of_one_version() -> None:
    """They ship the same folder: at different versions whichever was installed last would win."""
    assert version("pyspark") == version("pyspark-client")


def locked(lock: str) -> dict[str, int]:
    """Package -> how many hashes stand with it."""
    found: dict[str, int] = {}
    name = ""
    for line in lock.splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==", line):
            name = match.group(1).lower().replace("_", "-")
            found[name] = 0
        found[name] = found.get(name, 0) + line.count("--hash=")
    found.pop("", None)
    return found


def unlocked(source: str, lock: str) -> list[str]:
    """What requirements.in names and the lock does not hold with a hash."""
    wanted = [
        re.split(r"[<>=;# ]", line)[0].lower() for line in source.splitlines() if line and not line.startswith("#")
    ]
    held = locked(lock)
    return [name for name in wanted if not held.get(name)]


def test_the_lock_holds_everything_with_hashes() -> None:
    """requirements.txt was generated from requirements.in, with hashes; one without would be noticed."""
    source, lock = (ROOT / "requirements.in").read_text(), (ROOT / "requirements.txt").read_text()
    assert unlocked(source, lock) == []
    assert 0 not in locked(lock).values()
    assert unlocked(source + "\nleft-out==1", lock) == ["left-out"]


FOREIGN = re.compile(r"(?:pypi\.org|pythonhosted|maven\.org|repo1\.|index-url|find-links|<repository|/root/|/home/\w)")


def foreign(files: dict[Path, str]) -> list[str]:
    """Lines that name a package source or a place of one machine."""
    return [
        f"{path}: {line.strip()[:100]}"
        for path, text in files.items()
        for line in text.splitlines()
        if FOREIGN.search(line) and path.name != Path(__file__).name
    ]


def test_no_file_names_a_package_source_or_a_machine() -> None:
    """The tools' own settings say where packages come from."""
    assert foreign(text_files()) == []
    assert foreign({Path("x"): "--index-url=somewhere"}) != []


def too_long(files: dict[Path, str]) -> list[str]:
    """Modules over 400 lines and DAG files over 60."""
    found = []
    for path, text in files.items():
        limit = 60 if path.parts[0] == "dags" else 400
        if (
            path.suffix == ".py"
            and path.parts[0] in ("src", "dags", "plugins", "spark_jobs")
            and text.count("\n") > limit
        ):
            found.append(f"{path} has more than {limit} lines")
    return found


def test_no_module_is_long() -> None:
    """What grows beyond a sheet is split where its parts have names."""
    assert too_long(text_files()) == []
    assert too_long({Path("dags/x.py"): "\n" * 61}) != []


def undocumented(source: str) -> list[str]:
    """Public functions and classes of a module without a docstring."""
    public = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in ast.parse(source).body if isinstance(node, public)]
    return [node.name for node in nodes if not node.name.startswith("_") and not ast.get_docstring(node)]


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_every_public_name_is_documented(path: Path) -> None:
    """A module and all that others may call says what it is."""
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)) or not source.strip()
    assert undocumented(source) == []


def test_an_undocumented_name_would_be_seen() -> None:
    """The check above can fail."""
    assert undocumented("def f(): ...") == ["f"]


def test_every_command_is_in_the_guide_with_an_example() -> None:
    """docs/guide/commands.md names each command; its help shows an example."""
    guide = (ROOT / "docs" / "guide" / "commands.md").read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {name for name in commands if f"`{name}" not in guide} == set()
    assert {name for name, command in commands.items() if "./tidemill" not in (command.help or "")} == set()


def unknown_commands(text: str) -> set[str]:
    """Commands that a document shows and the command line has not."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shown = re.findall(r"\./tidemill ([a-z]+)", text)
    return set(shown) - set(commands)


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name
)
def test_documents_show_commands_that_exist(path: Path) -> None:
    """What a reader types works; a command that is not there would be noticed."""
    assert unknown_commands(path.read_text()) == set()
    assert unknown_commands("./tidemill fly") == {"fly"}


def broken_links(path: Path, text: str) -> list[str]:
    """Links of a document to files that are not there."""
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    return [target for target in targets if not (path.parent / target).exists()]


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name
)
def test_links_lead_somewhere(path: Path) -> None:
    """Within the project; a link to nowhere would be noticed."""
    assert broken_links(path, path.read_text()) == []
    assert broken_links(path, "[x](nowhere.md)") == ["nowhere.md"]


def missing_tests(text: str) -> list[str]:
    """Tests that a document names and the project has not."""
    found = []
    last = ""
    for name in re.findall(r"`((?:tests/[\w/.]+)?(?:::\w+)?)`", text):
        file, _, function = name.partition("::")
        last = file or last
        source = ROOT / last
        if not source.is_file() or (function and f"def {function}(" not in source.read_text()):
            found.append(name)
    return found


def test_every_guarantee_names_a_test_that_exists() -> None:
    """docs/guarantees.md is held to its word; a test that is not there would be noticed."""
    assert missing_tests((ROOT / "docs" / "guarantees.md").read_text()) == []
    assert missing_tests("`tests/db/test_commit.py::test_nothing`") != []
