"""A training as a run of MLflow with its model, where the setting names a tracking server.

The database and the folder of models stay the record. ``mlflow.spark.load_model("runs:/<run>/model")`` loads the model.

The login, if the server wants one, is MLflow's own: ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

import pyspark

from tidemill.config import Settings
from tidemill.ml.registry import artifacts
from tidemill.ml.registry.versions import Refresh

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TEXT = 500
"""MLflow cuts a parameter's value at 6,000 characters, older servers at 500."""

_MODEL, _FILES = "model", "sparkml"


def log(
    settings: Settings, refresh: Refresh, version: int, columns: Mapping[str, Any], measured: Mapping[str, float | None]
) -> None:
    """Log a recorded version. What goes wrong is a line on the output, and never the training's failure.

    Args:
        settings: whose ``mlflow_tracking_uri`` says where; empty logs nothing.
        refresh: the refresh that trained it.
        version: its number.
        columns: of ``model_versions``, with ``details`` as text and ``artifact``, the place of the fitted model.
        measured: metric -> the version's value.
    """
    if not settings.mlflow_tracking_uri:
        return
    try:
        from mlflow import MlflowClient  # noqa: PLC0415 -- half a second that nobody else should pay

        _log(MlflowClient(settings.mlflow_tracking_uri), refresh, version, columns, measured)
    except Exception as error:  # noqa: BLE001 -- the version is recorded: whatever MLflow raises is told, not raised
        first = " ".join(str(error).split())[:300]
        sys.stdout.write(
            f"warning: version {version} of {refresh.pipeline}.{refresh.model} is not in MLflow:"
            f" {type(error).__name__}: {first}\n"
        )


def _log(
    client: MlflowClient,
    refresh: Refresh,
    version: int,
    columns: Mapping[str, Any],
    measured: Mapping[str, float | None],
) -> None:
    details = json.loads(str(columns["details"]))
    name = f"{refresh.pipeline}.{refresh.model}"
    experiment = client.get_experiment_by_name(name)
    found = client.create_experiment(name) if experiment is None else experiment.experiment_id
    tags = {"pipeline": refresh.pipeline, "model": refresh.model, "version": version, "refresh": refresh.id}
    run = client.create_run(found, tags={key: str(value) for key, value in tags.items()}, run_name=f"version {version}")
    run_id = run.info.run_id
    parameters = {"seed": details["seed"], **details["parameters"]}
    described = {key: columns[key] for key in ("train_from", "holdout_from", "holdout_until", "pipeline_version")}
    for key, value in (parameters | described).items():
        client.log_param(run_id, key, str(value)[:_TEXT])
    sizes = {key: columns[key] for key in ("train_rows", "holdout_rows", "train_seconds")}
    for key, value in (dict(measured) | sizes).items():
        if value is not None:
            client.log_metric(run_id, key, float(value))
    client.log_dict(run_id, details, "details.json")
    with artifacts.at_hand(str(columns["artifact"])) as files:
        client.log_artifacts(run_id, str(files), f"{_MODEL}/{_FILES}")
    client.log_text(run_id, json.dumps(_described()), f"{_MODEL}/MLmodel")
    client.set_terminated(run_id)


def _described() -> dict[str, Any]:
    """What MLflow's flavor ``spark`` reads beside a model in Spark's own format; YAML, of which JSON is a part."""
    spark = {
        "model_class": "pyspark.ml.pipeline.PipelineModel",
        "model_data": _FILES,
        "pyspark_version": pyspark.__version__,
    }
    return {"flavors": {"spark": spark}, "mlflow_version": installed("mlflow-skinny")}
