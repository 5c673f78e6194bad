"""Declares no DAG: if a pipeline folder is rejected, this file fails to import, and its import error names the reason.

It is a file of its own because Airflow disables every DAG of a file with an import error.
"""

from tidemill import config
from tidemill.airflow.dags.pipelines import fail_on_rejected_folders

fail_on_rejected_folders(config.load())
