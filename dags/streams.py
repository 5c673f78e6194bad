"""One DAG for each pipeline's stream: of its folder or, if that is rejected, of the version applied last.

The reason for a rejection is the import error of ``rejected_pipelines.py``.
"""

from tidemill import config
from tidemill.airflow.dags.pipelines import catalog_entries
from tidemill.airflow.dags.stream import stream_dag

for _entry in catalog_entries(config.load()):
    # Airflow loads the DAGs among the globals of a DAG file.
    globals()[f"stream__{_entry.pipeline.name}"] = stream_dag(_entry)
