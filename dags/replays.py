"""One DAG for each pipeline: read records again, selected by a form in Airflow."""

from tidemill import config
from tidemill.airflow.dags.pipelines import build_dags
from tidemill.airflow.dags.replay import replay_dags

# Airflow loads the DAGs among the globals of a DAG file.
globals().update(build_dags(config.load(), replay_dags))
