"""The pipeline folder as frozen, validated models.

Runs in every process: command line, DAG processor, tasks, API server, driver and Spark jobs. It imports nothing of
this package but ``errors``, and no Spark, Airflow or database client.
"""

from tidemill.spec.loader import load_pipeline, load_pipelines
from tidemill.spec.schema import Check, Dimension, Kind, Model, Otherwise, Pipeline, Retention, Rollup, Source, Table

__all__ = [
    "Check",
    "Dimension",
    "Kind",
    "Model",
    "Otherwise",
    "Pipeline",
    "Retention",
    "Rollup",
    "Source",
    "Table",
    "load_pipeline",
    "load_pipelines",
]
