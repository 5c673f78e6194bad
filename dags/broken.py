"""Makes no DAG: it fails to import when a pipeline folder is refused, and its import error says why.

In a file of its own, because Airflow takes every DAG of a file with an import error out of service.
"""

from tidemill import config
from tidemill.airflow.dags.streams import refuse_broken_pipelines

refuse_broken_pipelines(config.load())
