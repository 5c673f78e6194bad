"""One DAG for each pipeline: read records again, selected by a form in Airflow."""

from tidemill import config
from tidemill.airflow.dags.pipelines import catalog_entries
from tidemill.airflow.dags.replay import replay_dag

_settings = config.load()
for _entry in catalog_entries(_settings):
    # Airflow loads the DAGs among the globals of a DAG file.
    globals()[f"replay__{_entry.pipeline.name}"] = replay_dag(_settings, _entry)
