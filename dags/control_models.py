"""One DAG for all models: approve, reject or roll back a version by a form in Airflow's page."""

from tidemill import config
from tidemill.airflow.dags.models import models_dag
from tidemill.airflow.dags.streams import standing_pipelines

control_models = models_dag(
    [f"{found.pipeline.name}.{model}" for found in standing_pipelines(config.load()) for model in found.pipeline.models]
)
