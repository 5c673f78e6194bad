"""One DAG for all models: approve, reject or roll back a version by a form in Airflow's page."""

from tidemill import config
from tidemill.airflow.dags.models import models_dag
from tidemill.airflow.dags.streams import catalog_entries

control_models = models_dag(
    [f"{found.pipeline.name}.{model}" for found in catalog_entries(config.load()) for model in found.pipeline.models]
)
