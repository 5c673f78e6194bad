"""One DAG for each pipeline: read records again, by a form in Airflow's page."""

from tidemill import config
from tidemill.airflow.dags.streams import catalog_entries, replay_dag

_settings = config.load()
for _found in catalog_entries(_settings):
    globals()[f"replay__{_found.pipeline.name}"] = replay_dag(_settings, _found)
