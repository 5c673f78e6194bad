"""The first real cause, out of logs as drivers really write them.

The files in ``driver_logs/`` are what Spark 4.2 wrote when the thing was brought about; stacks are cut to two lines.
"""

from pathlib import Path

import pytest

from tidemill.errors import (
    ConfigError,
    DatabaseUnavailable,
    KafkaUnavailable,
    SourceError,
    StoreError,
    StreamError,
    TidemillError,
    Transient,
    catalog,
)
from tidemill.stream.diagnosis import RESUMED, cause, recognise
from tidemill.stream.log_rotation import LogRotator
from tidemill.supervisor.log_diagnosis import first_cause, known_cause, log_tail

BANNER = """\
WARNING: Using incubator modules: jdk.incubator.vector
26/11/22 17:05:04 INFO SparkContext: Running Spark version 4.2.0
Setting Spark log level to "WARN".
"""
WRAPPED = (
    BANNER
    + """\
26/11/22 17:12:01 ERROR MicroBatchExecution: Query [id = 1] terminated with error
org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 3.0 failed 1 times
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:1)
Caused by: org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "worker.py", line 1, in main
    process()
tidemill.errors.StoreError: the database refused a statement: 1146: Table 'operational.flights' doesn't exist

\tat org.apache.spark.api.python.BasePythonRunner.handlePythonException(PythonRunner.scala:1)
Traceback (most recent call last):
pyspark.errors.exceptions.captured.StreamingQueryException: [STREAM_FAILED] Query terminated with exception
"""
)
JAVA_ONLY = (
    BANNER
    + """\
Exception in thread "main" org.apache.spark.SparkException: Failed to get main class
\tat org.apache.spark.deploy.SparkSubmit.main(SparkSubmit.scala:1)
Caused by: java.io.IOException: cannot read the jar
\tat java.base/java.util.zip.ZipFile.open(ZipFile.java:1)
Caused by: java.nio.file.NoSuchFileException: /nowhere/kafka-clients.jar
\tat java.base/sun.nio.fs.UnixException.translate(UnixException.java:1)
\t... 12 more
26/11/22 17:12:02 WARN ShutdownHookManager: late
Caused by: java.lang.Error: of something later
"""
)
PYTHON_ONLY = """\
Traceback (most recent call last):
  File "/app/spark_jobs/stream.py", line 12, in <module>
    settings = config.load()
RuntimeError: the tide is out
"""
PY4J = (
    BANNER
    + """\
Traceback (most recent call last):
  File "stream.py", line 3, in main
py4j.protocol.Py4JJavaError: An error occurred while calling o58.start.
: org.apache.kafka.common.KafkaException: Failed to construct kafka consumer
\tat org.apache.kafka.clients.consumer.KafkaConsumer.<init>(KafkaConsumer.java:1)
"""
)
REPORTED = BANNER + f"tidemill: {StreamError('TM-STREAM-NOT-APPLIED', value='flights', stream='flights')}\n"
TROUBLE = """\
26/11/22 17:12:01 ERROR MicroBatchExecution: Query [id = 1] terminated with error
org.apache.kafka.common.errors.TimeoutException: Timed out waiting for a node assignment. Call: describeTopics
"""
HEAD = "2026-11-22T17:12:02.000Z {} tidemill.stream.driver stream=flights epoch=7 "
ALL_IS_WELL = (
    f"{HEAD.format('WARNING')}waiting: no Kafka broker answers\n"
    f"{HEAD.format('INFO')}{RESUMED}; the stream resumes after 61.0 s\n"
)
ONLY_SURVIVED = TROUBLE + ALL_IS_WELL + BANNER
SURVIVED = TROUBLE + ALL_IS_WELL + "java.io.IOException: of now\n"
WARNED = (
    BANNER
    + """\
26/11/22 17:12:01 WARN TaskSetManager: Lost task 0.0 in stage 0.0 (TID 0): java.io.IOException: survived
\tat org.apache.spark.Some.thing(Some.scala:1)
Caused by: java.net.UnknownHostException: worker-3
26/11/22 17:12:09 ERROR Executor: java.io.IOException: of now
"""
)
WARNED_BY_US = (
    BANNER
    + HEAD.format("WARNING")
    + "the heartbeat failed: java.io.IOException: survived\n"
    + "Traceback (most recent call last):\nRuntimeError: of now\n"
)
REPORTED_TWICE = "tidemill: of another time\ntidemill: of now\n"
MEMORY = BANNER + "Terminating due to java.lang.OutOfMemoryError: Java heap space\n"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (WRAPPED, "the database refused a statement: 1146: Table 'operational.flights' doesn't exist"),
        (JAVA_ONLY, "java.nio.file.NoSuchFileException: /nowhere/kafka-clients.jar"),
        (PYTHON_ONLY, "RuntimeError: the tide is out"),
        (PY4J, "org.apache.kafka.common.KafkaException: Failed to construct kafka consumer"),
        (REPORTED, REPORTED.removeprefix(BANNER).removeprefix("tidemill: ").strip()),
        (
            MEMORY,
            "[TM-STREAM-JVM-OUT-OF-MEMORY] the JVM of Spark ran out of memory: Java heap space; give the driver more"
            " memory (TIDEMILL_SPARK_DRIVER_MEMORY), or lower source.max_records_per_batch",
        ),
        (SURVIVED, "java.io.IOException: of now"),
        (ONLY_SURVIVED, 'Setting Spark log level to "WARN".'),
        (WARNED, "java.io.IOException: of now"),
        (REPORTED_TWICE, "of now"),
        (WARNED_BY_US, "RuntimeError: of now"),
    ],
    ids=[
        "ours inside Spark's",
        "innermost Java",
        "Python",
        "behind the gateway",
        "reported by the entry",
        "memory",
        "after what was survived",
        "nothing but what was survived",
        "graver than a warning",
        "reported last",
        "graver than a warning of the driver",
    ],
)
def test_names_the_first_real_cause(tmp_path: Path, text: str, cause: str) -> None:
    """Wrappers that do not name their cause are passed over."""
    log = tmp_path / "driver.log"
    log.write_text(text)
    assert first_cause(log) == cause


def test_a_log_without_any_exception_gives_its_last_line_and_no_known_cause(tmp_path: Path) -> None:
    """A killed driver leaves an ordinary line, which is no cause."""
    log = tmp_path / "driver.log"
    log.write_text(BANNER)
    assert first_cause(log) == 'Setting Spark log level to "WARN".'
    assert known_cause(log) is None


def test_a_missing_and_an_empty_log_are_reported_as_such(tmp_path: Path) -> None:
    """A reader of the sentence knows that there is nothing to look at."""
    empty = tmp_path / "empty.log"
    empty.touch()
    assert first_cause(tmp_path / "none.log") == f"there is no log {tmp_path / 'none.log'}"
    assert first_cause(empty).startswith(f"the log {empty} is empty")
    assert log_tail(empty) == f"the log {empty} is empty"


def test_the_tail_is_the_last_lines_only(tmp_path: Path) -> None:
    """A long log does not flood the task's log."""
    log = tmp_path / "driver.log"
    log.write_text("\n".join(f"line {number}" for number in range(1000)))
    assert log_tail(log, 3) == "line 997\nline 998\nline 999"


LOGS = Path(__file__).parent / "driver_logs"
PRODUCED = {
    "address": ("TM-STREAM-ADDRESS-NOT-BOUND", "bind(..) failed with error(-99): Cannot assign requested address"),
    "disk_full": ("TM-STREAM-DISK-FULL", None),
    "executors_lost": ("TM-STREAM-EXECUTOR-KILLED", None),
    "kafka_silent": ("TM-KAFKA-UNAVAILABLE", None),
    "kafka_unknown_host": ("TM-KAFKA-UNAVAILABLE", None),
    "no_connector": ("TM-STREAM-CONNECTOR-MISSING", "kafka"),
    "no_interpreter": ("TM-STREAM-PYTHON-NOT-STARTED", "/nowhere/python3"),
    "no_master": ("TM-STREAM-NO-MASTER", None),
    "no_module": ("TM-STREAM-MODULE-MISSING", "tidemill_nowhere"),
    "no_topic": ("TM-STREAM-TOPIC-MISSING", None),
    "offsets_gone": ("TM-STREAM-RECORDS-GONE", "Partition few-0 offset was changed from 100 to 0"),
    "out_of_memory": ("TM-STREAM-JVM-OUT-OF-MEMORY", "Java heap space"),
    "too_little_memory": (
        "TM-STREAM-MEMORY-TOO-SMALL",
        "System memory 314572800 must be at least 471859200",
    ),
    "worker_killed": ("TM-STREAM-WORKER-CRASHED", None),
}
"""Log -> code and the beginning of the value of the error that it comes down to."""


@pytest.mark.parametrize("name", sorted(PRODUCED))
def test_what_spark_wrote_is_named_in_one_sentence_with_a_remedy(tmp_path: Path, name: str) -> None:
    """Forty lines of two languages come down to what a person does."""
    log = tmp_path / "flights-7.log"
    log.write_text((LOGS / f"{name}.txt").read_text())
    code, value = PRODUCED[name]
    found = first_cause(log)
    parsed = catalog.parse(found)
    assert parsed is not None
    assert parsed.code == code
    assert (parsed.value or "").startswith(value or "")
    assert catalog.find(code).remedy
    assert "\n" not in found


def test_every_log_that_was_produced_is_looked_at() -> None:
    """None lies there without a sentence."""
    assert {path.stem for path in LOGS.iterdir()} == set(PRODUCED)


WORDS = [
    # Words of Spark 4.2, Kafka's clients 3.9, the JVM and PyMySQL that were not brought about here.
    (
        "x.SaslAuthenticationException: Authentication failed: Invalid username or password",
        SourceError,
        "Authentication",
    ),
    ("x.TopicAuthorizationException: Not authorized to access topics: [flights]", SourceError, "[flights]"),
    ("x.GroupAuthorizationException: Not authorized to access group: spark-kafka-1", SourceError, "spark-kafka-1"),
    (
        "x.OffsetOutOfRangeException: Fetch position 7 is out of range for partition flights-0",
        SourceError,
        "TM-STREAM-RECORDS-GONE",
    ),
    (
        "Some data may have been lost because they are not available in Kafka any more;",
        SourceError,
        "TM-STREAM-RECORDS-GONE",
    ),
    (
        "Some data may have been lost because …\nReason: Partitions Set(flights-1) have been deleted.",
        SourceError,
        "apply flights",
    ),
    (
        "x.UnknownTopicOrPartitionException: This server does not host this topic-partition.",
        SourceError,
        "apply flights",
    ),
    (
        "x.TimeoutException: Timed out waiting for a node assignment. Call: describeTopics",
        KafkaUnavailable,
        "TM-KAFKA-UNAVAILABLE",
    ),
    (
        "x.TimeoutException: Timeout of 60000ms expired before the position for partition flights-0",
        KafkaUnavailable,
        "TM-KAFKA-UNAVAILABLE",
    ),
    (
        "x.KafkaException: No resolvable bootstrap urls given in bootstrap.servers",
        KafkaUnavailable,
        "TM-KAFKA-UNAVAILABLE",
    ),
    (
        "pymysql.err.OperationalError: (2003, \"Can't connect to MySQL server on 'db'\")",
        DatabaseUnavailable,
        "Can't connect",
    ),
    (
        "pymysql.err.OperationalError: (2013, 'Lost connection to MySQL server during query')",
        DatabaseUnavailable,
        "Lost",
    ),
    ("pymysql.err.OperationalError: (1045, \"Access denied for user 'x'@'y'\")", ConfigError, "Access denied"),
    ("pymysql.err.OperationalError: (1049, \"Unknown database 'tidemill'\")", StoreError, "apply flights"),
    ("Container killed on request. Exit code is 137", StreamError, "memory"),
    ("Command exited with code 137", StreamError, "memory"),
    ("java.lang.NoClassDefFoundError: org/apache/kafka/common/TopicPartition", StreamError, "org/apache/kafka"),
    ("java.lang.ClassNotFoundException: org.apache.spark.sql.kafka010.KafkaSourceProvider", StreamError, "kafka010"),
    ("ModuleNotFoundError: No module named 'tidemill'", StreamError, "TM-STREAM-PACKAGE-MISSING"),
    ("ERROR Application has been killed. Reason: Master removed our application: FAILED", StreamError, "removed our"),
    (
        "ExecutorLostFailure (executor 2 exited unrelated to the running tasks) Reason: Worker lost",
        StreamError,
        "Worker lost",
    ),
    ("java.net.UnknownHostException: worker-3: Name or service not known", StreamError, "worker-3"),
    ("PermissionError: [Errno 13] Permission denied: '/srv/state/scratch'", StreamError, "/srv/state/scratch"),
    ("JAVA_HOME is not set", StreamError, "Java 17"),
    ("py4j.protocol.Py4JNetworkError: Answer from Java side is empty", StreamError, "TM-STREAM-JVM-ENDED"),
]


@pytest.mark.parametrize(("words", "kind", "sentence"), WORDS, ids=[words[:40] for words, _, _ in WORDS])
def test_known_words_have_a_kind_and_a_remedy(words: str, kind: type[TidemillError], sentence: str) -> None:
    """A transient condition is of a class that is retried; a remedy names the stream where it is known."""
    found = recognise(f"something before\n{words}\n\tat of.Java(Some.java:1)", "flights")
    assert type(found) is kind
    assert found.remedy
    assert sentence in str(found)
    assert isinstance(found, Transient) is issubclass(kind, Transient)
    assert str(cause(RuntimeError(words), "flights")) == str(found)


def test_an_unknown_exception_is_quoted() -> None:
    """Its innermost cause is the value of the error."""
    assert recognise("java.io.IOException: the tide is out") is None
    assert str(cause(RuntimeError("a\nCaused by: b\nCaused by: c"))).startswith("[TM-STREAM-FAILED] ")
    assert recognise("tidemill.errors.StoreError: x", ends_process=True) is None


def test_a_log_that_was_just_rotated_is_read_across_the_boundary(tmp_path: Path) -> None:
    """The cause of the end may be in the former part."""
    log = tmp_path / "flights-7.log"
    log.write_text(JAVA_ONLY)
    assert LogRotator(log, 100).rotate()
    with log.open("a") as file:
        file.write("26/11/22 17:12:03 WARN ShutdownHookManager: later\n")
    assert first_cause(log) == "java.nio.file.NoSuchFileException: /nowhere/kafka-clients.jar"
    assert log_tail(log, 2).splitlines()[-1].endswith("later")
    assert len(log_tail(log, 2).splitlines()) == 2
