"""One DAG for all pipelines: upkeep and verification, run by Airflow once a day and whenever somebody asks."""

from tidemill import config
from tidemill.airflow.dags.maintenance import upkeep_dag
from tidemill.airflow.dags.streams import standing_pipelines

upkeep = upkeep_dag(found.pipeline for found in standing_pipelines(config.load()))
