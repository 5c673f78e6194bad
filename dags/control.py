"""One DAG for all streams: start, stop and restart them by a form in Airflow's page."""

from tidemill import config
from tidemill.supervise.control_dag import control_dag
from tidemill.supervise.dags import standing_pipelines

control_streams = control_dag([found.pipeline.name for found in standing_pipelines(config.load())])
