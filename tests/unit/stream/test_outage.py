"""Which errors a driver waits for, and how long."""

import pytest

from tidemill.errors import KafkaUnavailable, Transient
from tidemill.stream.diagnosis import cause
from tidemill.stream.outage import BACKOFF

WORKER = (
    "An exception was thrown from the Python worker: Traceback (most recent call last):\n"
    '  File "batch.py", line 163, in write\n'
    "tidemill.errors.{0}\n SQLSTATE: 38000"
)
STREAM = "[STREAM_FAILED] Query [id = 1, runId = 2] terminated with exception: {0} SQLSTATE: XXKST"


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        pytest.param(WORKER.format("DatabaseUnavailable: the database cannot be reached: 2013: Lost"), True, id="away"),
        pytest.param(WORKER.format("DatabaseReadOnly: the database takes no writes now: 1290"), True, id="read-only"),
        pytest.param(WORKER.format("DatabaseFull: the database has no space left: 1021: Disk"), True, id="full"),
        pytest.param(WORKER.format("Contention: the database gave way: 1213: Deadlock"), True, id="contention"),
        pytest.param(WORKER.format("StoreError: the database refused a statement: 1054"), False, id="refused"),
        pytest.param(WORKER.format("Fenced: stream s was taken over: epoch 1, now 2"), False, id="fenced"),
        pytest.param(
            STREAM.format(
                "java.util.concurrent.ExecutionException: org.apache.kafka.common.errors.TimeoutException:"
                " Timed out waiting for a node assignment. Call: describeTopics"
            ),
            True,
            id="Spark's driver asks for offsets",
        ),
        pytest.param(
            "Job aborted due to stage failure: Task 0 in stage 9.0 failed 1 times\n"
            "java.util.concurrent.TimeoutException: Cannot fetch record for offset 7 in 20000 milliseconds",
            True,
            id="a task polls",
        ),
        pytest.param(
            "org.apache.kafka.common.errors.TimeoutException: Timeout of 15000ms expired before the position for"
            " partition t-0 could be determined",
            True,
            id="a task asks for its position",
        ),
        pytest.param(STREAM.format("[KAFKA_DATA_LOSS.COULD_NOT_READ_OFFSET_RANGE] …"), False, id="data loss"),
        pytest.param(STREAM.format("java.lang.OutOfMemoryError: Java heap space"), False, id="memory"),
    ],
)
def test_what_may_go_away_is_known_from_what_spark_hands_on(text: str, waits: bool) -> None:
    """An error of ours keeps its class on its way through a worker's traceback; Kafka's are known by their words."""
    assert isinstance(cause(RuntimeError(text)), Transient) is waits


def test_silence_of_kafka_has_a_type_of_its_own() -> None:
    """The driver treats it unlike the database's: it can be asked whether it is there."""
    assert isinstance(cause(RuntimeError(STREAM.format("No resolvable bootstrap urls given"))), KafkaUnavailable)


def test_pauses_grow_to_a_few_seconds() -> None:
    """A server that is back is found within seconds, and one that is away is not asked without pause."""
    pauses = [BACKOFF.pause_seconds(failures) for failures in range(2, 14)]
    assert 0.2 < pauses[0] <= 0.5
    assert all(BACKOFF.longest_seconds / 2 <= pause <= BACKOFF.longest_seconds for pause in pauses[5:])
