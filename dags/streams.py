"""One DAG for each pipeline's stream: of its folder or, where that is refused, of the version applied last.

What is refused, and why, is the import error of ``broken.py``.
"""

from tidemill import config
from tidemill.airflow.dags.streams import catalog_entries, stream_dag

for _found in catalog_entries(config.load()):
    # Airflow takes what it finds among the globals of a DAG file.
    globals()[f"stream__{_found.pipeline.name}"] = stream_dag(_found)
