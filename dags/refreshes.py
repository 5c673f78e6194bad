"""One DAG for each model of each pipeline: the feedback loop, run by Airflow."""

from tidemill import config
from tidemill.airflow.dags.refresh import refresh_dag
from tidemill.airflow.dags.streams import catalog_entries

_settings = config.load()
for _found in catalog_entries(_settings):
    for _model in _found.pipeline.models:
        globals()[f"refresh__{_found.pipeline.name}__{_model}"] = refresh_dag(_settings, _found, _model)
