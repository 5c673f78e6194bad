"""The pipeline folder as frozen, validated models. Knows no Spark, no Airflow and no database."""

from tidemill.spec.load import load_pipeline, load_pipelines
from tidemill.spec.model import Check, Dimension, Kind, Model, Otherwise, Pipeline, Retention, Rollup, Source, Table

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
