"""What the two Spark jobs of a model's refresh have in common: training and scoring."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from pyspark.sql import SparkSession

from tidemill.config import Settings
from tidemill.ml.session import ml_session
from tidemill.spark_jobs.job import applied, run_job
from tidemill.spec.schema import Pipeline

Step = Callable[[SparkSession, Settings, Pipeline, str, int], int]
"""Takes the session, the settings, the pipeline, the model's name and the refresh's id."""


def refresh_job(name: str, result: str, step: Step, argv: Sequence[str] | None = None) -> int:
    """Run one step of a refresh; returns the exit code.

    Args:
        name: ``train`` or ``score``.
        result: the line to print, with ``{}`` for the number that the step returns.
        step: the work.
        argv: the arguments; those of the process if None.
    """
    parser = argparse.ArgumentParser(description=f"Step {name} of a model's refresh")
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--refresh", type=int, required=True, help="the id that begin_refresh returned")
    arguments = parser.parse_args(argv)
    model = f"{arguments.pipeline}.{arguments.model}"

    def work(settings: Settings) -> str:
        pipeline = applied(settings, arguments.pipeline)
        with ml_session(f"{name} {model}", settings) as spark:
            return result.format(step(spark, settings, pipeline, arguments.model, arguments.refresh))

    return run_job(work, job=name, model=model, refresh=arguments.refresh)
