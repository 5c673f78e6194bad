"""One DAG for all models: approve, reject or roll back a version by a form in Airflow."""

from tidemill import config
from tidemill.airflow.dags.control_models import control_models_dag
from tidemill.airflow.dags.pipelines import catalog_entries

control_models = control_models_dag(
    [f"{entry.pipeline.name}.{model}" for entry in catalog_entries(config.load()) for model in entry.pipeline.models]
)
