"""A training as a run of MLflow with its model, where the setting names a tracking server.

The database and the folder of models stay the record. ``mlflow.spark.load_model("runs:/<run>/model")`` loads the model.
The login, if the server requires one, is MLflow's own: ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

import pyspark

from tidemill.config import Settings
from tidemill.ml.registry import artifacts
from tidemill.ml.registry.details import VersionDetails
from tidemill.ml.registry.versions import NewVersion, Refresh

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_PARAMETER_CHARACTERS = 500
"""MLflow accepts 6,000 characters of a parameter's value, older servers 500."""
_MODEL, _FILES = "model", "sparkml"


def log(settings: Settings, refresh: Refresh, new: NewVersion, measured: Mapping[str, float | None]) -> None:
    """Log a recorded version. An error of MLflow is a warning in the log, and not the training's failure.

    Args:
        settings: its ``mlflow_tracking_uri`` names the server; where it is empty nothing is logged.
        refresh: the refresh that trained the version.
        new: the version as it was recorded.
        measured: metric -> the version's value.
    """
    if not settings.mlflow_tracking_uri:
        return
    try:
        from mlflow import MlflowClient  # noqa: PLC0415 -- half a second, which trainings without MLflow do not pay

        _log(MlflowClient(settings.mlflow_tracking_uri), refresh, new, measured)
    except Exception as error:  # noqa: BLE001 -- the version is recorded: whatever MLflow raises is only reported
        logger.warning(
            "version %s of %s.%s is not in MLflow: %s: %s",
            new.version,
            refresh.pipeline,
            refresh.model,
            type(error).__name__,
            " ".join(str(error).split())[:300],
        )


def _log(client: MlflowClient, refresh: Refresh, new: NewVersion, measured: Mapping[str, float | None]) -> None:
    details = VersionDetails.from_json(new.details)
    name = f"{refresh.pipeline}.{refresh.model}"
    experiment = client.get_experiment_by_name(name)
    experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
    tags = {"pipeline": refresh.pipeline, "model": refresh.model, "version": new.version, "refresh": refresh.id}
    run = client.create_run(
        experiment_id, tags={key: str(value) for key, value in tags.items()}, run_name=f"version {new.version}"
    )
    run_id = run.info.run_id
    described = {key: getattr(new, key) for key in ("train_from", "holdout_from", "holdout_until", "pipeline_version")}
    for key, value in {"seed": details.seed, **details.parameters, **described}.items():
        client.log_param(run_id, key, str(value)[:_PARAMETER_CHARACTERS])
    sizes = {key: getattr(new, key) for key in ("train_rows", "holdout_rows", "train_seconds")}
    for key, value in (dict(measured) | sizes).items():
        if value is not None:
            client.log_metric(run_id, key, float(value))
    client.log_dict(run_id, asdict(details), "details.json")
    client.log_text(run_id, new.training_distribution or "{}", "training_distribution.json")
    with artifacts.local_copy(new.artifact) as files:
        client.log_artifacts(run_id, str(files), f"{_MODEL}/{_FILES}")
    client.log_text(run_id, json.dumps(_mlmodel()), f"{_MODEL}/MLmodel")
    client.set_terminated(run_id)


def _mlmodel() -> dict[str, Any]:
    """What MLflow's flavor ``spark`` reads beside a model in Spark's own format; JSON is a part of YAML."""
    spark = {
        "model_class": "pyspark.ml.pipeline.PipelineModel",
        "model_data": _FILES,
        "pyspark_version": pyspark.__version__,
    }
    return {"flavors": {"spark": spark}, "mlflow_version": installed("mlflow-skinny")}
