"""What is edited in a pipeline's folder and not applied: commands, tasks, jobs and the console answer as before."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tidemill import config
from tidemill.airflow.dags import maintenance, refresh_tasks, replay_tasks
from tidemill.cli import main as cli
from tidemill.config import Account, Settings
from tidemill.console.queries import read_status
from tidemill.deploy.apply import apply_all
from tidemill.kafka import clients
from tidemill.spark_jobs import job
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import leases, ledger, replays, streams
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.transaction import Batch, write_batch

TIDES = Path(__file__).parent / "pipelines" / "tides"
NAME = "lagoons"
AT = dt.datetime(2026, 1, 1)
FORM = {"kind": "offsets", "offsets": "0:0-2", "from": None, "until": None, "reason": None, "ids": [], "dry_run": True}


@pytest.fixture(scope="module")
def lagoons(connections: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a pipeline like ``tides``, applied, with four committed records of two Kafka partitions."""
    folder = tmp_path_factory.mktemp("pipelines") / NAME
    folder.mkdir()
    for path in TIDES.iterdir():
        text = path.read_text().replace("tides", NAME).replace("floods_by", "lagoons_by").replace("tide_s", "lagoon_s")
        (folder / path.name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIDEMILL_PIPELINES", str(folder.parent))
        settings, pipeline = config.load(), load_pipeline(folder)
        apply_all(settings, [pipeline], lambda line: None)
        _commit_four(settings, pipeline)
        yield folder


def _commit_four(settings: Settings, pipeline: Pipeline) -> None:
    producer = clients.producer(settings)
    for number in range(4):
        producer.produce(NAME, b"{}", partition=number % 2)
    assert producer.flush(60) == 0
    with session(settings, Account.STREAM) as connection:
        streams.request_state(connection, NAME, "stopped", "a test")
        epoch = leases.acquire_lease(connection, NAME, 1, "a test")
        ledger.begin_at(connection, NAME, NAME, {0: 0, 1: 0})
    for partition in (0, 1):
        rows = {
            "id": pa.array([partition, partition + 2], pa.int64()),
            "station": pa.array(["north", "south"]),
            **{name: pa.array([1, 2], pa.int32()) for name in ("height", "wind", "flooded")},
            **{name: pa.array([AT, AT], pa.timestamp("us", "UTC")) for name in ("read_at", "updated_at")},
            "_offset": pa.array([0, 1], pa.int64()),
        }
        batch = Batch(1, Range(partition, 0, 2), rows={NAME: pa.table(rows)})
        write_batch(settings, pipeline, WriteContext(NAME, epoch, 1, NAME), batch)


def answers(settings: Settings) -> dict[str, Any]:
    """What everything that acts on the stack says of the pipeline, or does."""
    found: dict[str, Any] = {}
    for words in (
        ("verify", NAME, "--deep"),
        ("maintain", NAME, "--dry-run", "--json"),
        ("models", "show", f"{NAME}.flood"),
        ("quarantine", NAME),
        ("stop", NAME),
    ):
        ran = CliRunner().invoke(cli.app, words)
        found[" ".join(words)] = ran.exit_code, ran.stdout, repr(ran.exception)
    status = json.loads(CliRunner().invoke(cli.app, ["status", "--json"]).stdout)
    found["status"] = [(each["rows"], each["lag_records"]) for each in status["streams"] if each["stream"] == NAME]
    models = json.loads(CliRunner().invoke(cli.app, ["models", "--json"]).stdout)
    found["models"] = [each for each in models if each["pipeline"] == NAME]
    requested = replay_tasks.request(NAME, run_id="a run", params=FORM)
    with session(settings, Account.STREAM) as connection:
        replay = replays.read(connection, requested)
        replays.fail(connection, requested, "it was only requested")  # maintenance waits for those that run
    found["replay"] = replay.pipeline_version, replay.selection
    with refresh_tasks.open_pipeline(NAME) as (spec, _):
        found["refresh"] = spec.digest, spec.models
    maintenance._verify(NAME)  # raises what it finds
    maintenance._maintain(NAME, params={"dry_run": True})
    found["job"] = job.applied(settings, NAME)
    current = read_status(settings)
    found["console"] = (
        [each.slo_seconds for each in current.streams if each.stream == NAME],
        [each.metric for each in current.models if each.pipeline == NAME],
        [each for each in current.incidents if NAME in each.subject],
    )
    return found


def _change(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def _rename(folder: Path) -> None:
    for name in ("pipeline.yaml", "transform.sql", "features.sql"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("r.wind", "r.wind AS gust").replace("wind", "gust"))


EDITS: dict[str, Callable[[Path], None]] = {
    "a rollup": _change("pipeline.yaml", "floods: sum(flooded)", "floods: sum(height)"),
    "another table": _change("pipeline.yaml", f"  {NAME}:\n    from", "  ponds:\n    from"),
    "a column": _rename,
    "features": _change("features.sql", "t.height, ", ""),
    "another model": _change("pipeline.yaml", "  flood:\n", "  deluge:\n"),
    "the promise": _change("pipeline.yaml", "freshness_seconds: 600", "freshness_seconds: 6"),
    "the topic": _change("pipeline.yaml", f"topic: {NAME}", "topic: ponds"),
    "no YAML": lambda folder: (folder / "pipeline.yaml").write_text("name: ["),
    "no folder": shutil.rmtree,
}
"""Each makes at least one command, task or job answer otherwise if it reads the folder."""


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(edit, id=name, marks=[] if name in ("a rollup", "no folder") else pytest.mark.full)
        for name, edit in EDITS.items()
    ],
)
def test_an_edit_that_is_not_applied_changes_no_answer(
    lagoons: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    edit: Callable[[Path], None],
) -> None:
    """Of no command, task or job, nor of the console; that there is an edit is said on standard error and in logs."""
    before = answers(config.load())
    assert before[f"verify {NAME} --deep"][:2] == (0, f"{NAME}: ledger, Kafka and tables agree\n")
    assert before["status"] == [({NAME: 4, "lagoons_by_station": 2}, 0)]
    folder = Path(shutil.copytree(lagoons, tmp_path / "pipelines" / NAME))
    edit(folder)
    monkeypatch.setenv("TIDEMILL_PIPELINES", str(folder.parent))
    with caplog.at_level("WARNING"):
        after = answers(config.load())
    assert after == before
    said = f"version 1 of {NAME}, which was applied last, stays in use"
    assert caplog.text.count(said) >= 3, "a replay, a refresh and a job"
    assert said in CliRunner().invoke(cli.app, ["verify", NAME]).stderr
