"""One DAG for all streams: start, stop or restart them by a form in Airflow."""

from tidemill import config
from tidemill.airflow.dags.control_streams import control_streams_dag
from tidemill.airflow.dags.pipelines import catalog_entries

control_streams = control_streams_dag([entry.pipeline.name for entry in catalog_entries(config.load())])
