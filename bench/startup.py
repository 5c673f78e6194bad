"""What the commands that a person runs most often cost before they do anything, beside ``import pandas``.

Measures CPU time, user and system, of a process and everything it started and awaited; another process on the machine
hardly changes it. Every round runs all cases once, and ratios are of the medians of one run. ``./tidemill`` is the
launcher, a shell script, which replaces itself with Python: its own part is the difference to ``python -m tidemill``.

Example: ``./tidemill bench startup`` (ROUNDS=9 changes its size)
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tidemill import config

ROUNDS = int(os.environ.get("ROUNDS", "9"))
LIMITS = {"--help": 0.7, "check": 1.2}
"""Command -> the ratio to ``import pandas`` that it may not exceed."""


def cpu_seconds(argv: list[str], environment: dict[str, str]) -> float:
    """User and system time of one process and its children."""
    with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):  # 3: ``status`` without a stack
        raise SystemExit(f"{' '.join(argv)} ended with exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def cases(root: Path) -> dict[str, list[str]]:
    """What is measured, by name."""
    python = [sys.executable, "-m", "tidemill"]
    found = {"python": [sys.executable, "-c", ""], "import pandas": [sys.executable, "-c", "import pandas"]}
    for command in ("--help", "check", "status"):
        found[command] = [str(root / "tidemill"), command]
        found[f"{command}, without the launcher"] = [*python, command]
    return found


def main() -> None:
    """Measure, print a line for each case, and fail if a limit is exceeded."""
    root = config.load().root
    measured: dict[str, list[float]] = {name: [] for name in cases(root)}
    with tempfile.TemporaryDirectory(prefix="tidemill-startup-") as state:
        # An own state: ``status`` then measures the answer that there is no stack.
        environment = os.environ | {"TIDEMILL_ROOT": str(root), "TIDEMILL_STATE": state}
        for _ in range(ROUNDS):
            for name, argv in cases(root).items():
                measured[name].append(cpu_seconds(argv, environment))
    medians = {name: statistics.median(times) for name, times in measured.items()}
    print(f"{'CPU ms, median of ' + str(ROUNDS):<34}{'ms':>6}{'of pandas':>11}")
    for name, seconds in medians.items():
        limit = f"  (at most {LIMITS[name]:.2f})" if name in LIMITS else ""
        print(f"{name:<34}{seconds * 1000:>6.0f}{seconds / medians['import pandas']:>11.2f}{limit}")
    shell = statistics.median(medians[name] - medians[f"{name}, without the launcher"] for name in LIMITS)
    print(f"{'the launcher alone':<34}{shell * 1000:>6.0f}{shell / medians['import pandas']:>11.2f}")
    exceeded = [name for name, limit in LIMITS.items() if medians[name] > limit * medians["import pandas"]]
    if exceeded:
        raise SystemExit(f"over the limit: {', '.join(exceeded)}")


if __name__ == "__main__":
    main()
