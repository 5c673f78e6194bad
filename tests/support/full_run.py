"""A full run of the suite: one process of pytest for each lane, which an interrupted run does not have to repeat.

What has been finished is kept in a state file together with a digest of all the project's files: ``--resume`` goes on
with the lanes that have not passed, as long as no file has changed. Each lane collects the whole suite before it
selects its own tests, so that at the end their numbers show whether every test was selected by exactly one lane.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support.lanes import DURATIONS, LANES
from support.paths import ROOT

STATE = ROOT / ".tidemill" / "test-lanes.json"
SLOWEST = 15


@dataclass
class LaneResult:
    """How one lane ended."""

    exit_code: int
    seconds: float
    passed: int = 0
    failed: int = 0
    collected: dict[str, int] = field(default_factory=dict)
    """Lane -> how many tests of the whole suite belong to it, as this lane's process counted them."""


@dataclass
class FullRun:
    """What is known of a full run."""

    tree: str
    """Digest of the project's files."""
    seed: int
    lanes: dict[str, LaneResult] = field(default_factory=dict)

    def save(self) -> None:
        """Write the state file."""
        STATE.parent.mkdir(parents=True, exist_ok=True)
        STATE.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls) -> FullRun | None:
        """The run that the state file describes, or None if there is none that can be read."""
        try:
            held = json.loads(STATE.read_text())
            lanes = {name: LaneResult(**result) for name, result in held["lanes"].items()}
            return cls(held["tree"], held["seed"], lanes)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def main(words: Sequence[str]) -> int:
    """Run the lanes; returns the exit code: 0 if all that were run have passed, and none is missing."""
    parser = argparse.ArgumentParser("./tidemill test --full", description=__doc__)
    parser.add_argument("--resume", action="store_true", help="go on with the lanes that have not passed yet")
    parser.add_argument("--lane", action="append", choices=[*LANES], help="run this lane only; may be repeated")
    parser.add_argument("--seed", type=int, help="what everything random is drawn from; a new one if left out")
    options = parser.parse_args(words)
    run = _begin(tree_digest(project_files()), options.seed, resume=options.resume)
    chosen = options.lane or [*LANES]
    for lane in chosen:
        if options.resume and passed(run.lanes.get(lane)):
            _print(f"lane {lane} has passed already")
            continue
        _print(f"=== lane {lane}: {LANES[lane]} (seed {run.seed}) ===")
        run.lanes.pop(lane, None)
        run.save()
        try:
            run.lanes[lane] = run_lane(lane, run.seed)
        except KeyboardInterrupt:
            _print(f"lane {lane} was interrupted; go on with ./tidemill test --full --resume")
            return 130
        run.save()
    for line in summary(run, chosen, slowest(ROOT / DURATIONS, chosen)):
        _print(line)
    return 1 if faults(run, chosen) else 0


def _begin(tree: str, seed: int | None, *, resume: bool) -> FullRun:
    held = FullRun.load()
    if resume and held and held.tree == tree and seed in (None, held.seed):
        return held
    if resume:
        _print("no run of these very files and this seed can be resumed; all lanes are run")
    return FullRun(tree, seed if seed is not None else secrets.randbelow(2**32))


def run_lane(lane: str, seed: int) -> LaneResult:
    """Run pytest on one lane, whose output goes where this process's goes."""
    begun = time.monotonic()
    report = STATE.with_name(f"test-lane-{lane}.json")
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "--full", f"--lane={lane}", f"--seed={seed}"]
    pytest = subprocess.Popen([*command, "--durations-file", str(report)], cwd=ROOT)
    try:
        code = pytest.wait()
    except KeyboardInterrupt:
        # The terminal has interrupted pytest, too: it stops its servers.
        pytest.wait()
        raise
    section = _take_report(report, lane)
    known = {name: section[name] for name in ("passed", "failed", "collected") if name in section}
    return LaneResult(code, round(time.monotonic() - begun, 1), **known)


def _take_report(report: Path, lane: str) -> dict[str, Any]:
    """What the lane's process wrote; moves it into the file of all durations."""
    if not report.exists():
        return {}
    section = json.loads(report.read_text()).get(lane, {})
    report.unlink()
    held = json.loads((ROOT / DURATIONS).read_text()) if (ROOT / DURATIONS).exists() else {}
    (ROOT / DURATIONS).write_text(json.dumps(held | {lane: section}, indent=1, ensure_ascii=False))
    return dict(section)


def passed(result: LaneResult | None) -> bool:
    """Whether a lane has ended well."""
    return result is not None and result.exit_code == 0 and result.failed == 0


def faults(run: FullRun, chosen: Iterable[str]) -> list[str]:
    """What keeps a run from having passed: lanes that failed, and tests that no lane or several lanes have run."""
    found = []
    for lane in chosen:
        result = run.lanes.get(lane)
        if result is None:
            found.append(f"lane {lane} was not run")
        elif not passed(result):
            found.append(f"lane {lane} failed: {result.failed} tests, exit code {result.exit_code}")
        elif (expected := result.collected.get(lane, 0)) != result.passed:
            found.append(f"lane {lane} ran {result.passed} of its {expected} tests")
        elif unknown := sum(count for name, count in result.collected.items() if name not in LANES):
            found.append(f"{unknown} tests are in no lane")
    return found


def slowest(durations: Path, chosen: Iterable[str], count: int = SLOWEST) -> list[tuple[float, str]]:
    """The tests that took longest, with their seconds."""
    held = json.loads(durations.read_text()) if durations.exists() else {}
    tests = [(spent, test) for lane in chosen for test, spent in held.get(lane, {}).get("tests", {}).items()]
    return sorted(tests, reverse=True)[:count]


def summary(run: FullRun, chosen: Sequence[str], slow: Iterable[tuple[float, str]]) -> list[str]:
    """The lines at the end of a run: the slowest tests, each lane, what failed, and one closing line."""
    lines = [f"{spent:8.1f} s  {test}" for spent, test in slow]
    lines = [f"the {len(lines)} slowest tests:", *lines, "lanes:"] if lines else ["lanes:"]
    results = {lane: run.lanes[lane] for lane in chosen if lane in run.lanes}
    for lane, result in results.items():
        state = "passed" if passed(result) else "FAILED"
        lines.append(f"{lane:>10}  {state}  {result.passed:5} passed {result.failed:4} failed {result.seconds:8.1f} s")
    wrong = faults(run, chosen)
    lines += wrong
    good, bad = (sum(getattr(result, name) for result in results.values()) for name in ("passed", "failed"))
    spent = sum(result.seconds for result in results.values())
    verdict = f"{len(wrong)} faults in lanes" if wrong else f"all {len(chosen)} lanes passed"
    lines.append(f"=== {verdict}: {good} passed, {bad} failed in {spent:.0f} s, seed {run.seed} ===")
    return lines


def project_files() -> list[Path]:
    """The files that a run depends on, as git knows them; of a copy without git, all outside hidden folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name]
    parts = (path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts))
    return [path for path in parts if "__pycache__" not in path.parts]


def tree_digest(files: Iterable[Path]) -> str:
    """One digest of names and contents."""
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.is_file():
            digest.update(f"{path}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
