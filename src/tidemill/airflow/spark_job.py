"""A Spark job of ours as a task: the provider's operator, with our one sentence in place of Spark's last lines."""

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
from tidemill.deploy.catalog import find_pipeline
from tidemill.errors import ConfigError, ModelError, TidemillError
from tidemill.ml.refresh import reopen_refresh
from tidemill.ml.registry.versions import read_refresh
from tidemill.resources import resource_folder
from tidemill.supervisor.spark_submit import spark_conf, spark_jars

TERMINAL = frozenset({ConfigError.exit_code, ModelError.exit_code})
"""Exit codes that no error has which may go away by itself."""
_EXIT_CODE = re.compile(r"Error code is: (\d+)")
_SENTENCE = re.compile(r"^tidemill: (.+)$", re.MULTILINE)


class SparkJob(SparkSubmitOperator):
    """``spark-submit`` of one of ``spark_jobs/``. Where it runs is the connection's to say.

    Raises:
        AirflowFailException: the job says, by its exit code, that another try would not help.
        AirflowException: it failed otherwise.
    """

    def execute(self, context: Any) -> None:
        """Submit, and wait. Spark's own words are in the log above the error."""
        try:
            super().execute(context)
        except AirflowException as error:
            raise self.explained(error) from None

    def explained(self, error: AirflowException) -> AirflowException:
        """What failed, in the job's own words where it left some."""
        code, said = reason(str(error))
        if code in TERMINAL and said:
            return AirflowFailException(said)
        return AirflowException(said) if said else error


class RefreshJob(SparkJob):
    """A job that is a step of a refresh.

    Args:
        pipeline: whose model.
        model: which.
        refresh: id of the refresh; a template.
    """

    template_fields: Sequence[str] = (*SparkSubmitOperator.template_fields, "refresh")

    def __init__(self, *, pipeline: str, model: str, refresh: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline, self.model, self.refresh = pipeline, model, refresh

    def execute(self, context: Any) -> None:
        """Open the refresh again where a person cleared this task, then submit."""
        try:
            with self._connection() as connection:
                reopen_refresh(
                    connection, find_pipeline(config.load(), self.pipeline).pipeline, self.model, int(self.refresh)
                )
        except ModelError as error:
            raise AirflowFailException(str(error)) from error
        try:
            super().execute(context)
        finally:
            # What the job has opened or closed, such as a drift. A database that is away hides no error of the job.
            with suppress(TidemillError), self._connection() as connection:
                notifications.notify(connection, f"model {self.pipeline}.{self.model}", context)

    def explained(self, error: AirflowException) -> AirflowException:
        """On a cluster that runs drivers itself there is neither exit code nor log; the refresh's row tells."""
        explained = super().explained(error)
        if isinstance(explained, AirflowFailException):
            return explained
        with self._connection() as connection:
            found = read_refresh(
                connection, int(self.refresh), find_pipeline(config.load(), self.pipeline).pipeline, self.model
            )
        return AirflowFailException(str(explained)) if found.state == "refused" else explained

    def _connection(self) -> closing[Connection[Any]]:
        return closing(TidemillHook().get_conn())


def reason(message: str) -> tuple[int | None, str | None]:
    """Exit code and sentence in what the provider's hook says of a failed ``spark-submit``; None where it has none."""
    code, said = _EXIT_CODE.search(message), _SENTENCE.findall(message)
    return int(code.group(1)) if code else None, said[-1].strip() if said else None


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
