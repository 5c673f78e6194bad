"""Which errors a driver waits for, and how long."""

from contextlib import nullcontext

import pytest
from pyspark.errors import PySparkException

from tidemill.config import Settings
from tidemill.errors import (
    Contention,
    DatabaseUnavailable,
    Fenced,
    KafkaUnavailable,
    StoreError,
    StreamError,
    TidemillError,
    Transient,
)
from tidemill.retry import Backoff
from tidemill.spec import load_pipeline
from tidemill.stream import outage
from tidemill.stream.diagnosis import cause
from tidemill.stream.driver_status import DriverStatus
from tidemill.stream.outage import BACKOFF, MOST_FAILURES, Recovery, ended_by

WORKER = (
    "An exception was thrown from the Python worker: Traceback (most recent call last):\n"
    '  File "batch.py", line 163, in write\n'
    "tidemill.errors.{0}\n SQLSTATE: 38000"
)
STREAM = "[STREAM_FAILED] Query [id = 1, runId = 2] terminated with exception: {0} SQLSTATE: XXKST"


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        pytest.param(WORKER.format("DatabaseUnavailable: it cannot be reached: 2013: Lost"), True, id="unavailable"),
        pytest.param(WORKER.format("DatabaseReadOnly: the database takes no writes now: 1290"), True, id="read-only"),
        pytest.param(WORKER.format("DatabaseFull: the database has no space left: 1021: Disk"), True, id="full"),
        pytest.param(WORKER.format("Contention: the database gave way: 1213: Deadlock"), True, id="contention"),
        pytest.param(WORKER.format("StoreError: the database refused a statement: 1054"), False, id="refused"),
        pytest.param(WORKER.format("Fenced: [TM-STORE-LEASE-LOST] another driver"), False, id="fenced"),
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
def test_transient_errors_are_recognised_in_what_spark_passes_on(text: str, waits: bool) -> None:
    """An error of ours keeps its class on its way through a worker's traceback; Kafka's are known by their words."""
    assert isinstance(cause(RuntimeError(text)), Transient) is waits


def test_silence_of_kafka_has_a_type_of_its_own() -> None:
    """The driver treats it unlike the database's: it can be asked whether it is there."""
    assert isinstance(cause(RuntimeError(STREAM.format("No resolvable bootstrap urls given"))), KafkaUnavailable)


def test_pauses_grow_to_a_few_seconds() -> None:
    """A server that is back is found within seconds, and one that is unavailable is not asked without pause."""
    pauses = [BACKOFF.pause_seconds(failures) for failures in range(2, 14)]
    assert 0.2 < pauses[0] <= 0.5
    assert all(BACKOFF.longest_seconds / 2 <= pause <= BACKOFF.longest_seconds for pause in pauses[5:])


class Servers:
    """A database and a Kafka that answer, or raise these errors first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *errors: TidemillError) -> None:
        self.errors, self.checks = list(errors), 0
        monkeypatch.setattr(outage, "session", lambda settings, account: nullcontext())
        monkeypatch.setattr(outage, "admin", lambda settings: None)
        monkeypatch.setattr(outage, "topic_id", lambda client, topic, seconds: "an id")
        monkeypatch.setattr(outage, "BACKOFF", Backoff(0, 0))
        monkeypatch.setattr(outage, "explain_failure", lambda connection, client, pipeline: None)

    def report(self, connection: object) -> None:
        """The heartbeat by which the driver checks the database."""
        self.checks += 1
        if self.errors:
            raise self.errors.pop(0)


def recovery(settings: Settings, servers: Servers) -> tuple[Recovery, DriverStatus]:
    """Of a driver whose heartbeat goes to these servers."""
    pipeline = load_pipeline(settings.pipelines / "flights")
    status = DriverStatus(pipeline)
    return Recovery(settings, pipeline, 1, status, servers), status  # type: ignore[arg-type]


UNAVAILABLE = KafkaUnavailable("TM-KAFKA-UNAVAILABLE", value="no answer")
REFUSED = StoreError("TM-STREAM-SCHEMA-MISSING", stream="flights")


def test_an_outage_is_waited_for_however_often(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """What is waited for is in the heartbeat; a server that did not answer is reason enough to begin counting anew."""
    for _ in range(3 * MOST_FAILURES):
        servers = Servers(monkeypatch, DatabaseUnavailable("TM-STORE-UNAVAILABLE"))
        recover, status = recovery(settings, servers)
        recover.recover(UNAVAILABLE, was_steady=False)
        assert servers.checks == 2
        assert "TM-STORE-UNAVAILABLE" in (status.waiting_for or "")


def test_queries_that_fail_although_all_servers_answer_end_the_driver(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """After some in a row; a query that committed begins a new row. Contention is always tried again."""
    recover, _ = recovery(settings, Servers(monkeypatch))
    for _ in range(MOST_FAILURES - 1):
        recover.recover(UNAVAILABLE, was_steady=False)
    recover.recover(UNAVAILABLE, was_steady=True)
    for _ in range(MOST_FAILURES - 2):
        recover.recover(UNAVAILABLE, was_steady=False)
    with pytest.raises(KafkaUnavailable):
        recover.recover(UNAVAILABLE, was_steady=False)
    recover, _ = recovery(settings, Servers(monkeypatch))
    for _ in range(3 * MOST_FAILURES):
        recover.recover(Contention("TM-STREAM-STALE-TASK"), was_steady=False)


def test_a_lasting_error_ends_the_driver_at_once(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """That of the query, that of a server that is checked, and that of another thread, which goes before both."""
    recover, _ = recovery(settings, Servers(monkeypatch))
    with pytest.raises(StoreError):
        recover.recover(REFUSED, was_steady=True)
    recover, _ = recovery(settings, Servers(monkeypatch, REFUSED))
    with pytest.raises(StoreError):
        recover.recover(UNAVAILABLE, was_steady=True)
    recover, status = recovery(settings, Servers(monkeypatch))
    status.end(Fenced("TM-STREAM-TOPIC-REGISTERED", stream="flights"))
    with pytest.raises(Fenced):
        recover.recover(REFUSED, was_steady=True)


def test_a_stop_request_ends_the_wait(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """No server is asked any more."""
    servers = Servers(monkeypatch, UNAVAILABLE)
    recover, status = recovery(settings, servers)
    status.end()
    recover.recover(UNAVAILABLE, was_steady=False)
    assert servers.checks == 0


def test_a_topic_that_brokers_deny_is_waited_for(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """While leaders are elected they deny what they have; if Kafka has lost something, that is the error."""
    recover, _ = recovery(settings, Servers(monkeypatch))
    denied = RuntimeError(STREAM.format("org.apache.kafka.common.errors.UnknownTopicOrPartitionException: no"))
    assert type(recover.explain(denied)) is KafkaUnavailable
    lost = StreamError("TM-STREAM-OFFSETS-LOST", topic="flights", offsets=3)
    monkeypatch.setattr(outage, "explain_failure", lambda connection, client, pipeline: lost)
    assert recover.explain(denied) is lost


def test_what_a_batch_raised_is_preferred_to_what_spark_makes_of_it() -> None:
    """Spark passes on text; an error of Tidemill that was raised outside a batch is itself the cause."""
    of_spark, of_batch = PySparkException("text"), ValueError("itself")
    assert ended_by(of_spark, of_batch) is of_batch
    assert ended_by(of_spark, None) is of_spark
    assert ended_by(REFUSED, of_batch) is REFUSED
