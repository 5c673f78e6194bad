"""What a run of the suite selects, what fails it, and how a full run is put together from its lanes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support import full_run
from support.full_run import FullRun, LaneResult, faults, summary
from support.lanes import LANES, lane_of
from support.paths import ROOT

SAMPLE = '''
import pytest

def test_passes(run_seed):
    """It passes."""
    print("drew from", run_seed)

def test_lacks_a_server():
    """It is skipped."""
    pytest.skip("no server")

def test_expected_to_fail():
    """It calls xfail while it runs."""
    pytest.xfail("some day")

@pytest.mark.full
def test_thorough():
    """A full run selects it."""

@pytest.mark.lane("crashes")
def test_of_another_lane():
    """Its marker names its lane."""
'''
LACKING = 'import pytest\n\npytest.importorskip("no_module_of_this_name")\n'


class Sample:
    """A project with a few tests, under the suite's plugin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.durations = folder / ".tidemill" / "test-durations.json"
        markers = "\n    ".join(["lane(name): x", "full: x", *(f"{lane}: x" for lane in LANES)])
        found = shlex.quote(str(ROOT / "tests"))  # pytest splits the value at blanks
        self.write("pytest.ini", f"[pytest]\ntestpaths = tests\npythonpath = {found}\nmarkers =\n    {markers}\n")
        self.write("tests/conftest.py", 'pytest_plugins = ["support.lanes"]\n')
        self.write("tests/unit/test_sample.py", SAMPLE)

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the tests."""
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
            cwd=self.folder, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """The project."""
    return Sample(tmp_path)


def test_a_skipped_test_fails_the_run(sample: Sample) -> None:
    """A skipped module and a call of xfail fail it too; pytest's own line is the last one."""
    sample.write("tests/db/test_lacking.py", LACKING)
    done = sample.run("--continue-on-collection-errors", "-rA")
    assert done.returncode == 1
    *_, left_out, closing = done.stdout.strip().splitlines()
    assert "2 failed, 2 passed, 1 deselected, 1 error" in closing
    assert "no server" in done.stdout
    assert "1 tests are left to" in done.stdout, left_out
    assert "drew from 0" in done.stdout
    section = json.loads(sample.durations.read_text())["unit"]
    assert (section["passed"], section["failed"], section["full"]) == (1, 2, False)
    assert section["collected"] == {"unit": 4, "crashes": 1}


def test_one_lane_is_selected(sample: Sample) -> None:
    """Together with what else limits the choice; a lane that does not exist is refused."""
    assert "1 passed, 4 deselected" in sample.run("--lane", "crashes").stdout
    assert "2 passed" in sample.run("--lane", "crashes", "--lane", "unit", "-k", "passes or another").stdout
    assert sample.run("--lane", "crash").returncode == pytest.ExitCode.USAGE_ERROR


def test_a_full_run_selects_everything_and_prints_its_seed(sample: Sample) -> None:
    """A seed that is named is used, and a failed run prints it."""
    done = sample.run("--full", "--seed", "4711", "-rA")
    assert "2 failed, 3 passed" in done.stdout.strip().splitlines()[-1]
    assert "drew from 4711" in done.stdout
    assert "was drawn from --seed 4711" in done.stdout


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("tests/unit/test_more.py", '@pytest.mark.xfail\ndef test_x():\n    """It does."""\n', "is marked xfail"),
        ("tests/unit/test_more.py", "def test_x():\n    pass\n", "has no docstring"),
        ("tests/misc/test_more.py", 'def test_x():\n    """It does."""\n', "is in none of the lanes"),
    ],
    ids=["xfail", "no docstring", "no lane"],
)
def test_a_test_that_breaks_the_rules_is_refused(sample: Sample, name: str, text: str, reason: str) -> None:
    """No test runs until it is fixed."""
    sample.write(name, f"import pytest\n\n{text}")
    done = sample.run()
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert reason in done.stdout + done.stderr


def test_a_test_has_one_lane() -> None:
    """The running Airflow decides before a marker, and a marker before the folder."""
    assert lane_of("e2e", ["airflow_stack", "settings"], ["crashes"]) == "airflow"
    assert lane_of("e2e", ["stack"], ["crashes"]) == "crashes"
    assert lane_of("db", [], []) == "db"
    with pytest.raises(ValueError, match="none of the lanes"):
        lane_of("db", [], ["nowhere"])


def test_the_lanes_select_every_test_once(request: pytest.FixtureRequest) -> None:
    """Of all that was collected here, each test carries the marker of one lane; a second marker would be noticed."""
    several = [item.nodeid for item in request.session.items if len(_lanes_of(item)) != 1]
    assert several == []
    doubtful = request.node
    doubtful.add_marker("db")
    assert len(_lanes_of(doubtful)) == 2


def _lanes_of(item: pytest.Item) -> set[str]:
    return {mark.name for mark in item.iter_markers()} & LANES.keys()


COUNTS = dict.fromkeys(LANES, 3)
SOUND = {lane: LaneResult(0, 60.0, 3, 0, COUNTS) for lane in LANES}


@pytest.mark.parametrize(
    ("lanes", "fault"),
    [
        (SOUND, None),
        (SOUND | {"db": LaneResult(1, 60.0, 2, 1, COUNTS)}, "lane db failed: 1 tests, exit code 1"),
        (SOUND | {"db": LaneResult(-11, 60.0)}, "lane db failed: 0 tests, exit code -11"),
        (SOUND | {"db": LaneResult(0, 60.0, 2, 0, COUNTS)}, "lane db ran 2 of its 3 tests"),
        (SOUND | {"db": LaneResult(0, 60.0, 3, 0, COUNTS | {"nowhere": 1})}, "1 tests are in no lane"),
        ({lane: result for lane, result in SOUND.items() if lane != "db"}, "lane db was not run"),
    ],
    ids=["sound", "a test failed", "pytest died", "tests fell between", "no lane", "a lane is missing"],
)
def test_a_full_run_has_passed_when_each_lane_has_run_all_its_tests(
    lanes: dict[str, LaneResult], fault: str | None
) -> None:
    """The last line states the result; each fault is named before it."""
    run = FullRun("digest", 7, lanes)
    assert faults(run, LANES) == ([fault] if fault else [])
    *lines, closing = summary(run, [*LANES], [(1.5, "tests/unit/test_x.py::test_y")])
    assert closing.startswith("=== 1 faults in lanes: " if fault else f"=== all {len(LANES)} lanes passed: ")
    assert closing.endswith("seed 7 ===")
    assert fault is None or fault in lines
    assert any("test_y" in line for line in lines)


def test_a_lane_runs_in_a_process_of_its_own(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result counts its own tests and all that were collected; its durations join those of the other lanes."""
    monkeypatch.setattr(full_run, "ROOT", sample.folder)
    monkeypatch.setattr(full_run, "STATE", sample.folder / ".tidemill" / "test-lanes.json")
    sample.durations.parent.mkdir()
    found = {lane: full_run.run_lane(lane, 7) for lane in ("crashes", "unit")}
    counts = {lane: (result.exit_code, result.passed, result.failed) for lane, result in found.items()}
    assert counts == {"crashes": (0, 1, 0), "unit": (1, 2, 2)}
    assert found["crashes"].collected == {"unit": 4, "crashes": 1}
    assert json.loads(sample.durations.read_text()).keys() == {"crashes", "unit"}
    assert len(full_run.slowest(sample.durations, LANES)) == 5


def test_a_lane_may_be_called_as_a_folder_is(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """``dags`` is both; pytest is asked for the lane, in which this project has no test."""
    (sample.folder / "dags").mkdir()
    monkeypatch.setattr(full_run, "ROOT", sample.folder)
    monkeypatch.setattr(full_run, "STATE", sample.folder / ".tidemill" / "test-lanes.json")
    sample.durations.parent.mkdir()
    assert full_run.run_lane("dags", 7).exit_code == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The lanes that a full run runs, with their seeds; lane ``db`` fails the first time."""
    played: list[tuple[str, int]] = []

    def run_lane(lane: str, seed: int) -> LaneResult:
        fails = lane == "db" and not any(name == "db" for name, _ in played)
        played.append((lane, seed))
        return LaneResult(1, 1.0, 2, 1, COUNTS) if fails else LaneResult(0, 1.0, 3, 0, COUNTS)

    monkeypatch.setattr(full_run, "STATE", tmp_path / "state" / "lanes.json")
    monkeypatch.setattr(full_run, "run_lane", run_lane)
    monkeypatch.setattr(full_run, "project_files", lambda: [tmp_path / "file"])
    (tmp_path / "file").write_text("one")
    return played


def test_a_full_run_is_resumed_with_its_seed(
    played: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lanes that have passed are not repeated, as long as no file has changed."""
    assert full_run.main([]) == 1
    assert "lane db failed" in capsys.readouterr().out
    assert [lane for lane, _ in played] == [*LANES]
    seeds = {seed for _, seed in played}
    assert len(seeds) == 1
    assert full_run.main(["--resume"]) == 0
    assert played[len(LANES) :] == [("db", *seeds)]
    (tmp_path / "file").write_text("two")
    assert full_run.main(["--resume", "--lane", "unit", "--lane", "db"]) == 0
    assert [lane for lane, _ in played[len(LANES) + 1 :]] == ["unit", "db"]
    assert "all lanes are run" in capsys.readouterr().out


def test_an_interrupted_lane_is_run_again(
    played: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was finished before stays finished."""
    run_lane = full_run.run_lane

    def interrupted(lane: str, seed: int) -> LaneResult:
        if lane == "spark":
            raise KeyboardInterrupt
        return run_lane(lane, seed)

    monkeypatch.setattr(full_run, "run_lane", interrupted)
    assert full_run.main([]) == 130
    assert "--full --resume" in capsys.readouterr().out
    monkeypatch.setattr(full_run, "run_lane", run_lane)
    full_run.main(["--resume"])
    assert [lane for lane, _ in played] == [*LANES]
