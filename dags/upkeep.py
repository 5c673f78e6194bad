"""One DAG for all pipelines: upkeep and verification, run by Airflow once a day and whenever somebody asks."""

from tidemill import config
from tidemill.supervise.dags import standing_pipelines
from tidemill.supervise.upkeep import upkeep_dag

upkeep = upkeep_dag(found.pipeline for found in standing_pipelines(config.load()))
