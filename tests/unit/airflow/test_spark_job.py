"""The error of a failed Spark job in Airflow, and whether Airflow retries it."""

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from tidemill.airflow.spark_job import SparkJob, exit_of

HEAD = "Cannot execute: spark-submit --master local[2] score.py. Error code is: {code}.\nLast lines:\n"
TAIL = "26/03/01 WARN NativeCodeLoader: Unable to load\ntidemill: a model cannot be scored; train first\nbye\n"


def explained(message: str) -> AirflowException:
    """What the task raises."""
    return SparkJob(task_id="score", application="score.py").explained(AirflowException(message))


def test_the_jobs_own_error_is_the_tasks_error() -> None:
    """Spark's lines are in the log above it."""
    assert str(explained(HEAD.format(code=5) + TAIL)) == "a model cannot be scored; train first"


@pytest.mark.parametrize(("code", "terminal"), [(1, False), (2, True), (4, False), (5, False), (8, True), (137, False)])
def test_only_transient_failures_are_retried(code: int, terminal: bool) -> None:
    """A wrong pipeline and a model that cannot be scored are terminal; an unavailable database or a kill is not."""
    assert isinstance(explained(HEAD.format(code=code) + TAIL), AirflowFailException) is terminal


def test_without_an_error_of_the_job_the_providers_error_is_raised() -> None:
    """And Airflow retries the task."""
    message = HEAD.format(code=8) + "java.lang.OutOfMemoryError"
    assert str(explained(message)) == message
    assert not isinstance(explained(message), AirflowFailException)


def test_a_message_without_a_code_has_none() -> None:
    """Where a cluster runs the driver, the provider reports neither."""
    assert exit_of("Driver driver-1 exited with status FAILED") == (None, None)
