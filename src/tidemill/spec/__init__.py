"""The pipeline folder as frozen, validated models.

Runs in every process: command line, DAG processor, tasks, API server, driver and Spark jobs. It imports nothing of
this package but ``errors``, and no Spark, Airflow or database client.
"""

from tidemill.spec.loader import load_pipeline, load_pipelines
from tidemill.spec.schema import (
    Check,
    Dimension,
    Model,
    Otherwise,
    Pipeline,
    Retention,
    Rollup,
    Source,
    Table,
    TableKind,
)

__all__ = [
    "Check",
    "Dimension",
    "Model",
    "Otherwise",
    "Pipeline",
    "Retention",
    "Rollup",
    "Source",
    "Table",
    "TableKind",
    "load_pipeline",
    "load_pipelines",
]
