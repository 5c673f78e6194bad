"""One DAG for all pipelines: maintenance and verification, run by Airflow once a day and whenever somebody asks."""

from tidemill import config
from tidemill.airflow.dags.maintenance import maintenance_dag
from tidemill.airflow.dags.streams import catalog_entries

maintenance = maintenance_dag(found.pipeline for found in catalog_entries(config.load()))
