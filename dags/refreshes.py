"""One DAG for each model of each pipeline: train, judge, score and publish it."""

from tidemill import config
from tidemill.airflow.dags.pipelines import build_dags
from tidemill.airflow.dags.refresh import refresh_dags

# Airflow loads the DAGs among the globals of a DAG file.
globals().update(build_dags(config.load(), refresh_dags))
