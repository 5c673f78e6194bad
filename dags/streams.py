"""One DAG for each pipeline's stream: of the version applied last or, where none was, of its folder.

Why a pipeline has none is the import error of ``rejected_pipelines.py``.
"""

from tidemill import config
from tidemill.airflow.dags.pipelines import build_dags
from tidemill.airflow.dags.stream import stream_dags

# Airflow loads the DAGs among the globals of a DAG file.
globals().update(build_dags(config.load(), stream_dags))
