"""What a failed Spark job says in Airflow, and whether it is tried again."""

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from tidemill.airflow.spark_job import SparkJob, reason

HEAD = "Cannot execute: spark-submit --master local[2] score.py. Error code is: {code}.\nLast lines:\n"
TAIL = "26/03/01 WARN NativeCodeLoader: Unable to load\ntidemill: a model cannot be scored; train first\nbye\n"


def explained(message: str) -> AirflowException:
    """What the task raises."""
    return SparkJob(task_id="score", application="score.py").explained(AirflowException(message))


def test_the_jobs_own_sentence_is_what_the_task_says() -> None:
    """Spark's lines stand in the log above it."""
    assert str(explained(HEAD.format(code=5) + TAIL)) == "a model cannot be scored; train first"


@pytest.mark.parametrize(("code", "terminal"), [(1, False), (2, True), (4, False), (5, False), (8, True), (137, False)])
def test_only_what_may_go_away_by_itself_is_tried_again(code: int, terminal: bool) -> None:
    """A wrong pipeline and a model that cannot be scored do not; a database that is away, or a killed process, may."""
    assert isinstance(explained(HEAD.format(code=code) + TAIL), AirflowFailException) is terminal


def test_a_job_that_said_nothing_is_told_by_spark() -> None:
    """As the provider's operator does, and it is tried again."""
    message = HEAD.format(code=8) + "java.lang.OutOfMemoryError"
    assert str(explained(message)) == message
    assert not isinstance(explained(message), AirflowFailException)


def test_a_message_without_a_code_has_none() -> None:
    """A cluster that runs the driver itself gives neither."""
    assert reason("Driver driver-1 exited with status FAILED") == (None, None)
