"""One DAG for each model of each pipeline: the feedback loop, run by Airflow."""

from tidemill import config
from tidemill.supervise.dags import standing_pipelines
from tidemill.supervise.refresh_dag import refresh_dag

_settings = config.load()
for _found in standing_pipelines(_settings):
    for _model in _found.pipeline.models:
        globals()[f"refresh__{_found.pipeline.name}__{_model}"] = refresh_dag(_settings, _found, _model)
