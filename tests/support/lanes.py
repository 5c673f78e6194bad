"""The lanes of the suite, as a plugin of pytest: what a run selects, which seed it draws from, how long each test took.

Every test belongs to exactly one lane, and carries the lane's name as a marker: ``--lane db`` and ``-m db`` select it.
A test that is marked ``full`` proves more than every run needs: it is selected by ``--full`` alone. A run without
``--full`` draws everything that is random from one fixed seed; a run with it draws from a new one, which it prints.

A test that is skipped fails, because a server, a jar or a browser that it needs is missing. ``xfail`` is rejected: a
test that may fail protects nothing.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest

LANES = {
    "unit": "no servers, seconds; also ruff, mypy and import-linter",
    "spark": "a local Spark",
    "db": "MariaDB, and Kafka where records are read",
    "dags": "Airflow's DAGs, run in the test's own process on MariaDB and Kafka",
    "e2e": "streams with drivers of their own, and the embedded servers",
    "crashes": "SIGKILL at each point of the write path",
    "cluster": "Spark's standalone cluster",
    "airflow": "the whole stack under one running Airflow",
    "up": "`./tidemill up` as a person starts it",
}
"""Lane -> what its tests need; the cheap ones first, because what they find is known early."""
FULL = "full"
FIXED_SEED = 0
DURATIONS = Path(".tidemill") / "test-durations.json"
"""Relative to the project: lane -> its last whole run, with the seconds of each test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the lanes."""
    group = parser.getgroup("lanes")
    group.addoption("--full", action="store_true", help="also select the tests that are marked full")
    group.addoption("--lane", action="append", choices=[*LANES], help="only the tests of this lane; may be repeated")
    group.addoption("--seed", type=int, metavar="N", help="what random histories, feeds and faults are drawn from")
    group.addoption("--histories", type=int, metavar="N", help="how many histories of commits are played")
    group.addoption("--durations-file", type=Path, metavar="FILE", help=f"where durations are kept ({DURATIONS})")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed before hypothesis reads its own option, and begin to record durations."""
    full, named = config.getoption("full"), config.getoption("seed")
    config.stash[_seed] = named if named is not None else secrets.randbelow(2**32) if full else FIXED_SEED
    # Nothing here is judged by how long it takes.
    hypothesis.settings.register_profile("fixed", deadline=None, database=None, derandomize=True)
    hypothesis.settings.register_profile("drawn", deadline=None, database=None, print_blob=True)
    hypothesis.settings.load_profile("drawn" if full or named is not None else "fixed")
    if full or named is not None:
        config.option.hypothesis_seed = str(config.stash[_seed])
    if lanes := config.getoption("lane"):
        expressions = [config.option.markexpr, " or ".join(lanes)]
        config.option.markexpr = " and ".join(f"({each})" for each in expressions if each)
    config.pluginmanager.register(Recorder(config), "lane-recorder")


_seed = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def run_seed(pytestconfig: pytest.Config) -> int:
    """What this run draws from: 0 unless it is a full one or was given ``--seed``."""
    return pytestconfig.stash[_seed]


def pytest_report_header(config: pytest.Config) -> str:
    """Name the lane's thoroughness and the seed."""
    return f"lanes: {'full' if config.getoption('full') else 'short'}, seed {config.stash[_seed]}"


def lane_of(folder: str, fixtures: Iterable[str], named: Sequence[str]) -> str:
    """The lane of a test.

    Args:
        folder: the folder below ``tests/`` that the test is in.
        fixtures: names of the fixtures that it uses, directly or not.
        named: lanes that its markers name, the nearest first.

    Raises:
        ValueError: it is in none of the lanes.
    """
    lane = "airflow" if "airflow_stack" in fixtures else named[0] if named else folder
    if lane not in LANES:
        raise ValueError(f"is in none of the lanes {', '.join(LANES)}: {lane}")
    return lane


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with its lane, put the lanes in order, and leave out what only a full run selects.

    Raises:
        pytest.UsageError: a test is in no lane, has no docstring, or is marked xfail.
    """
    faults = []
    lanes: dict[str, str] = {}
    for item in items:
        try:
            lanes[item.nodeid] = _lane(config, item)
            item.add_marker(lanes[item.nodeid])
        except ValueError as error:
            faults.append(f"{item.nodeid} {error}")
        if isinstance(item, pytest.Function) and not (item.function.__doc__ or "").strip():
            faults.append(f"{item.nodeid} has no docstring that states the behaviour")
        if item.get_closest_marker("xfail"):
            faults.append(f"{item.nodeid} is marked xfail; fix it or delete it")
    if faults:
        raise pytest.UsageError("; ".join(faults))
    order = list(LANES)
    # The sort is stable.
    items.sort(key=lambda item: order.index(lanes[item.nodeid]))
    recorder = config.pluginmanager.get_plugin("lane-recorder")
    assert isinstance(recorder, Recorder)
    recorder.lanes = lanes
    if not config.getoption("full"):
        left_out = [item for item in items if item.get_closest_marker(FULL)]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker(FULL)]
            recorder.left_out = len(left_out)


def _lane(config: pytest.Config, item: pytest.Item) -> str:
    named = [str(mark.args[0]) for mark in item.iter_markers("lane")]
    folder = item.path.relative_to(config.rootpath / "tests").parts[0]
    return lane_of(folder, getattr(item, "fixturenames", ()), named)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that was skipped, or was expected to fail, has failed."""
    return _fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """So has a module that was skipped."""
    return _fail_if_skipped((yield))


R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


def _fail_if_skipped(report: R) -> R:
    if report.skipped or hasattr(report, "wasxfail"):
        why = report.longrepr[-1] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "no reason")
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {why}\nA test that is skipped or expected to fail fails the run."
        if hasattr(report, "wasxfail"):
            del report.wasxfail
    return report


class Recorder:
    """Counts what became of the tests of each lane, and how long they took."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.lanes: dict[str, str] = {}
        """Test -> lane, of everything that was collected."""
        self.left_out = 0
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._failed: set[str] = set()
        self._begun = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the seconds of a test's set-up, call or tear-down."""
        self._seconds[report.nodeid] += report.duration
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Keep the durations of whole lanes; those of a few chosen tests only where a file was named for them."""
        named = self.config.getoption("durations_file")
        whole = self.config.args_source is pytest.Config.ArgsSource.TESTPATHS and not self.config.option.keyword
        if self._seconds and (named or whole):
            write_durations(self.config.rootpath / (named or DURATIONS), self.sections())

    def sections(self) -> dict[str, Any]:
        """Lane -> how it went."""
        found = {}
        for lane in LANES:
            tests = {test: round(spent, 2) for test, spent in self._seconds.items() if self.lanes.get(test) == lane}
            if tests:
                found[lane] = {
                    "full": bool(self.config.getoption("full")),
                    "seed": self.config.stash[_seed],
                    "collected": dict(Counter(self.lanes.values())),
                    "passed": len(tests.keys() - self._failed),
                    "failed": len(tests.keys() & self._failed),
                    "seconds": round(sum(tests.values()), 1),
                    "tests": tests,
                }
        return found

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print how many tests a short run left out, and the seed that repeats a failed run."""
        if self.left_out:
            terminalreporter.write_line(f"{self.left_out} tests are left to ./tidemill test --full")
        if self._failed and self.config.stash[_seed] != FIXED_SEED:
            terminalreporter.write_line(f"everything random was drawn from --seed {self.config.stash[_seed]}")


def write_durations(path: Path, sections: dict[str, Any]) -> None:
    """Replace the lanes that were run in a file of durations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = json.loads(path.read_text()) if path.exists() else {}
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps(held | sections, indent=1, ensure_ascii=False))
    written.replace(path)


def pytest_unconfigure() -> None:
    """Let pytest's closing line be the last one.

    While the interpreter ends, extension modules report objects that were not freed, and Kafka's clients that their
    broker has gone.
    """
    atexit.register(_mute)


def _mute() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
