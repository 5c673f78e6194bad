"""One DAG for each model of each pipeline: train, judge, score and publish it."""

from tidemill import config
from tidemill.airflow.dags.pipelines import catalog_entries
from tidemill.airflow.dags.refresh import refresh_dag

_settings = config.load()
for _entry in catalog_entries(_settings):
    for _model in _entry.pipeline.models:
        # Airflow loads the DAGs among the globals of a DAG file.
        globals()[f"refresh__{_entry.pipeline.name}__{_model}"] = refresh_dag(_settings, _entry, _model)
