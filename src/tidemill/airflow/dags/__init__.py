"""The factories of all DAGs, and their tasks that need no Spark.

Runs in the DAG processor, which only declares, and in task processes. The factory of a DAG is in the module of its
name; its other tasks are in the modules beside it.
"""

from __future__ import annotations

from datetime import UTC, datetime

START_DATE = datetime(2024, 1, 1, tzinfo=UTC)
"""Airflow requires a date from which a DAG may be scheduled; any date in the past will do."""
