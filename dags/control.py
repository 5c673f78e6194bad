"""One DAG for all streams: start, stop and restart them by a form in Airflow's page."""

from tidemill import config
from tidemill.airflow.dags.control import control_dag
from tidemill.airflow.dags.streams import standing_pipelines

control_streams = control_dag([found.pipeline.name for found in standing_pipelines(config.load())])
