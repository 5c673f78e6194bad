"""Declares no DAG: if a pipeline is rejected or has no DAGs of a kind, this file's import error names it.

It is a file of its own because Airflow disables every DAG of a file with an import error.
"""

from tidemill import config
from tidemill.airflow.dags.pipelines import fail_on_rejected_pipelines
from tidemill.airflow.dags.refresh import refresh_dags
from tidemill.airflow.dags.replay import replay_dags
from tidemill.airflow.dags.stream import stream_dags

fail_on_rejected_pipelines(config.load(), (stream_dags, replay_dags, refresh_dags))
