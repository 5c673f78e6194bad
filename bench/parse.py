"""What it costs Airflow to read the DAG files: with 1, 50 and 200 pipeline folders, each time in a fresh process.

Airflow's processor reads every file again and again, and a worker reads one before each task. The folders are copies
of the project's first one. ``first`` is the reading that meets them for the first time and checks them, ``again`` is
the usual one, ``task`` is what a worker reads before a task of one stream.

Example: ``./tidemill bench parse`` (PIPELINES="1 50 200" and ROUNDS=3 change its size)
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill import config
from tidemill.config import Settings

PIPELINES = [int(number) for number in os.environ.get("PIPELINES", "1 50 200").split()]
ROUNDS = int(os.environ.get("ROUNDS", "3"))
_CHILD = """
import json, sys, time
began = time.perf_counter()
from airflow.dag_processing.dagbag import DagBag
import tidemill.airflow.dags.control_streams, tidemill.airflow.dags.stream, tidemill.airflow.dags.maintenance
imported = time.perf_counter()
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
print(json.dumps({"ms": (time.perf_counter() - imported) * 1000, "import_ms": (imported - began) * 1000,
                  "dags": len(bag.dags)}))
"""
"""Imports are measured apart: they cost the same for any number of pipelines."""


@contextmanager
def folders(settings: Settings, number: int) -> Iterator[dict[str, str]]:
    """So many pipeline folders, and an empty state folder; yields the environment that shows them."""
    source = min(settings.pipelines.glob("*/pipeline.yaml")).parent
    with tempfile.TemporaryDirectory(prefix="tidemill-parse-") as place:
        for each in range(number):
            name = f"p{each:03}"
            folder = Path(place, "pipelines", name)
            shutil.copytree(source, folder)
            text = (folder / "pipeline.yaml").read_text().replace(f"name: {source.name}\n", f"name: {name}\n", 1)
            (folder / "pipeline.yaml").write_text(text)
        yield os.environ | {
            "TIDEMILL_ROOT": str(settings.root),
            "TIDEMILL_PIPELINES": str(Path(place, "pipelines")),
            "TIDEMILL_STATE": str(Path(place, "state")),
            "AIRFLOW_HOME": str(Path(place, "airflow")),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONWARNINGS": "ignore",
        }


def parse(file: Path, environment: dict[str, str]) -> dict[str, float]:
    """One reading of a DAG file in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(file)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{file.name} could not be read: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(settings: Settings) -> dict[int, dict[str, float]]:
    """Median milliseconds by number of pipelines, and by what was read."""
    files = sorted(settings.root.glob("dags/*.py"))
    results: dict[int, dict[str, float]] = {}
    imports: list[float] = []
    for number in PIPELINES:
        with folders(settings, number) as environment:
            first = parse(settings.root / "dags" / "rejected_pipelines.py", environment)["ms"]
            found = {}
            for file in files:
                runs = [parse(file, environment) for _ in range(ROUNDS)]
                found[file.name] = statistics.median(run["ms"] for run in runs)
                imports += [run["import_ms"] for run in runs]
            task = environment | {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "stream__p000"}
            runs = [parse(settings.root / "dags" / "streams.py", task) for _ in range(ROUNDS)]
            results[number] = found | {
                "all files, again": sum(found.values()),
                "rejected_pipelines.py, first": first,
                "streams.py, task": statistics.median(run["ms"] for run in runs),
            }
    print(f"imports, the same for any number of pipelines: {statistics.median(imports):.0f} ms a process")
    return results


def main() -> None:
    """Measure, and print one line for each DAG file."""
    results = measure(config.load())
    least, most = min(results), max(results)
    print(
        f"{'ms, median of ' + str(ROUNDS):<22}" + "".join(f"{number:>10}" for number in results) + "  a pipeline more"
    )
    for name in results[least]:
        more = (results[most][name] - results[least][name]) / max(most - least, 1)
        print(f"{name:<22}" + "".join(f"{found[name]:>10.1f}" for found in results.values()) + f"{more:>15.2f}")


if __name__ == "__main__":
    main()
