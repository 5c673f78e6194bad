"""One DAG for all streams: start, stop and restart them by a form in Airflow's page."""

from tidemill import config
from tidemill.airflow.dags.control import control_dag
from tidemill.airflow.dags.streams import catalog_entries

control_streams = control_dag([found.pipeline.name for found in catalog_entries(config.load())])
