"""A Spark job as a task: the provider's operator, failing with the job's own error instead of Spark's last lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from pymysql.connections import Connection

from tidemill import config
from tidemill.airflow import notifications
from tidemill.airflow.hook import TidemillHook
from tidemill.config import Settings
from tidemill.deploy.snapshots import applied_pipeline
from tidemill.errors import ConfigError, ModelError, TidemillError
from tidemill.ml.refresh import reopen_refresh
from tidemill.ml.registry.versions import read_refresh
from tidemill.resources import resource_folder
from tidemill.supervisor.spark_submit import spark_conf, spark_jars

TERMINAL = frozenset({ConfigError.exit_code, ModelError.exit_code})
"""Exit codes of errors that no retry can avoid."""
_EXIT_CODE = re.compile(r"Error code is: (\d+)")
_SENTENCE = re.compile(r"^tidemill: (.+)$", re.MULTILINE)


class SparkJob(SparkSubmitOperator):
    """``spark-submit`` of a job in ``spark_jobs/``. The Airflow connection decides where it runs.

    Raises:
        AirflowFailException: the job failed with an exit code of :data:`TERMINAL`; Airflow does not retry it.
        AirflowException: the job failed otherwise.
    """

    def execute(self, context: Any) -> None:
        """Submit the job and wait for it. Spark's own output is in the task's log above the error."""
        try:
            super().execute(context)
        except AirflowException as error:
            raise self.explained(error) from None

    def explained(self, error: AirflowException) -> AirflowException:
        """The provider's error, or the job's own one if it printed one."""
        code, sentence = exit_of(str(error))
        if code in TERMINAL and sentence:
            return AirflowFailException(sentence)
        return AirflowException(sentence) if sentence else error


class RefreshJob(SparkJob):
    """A Spark job that is a step of a refresh.

    Args:
        pipeline: name of the pipeline.
        model: name of its model.
        refresh: id of the refresh; a template.
    """

    template_fields: Sequence[str] = (*SparkSubmitOperator.template_fields, "refresh")

    def __init__(self, *, pipeline: str, model: str, refresh: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline, self.model, self.refresh = pipeline, model, refresh

    def execute(self, context: Any) -> None:
        """Reopen the refresh if a person has cleared this task, then submit the job."""
        try:
            with self._connection() as connection:
                spec, _ = applied_pipeline(config.load(), connection, self.pipeline)
                reopen_refresh(connection, spec, self.model, int(self.refresh))
        except ModelError as error:
            raise AirflowFailException(str(error)) from error
        try:
            super().execute(context)
        finally:
            # Incidents that the job has opened or closed, such as drift. An unavailable database must not replace the
            # job's own error.
            with suppress(TidemillError), self._connection() as connection:
                notifications.notify(connection, f"model {self.pipeline}.{self.model}", context)

    def explained(self, error: AirflowException) -> AirflowException:
        """The job's own error. Where a cluster runs the driver, the refresh's row replaces the exit code."""
        explained = super().explained(error)
        if isinstance(explained, AirflowFailException):
            return explained
        with self._connection() as connection:
            spec, _ = applied_pipeline(config.load(), connection, self.pipeline)
            refresh = read_refresh(connection, int(self.refresh), spec, self.model)
        return AirflowFailException(str(explained)) if refresh.state == "refused" else explained

    def _connection(self) -> closing[Connection[Any]]:
        return closing(TidemillHook().get_conn())


def exit_of(message: str) -> tuple[int | None, str | None]:
    """The exit code and the job's error in the provider's message on a failed ``spark-submit``; None where absent."""
    code, sentences = _EXIT_CODE.search(message), _SENTENCE.findall(message)
    return int(code.group(1)) if code else None, sentences[-1].strip() if sentences else None


def submission(job: str, settings: Settings, subject: str, arguments: list[str]) -> dict[str, Any]:
    """The operator's arguments for ``spark_jobs/<job>.py``."""
    return {
        "conn_id": "spark_default",
        "application": str(resource_folder("spark_jobs") / f"{job}.py"),
        "application_args": arguments,
        "name": f"tidemill {job} {subject}",
        "jars": spark_jars(settings) or None,
        "driver_memory": settings.spark_driver_memory,
        "conf": spark_conf(settings),
        "env_vars": settings.environment(),
    }
