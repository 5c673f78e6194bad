"""One DAG for all pipelines: maintenance and verification, once a day and on request."""

from tidemill import config
from tidemill.airflow.dags.maintenance import maintenance_dag
from tidemill.airflow.dags.pipelines import catalog_entries

maintenance = maintenance_dag(entry.pipeline for entry in catalog_entries(config.load()))
