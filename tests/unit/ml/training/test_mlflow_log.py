"""Trainings as runs of MLflow, in a store of files that MLflow itself reads back."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tidemill.config import Settings
from tidemill.ml.registry.details import VersionDetails
from tidemill.ml.registry.versions import NewVersion, Refresh
from tidemill.ml.training import mlflow_log

REFRESH = Refresh(9, "shop", "returns", "running", 4, None, None)
DETAILS = VersionDetails(seed=7, parameters={"maxIter": 4}, importance={"amount": 1.0})
DISTRIBUTION = '{"amount": {"kind": "number", "edges": [1.0], "shares": [0.5, 0.5, 0.0]}}'
NEW = NewVersion(
    version=2,
    refresh_id=9,
    pipeline_version=3,
    artifact="-",
    checksum=None,
    as_of_commit=4,
    train_from=datetime(2026, 3, 1),
    holdout_from=datetime(2026, 4, 1),
    holdout_until=datetime(2026, 5, 1),
    train_rows=1_249,
    holdout_rows=251,
    train_seconds=4.5,
    training_distribution=DISTRIBUTION,
    details=DETAILS.to_json(),
)
MEASURED = {"areaUnderROC": 0.75, "areaUnderPR": None}


@pytest.fixture
def store(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a store of files, which MLflow 3 opens only where a variable allows it."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return settings.model_copy(update={"mlflow_tracking_uri": (tmp_path / "runs").as_uri()})


def test_a_training_is_a_run(store: Settings, tmp_path: Path) -> None:
    """Each version is a run of the model's experiment: tags, parameters, metrics, the details as a file, and the model.

    That MLflow loads the model is in ``tests/spark/test_learn.py``.
    """
    fitted = tmp_path / "fitted"
    (fitted / "metadata").mkdir(parents=True)
    (fitted / "metadata" / "part-00000").write_text("{}")
    for version in (1, 2):
        mlflow_log.log(store, REFRESH, replace(NEW, version=version, artifact=str(fitted)), MEASURED)
    client = MlflowClient(store.mlflow_tracking_uri)
    [experiment] = [each for each in client.search_experiments() if each.name == "shop.returns"]
    found = {run.data.tags["version"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"1", "2"}
    run = found["2"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "version 2")
    assert {key: run.data.tags[key] for key in ("pipeline", "model", "refresh")} == {
        "pipeline": "shop",
        "model": "returns",
        "refresh": "9",
    }
    assert run.data.params["maxIter"] == "4"
    assert run.data.params["seed"] == "7"
    assert run.data.params["holdout_from"] == "2026-04-01 00:00:00"
    assert run.data.metrics == {
        "areaUnderROC": 0.75,
        "train_rows": 1_249.0,
        "holdout_rows": 251.0,
        "train_seconds": 4.5,
    }
    kept = client.download_artifacts(run.info.run_id, "details.json", str(tmp_path))
    assert VersionDetails(**json.loads(Path(kept).read_text()) | {"calibration": ()}) == DETAILS
    bins = client.download_artifacts(run.info.run_id, "training_distribution.json", str(tmp_path))
    assert Path(bins).read_text() == DISTRIBUTION
    model = Path(client.download_artifacts(run.info.run_id, "model", str(tmp_path)))
    assert (model / "sparkml" / "metadata" / "part-00000").read_text() == "{}"
    assert "spark" in json.loads((model / "MLmodel").read_text())["flavors"]


def test_a_server_that_fails_is_a_warning(
    store: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The version is recorded already: what MLflow raises is one line, and nothing else happens."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    unavailable = store.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    mlflow_log.log(unavailable, REFRESH, NEW, MEASURED)
    [record] = [each for each in caplog.records if each.name == mlflow_log.__name__]
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("version 2 of shop.returns is not in MLflow: ")
    assert "\n" not in record.getMessage()


def test_without_the_setting_mlflow_is_not_even_imported() -> None:
    """A training without MLflow does not pay for its import."""
    code = (
        "import sys, tidemill.ml.training.train as t; from tidemill import config;"
        "t.mlflow_log.log(config.load(), None, None, {}); print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
