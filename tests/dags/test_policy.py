"""Rules for every DAG and for the plugin, and proof that each rule can be broken."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, BaseOperator

from tidemill import config
from tidemill.airflow.operators import StreamOperator
from tidemill.config import Settings
from tidemill.deploy import snapshots
from tidemill.spec import load_pipeline

FOR_ALL = {"maintenance", "control_streams", "control_models"}
"""DAGs that there are once, however many pipelines."""
WORDS = 40
"""A page of fewer words does not explain what to do when a task has failed."""


def has_owner(dag: DAG) -> bool:
    """Each task has an owner other than Airflow's default."""
    return all(task.owner and task.owner != "airflow" for task in dag.tasks)


def has_tags(dag: DAG) -> bool:
    """Ours, the kind, and the pipeline."""
    return "tidemill" in dag.tags and len(dag.tags) >= 3


def has_runbook(dag: DAG) -> bool:
    """It explains what to do when a task is red."""
    return bool(dag.doc_md) and "red" in dag.doc_md and len(dag.doc_md.split()) >= WORDS


def runs_alone(dag: DAG) -> bool:
    """Two runs at once would act on one stream or one model concurrently, and a backlog of runs is of no use.

    ``control_streams`` is the exception: the newest request counts, and it must not wait for the run of an older one.
    """
    return not dag.catchup and (dag.max_active_runs == 1 or dag.dag_id == "control_streams")


def retries_are_bounded(dag: DAG) -> bool:
    """Retries are set, few and slow, unless the next run is the retry."""
    return all(
        "retries" in dag.default_args
        and task.retries <= 8
        and (task.retries == 0 or task.retry_delay.total_seconds() >= 5)
        for task in dag.tasks
    )


def streams_are_not_retried(dag: DAG) -> bool:
    """A retry would skip the checks before it; the next run of the DAG makes them."""
    return all(task.retries == 0 for task in dag.tasks if isinstance(task, StreamOperator))


RULES = (has_owner, has_tags, has_runbook, runs_alone, retries_are_bounded, streams_are_not_retried)


@pytest.fixture(scope="module")
def bag(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> DagBag:
    """The project's DAGs, as Airflow's processor reads them."""
    with pytest.MonkeyPatch.context() as patch:
        # Tests of the pipeline ``tides`` may have come before, and have applied it.
        patch.setenv("TIDEMILL_STATE", str(tmp_path_factory.mktemp("state")))
        patch.setenv("TIDEMILL_PIPELINES", str(settings.root / "pipelines"))
        return DagBag(settings.root / "dags")


def test_every_file_imports_and_makes_what_the_pipelines_declare(bag: DagBag) -> None:
    """One stream and one replay a pipeline, one refresh a model, maintenance and controls for all, and nothing else."""
    assert bag.import_errors == {}
    refreshes = {"refresh__flights__late_arrival", "refresh__flights__delay_minutes"}
    assert set(bag.dags) == {"stream__flights", "replay__flights", *refreshes, *FOR_ALL}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_dag_keeps_the_rule(bag: DagBag, rule: Callable[[DAG], bool]) -> None:
    """Checked on every DAG there is."""
    assert [dag_id for dag_id, dag in bag.dags.items() if not rule(dag)] == []


def lawless(**changes: object) -> DAG:
    """A DAG that keeps every rule but for the changes."""
    lawful = {
        "schedule": None,
        "max_active_runs": 1,
        "catchup": False,
        "tags": ["tidemill", "stream", "tides"],
        "doc_md": "What to do when it is red. " * WORDS,
        "default_args": {"owner": "harbour", "retries": 1},
    }
    return DAG("lawless", start_date=datetime(2026, 1, 1), **(lawful | changes))


def with_task(dag: DAG, **arguments: object) -> DAG:
    """The DAG with one task."""
    BaseOperator(task_id="task", dag=dag, **arguments)
    return dag


def stream_with_retries() -> DAG:
    """A stream whose task is retried."""
    dag = lawless()
    StreamOperator(task_id="run", pipeline="tides", dag=dag, retries=3)
    return dag


@pytest.mark.parametrize(
    ("rule", "make"),
    [
        (has_owner, lambda: with_task(lawless(default_args={"retries": 1}))),
        (has_tags, lambda: lawless(tags=["tidemill"])),
        (has_runbook, lambda: lawless(doc_md="It turns red.")),
        (runs_alone, lambda: lawless(max_active_runs=2)),
        (runs_alone, lambda: lawless(catchup=True)),
        (retries_are_bounded, lambda: with_task(lawless(default_args={"owner": "harbour"}))),
        (retries_are_bounded, lambda: with_task(lawless(), retries=99)),
        (retries_are_bounded, lambda: with_task(lawless(), retry_delay=1)),
        (streams_are_not_retried, stream_with_retries),
    ],
)
def test_the_rule_can_be_broken(rule: Callable[[DAG], bool], make: Callable[[], DAG]) -> None:
    """A rule that nothing breaks guards nothing; a lawful DAG with a task passes it."""
    assert not rule(make())
    assert rule(with_task(lawless()))


READER = """
import json, sys
sys.path.insert(0, {src!r})
seen = []
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "sqlite3.connect", "subprocess.Popen",
             "os.system", "os.posix_spawn", "os.exec")
def watch(event, arguments):
    if event in FORBIDDEN:
        seen.append(f"{{event}} {{arguments[0]!r}}")
from airflow.dag_processing.dagbag import DagBag
sys.addaudithook(watch)
def read(place):
    seen.clear()
    before = set(sys.modules)
    bag = DagBag(place)
    engines = sorted((set(sys.modules) - before) & {{"pyspark", "py4j"}})
    errors = list(bag.import_errors.values())
    return {{"seen": [*seen], "engines": engines, "errors": errors, "dags": sorted(bag.dags)}}
print(json.dumps([read(place) for place in sys.argv[1:]]))
"""
"""Reads DAG files in a process that notes what it reaches for, whether or not that fails and who hides the failure."""

GREEDY = {
    "network": (
        "import socket; s = socket.socket(); s.settimeout(1); s.connect_ex(('127.0.0.1', 1))",
        "socket.connect",
    ),
    "database": (
        "import pymysql, contextlib\nwith contextlib.suppress(Exception): pymysql.connect(port=1)",
        "socket.connect",
    ),
    "program": ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
    "file database": ("import sqlite3; sqlite3.connect(':memory:')", "sqlite3.connect"),
    "Spark": ("import pyspark", "pyspark"),
}
"""What a DAG file must not do when it is parsed, and the event that shows it."""


@pytest.fixture(scope="module")
def reads(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """What a fresh process finds in this project's DAG files, parsed first, in the plugin, and in greedy files."""
    places = {"ours": settings.root / "dags", "plugin": tmp_path_factory.mktemp("plugin")}
    (places["plugin"] / "plugin.py").write_text("from airflow.sdk import DAG\nimport tidemill.console.plugin\n")
    for name, (line, _) in GREEDY.items():
        places[name] = tmp_path_factory.mktemp("greedy")
        (places[name] / "greedy.py").write_text(f"from airflow.sdk import DAG\n{line}\nDAG('greedy', schedule=None)\n")
    command = [sys.executable, "-c", READER.format(src=str(settings.root / "src")), *map(str, places.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return dict(zip(places, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_parsing_reaches_for_no_network_no_database_no_program_and_no_spark(
    reads: dict[str, dict[str, list[str]]],
) -> None:
    """An unavailable service removes no DAG, and parsing stays cheap."""
    found = reads["ours"]
    assert (found["seen"], found["engines"], found["errors"]) == ([], [], [])
    assert set(found["dags"]) > FOR_ALL


def test_loading_the_plugin_reaches_for_nothing_either(reads: dict[str, dict[str, list[str]]]) -> None:
    """Every process of Airflow loads it."""
    found = reads["plugin"]
    assert (found["seen"], found["engines"], found["errors"]) == ([], [], [])


@pytest.mark.parametrize("name", GREEDY)
def test_a_dag_file_that_reaches_for_something_is_found_out(reads: dict[str, dict[str, list[str]]], name: str) -> None:
    """Though it hides that it failed."""
    _, event = GREEDY[name]
    assert event in " ".join(reads[name]["seen"] + reads[name]["engines"])


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pipelines ``tides`` and ``surges``, of which Airflow's processes read."""
    for name in ("tides", "surges"):
        shutil.copytree(Path(__file__).parent / "pipelines" / "tides", tmp_path / "pipelines" / name)
    path = tmp_path / "pipelines" / "surges" / "pipeline.yaml"
    path.write_text(path.read_text().replace("name: tides", "name: surges"))
    monkeypatch.setenv("TIDEMILL_PIPELINES", str(tmp_path / "pipelines"))
    monkeypatch.setenv("TIDEMILL_STATE", str(tmp_path / "state"))
    return tmp_path / "pipelines"


OF_TIDES = {"stream__tides", "refresh__tides__flood", "replay__tides"}
OF_SURGES = {"stream__surges", "refresh__surges__flood", "replay__surges"}


def test_a_broken_pipeline_is_one_import_error_and_the_others_keep_their_dags(settings: Settings, two: Path) -> None:
    """The error names the folder, what is wrong there, and the remedy."""
    broken = two / "surges" / "pipeline.yaml"
    broken.write_text(broken.read_text() + "rollpus: {}\n")
    bag = DagBag(settings.root / "dags")
    assert set(bag.dags) == OF_TIDES | FOR_ALL
    [(file, error)] = bag.import_errors.items()
    assert Path(file).name == "rejected_pipelines.py"
    assert "pipeline surges: [TM-SPEC-KEY-UNKNOWN] unknown key" in error
    assert "did you mean rollups?" in error


def test_a_pipeline_that_breaks_after_it_was_applied_keeps_its_dags(settings: Settings, two: Path) -> None:
    """They are built from the version applied last, which their pages and the import error state."""
    snapshots.save_snapshot(config.load(), load_pipeline(two / "surges"), 5)
    (two / "surges" / "transform.sql").unlink()
    bag = DagBag(settings.root / "dags")
    assert set(bag.dags) == OF_TIDES | OF_SURGES | FOR_ALL
    [error] = bag.import_errors.values()
    assert "pipeline surges: [TM-SPEC-FILE-MISSING] tables." in error
    assert "version 5, applied last, stays in use" in error
    for dag_id in OF_SURGES:
        top = str(bag.dags[dag_id].doc_md).splitlines()[0]
        assert top.startswith("> **The pipeline folder is rejected")
        assert "version 5, applied last, stays in use" in top
    assert not any("The pipeline folder is rejected" in str(bag.dags[dag_id].doc_md) for dag_id in OF_TIDES)
    assert {"maintain__surges", "verify__surges"} < set(bag.dags["maintenance"].task_ids)
    assert "surges" in bag.dags["control_streams"].params.get_param("stream").schema["enum"]
    assert "surges.flood" in bag.dags["control_models"].params.get_param("model").schema["enum"]


def test_a_task_reads_only_its_own_pipeline(settings: Settings, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow names the DAG for which it parses a file before it runs a task."""
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "stream__surges")
    assert set(DagBag(settings.root / "dags" / "streams.py").dags) == {"stream__surges"}
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "maintenance")
    assert len(DagBag(settings.root / "dags" / "maintenance.py").dags["maintenance"].tasks) == 5


def test_dag_files_are_declarations_of_at_most_sixty_lines(settings: Settings) -> None:
    """What is longer belongs into the package."""
    files = list((settings.root / "dags").glob("*.py"))
    assert files
    assert [path.name for path in files if len(path.read_text().splitlines()) > 60] == []
