"""One DAG for all models: approve, reject or roll back a version by a form in Airflow's page."""

from tidemill import config
from tidemill.supervise.dags import standing_pipelines
from tidemill.supervise.models_dag import models_dag

control_models = models_dag(
    [f"{found.pipeline.name}.{model}" for found in standing_pipelines(config.load()) for model in found.pipeline.models]
)
