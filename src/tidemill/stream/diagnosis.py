"""What Spark says of a failure -> its first real cause, as one sentence with a remedy for the usual ones.

The words that are looked for are those of Spark 4.2, Kafka's clients 3.9, the JVM and PyMySQL; the tests hold
excerpts of what they print.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tidemill import errors
from tidemill.errors import (
    ConfigError,
    DatabaseUnavailable,
    KafkaUnavailable,
    SourceError,
    StoreError,
    StreamError,
    TidemillError,
)

OURS = re.compile(r"^tidemill\.errors\.(\w+): (.+)$", re.MULTILINE)
"""How an error of ours stands in the traceback of a Python worker, which is all that Spark hands on of it."""
RESUMED = "all servers answer"
"""How a driver's log record begins that ends an outage: what the log holds before it was survived."""
_LONGEST = 500


@dataclass(frozen=True)
class _Known:
    """A cause that is known by its words."""

    words: re.Pattern[str]
    """May name a group ``value``: what the sentence quotes."""
    what: str
    remedy: str
    """``{stream}`` stands for the stream's name, where it is known."""
    kind: type[TidemillError] = StreamError
    last_word: bool = False
    """Whether nothing that is said after it matters: the process ends."""


def _known(words: str, what: str, remedy: str, kind: type[TidemillError] = StreamError, **more: bool) -> _Known:
    return _Known(re.compile(words), what, remedy, kind, **more)


_KNOWN = (
    # In the order of what brings about what: memory and disks first, silence of others last.
    _known(
        r"java\.lang\.OutOfMemoryError(?:: (?P<value>[^\n]+))?",
        "Spark's JVM ran out of memory",
        "give the driver more (TIDEMILL_SPARK_DRIVER_MEMORY), or lower source.max_records_per_batch",
        last_word=True,
    ),
    _known(
        r"\[INVALID_(?:DRIVER|EXECUTOR)_MEMORY\] (?P<value>[^\n]+?)\.?(?:\n|$)",
        "Spark is given less memory than it takes to start",
        "raise TIDEMILL_SPARK_DRIVER_MEMORY, or the pipeline's resources",
    ),
    _known(
        r"Python worker exited unexpectedly \(crashed\)",
        "a Python worker of Spark was killed, or ran out of memory",
        "see the system's log for an out-of-memory kill; give the machine more memory or Spark fewer cores",
    ),
    _known(
        r"[Ee]xit(?:ed with)? (?:code|status)(?: is)?:? 137\b",
        "an executor was killed (exit code 137), as a rule for want of memory",
        "give executors more memory, or fewer cores",
    ),
    _known(
        r"No space left on device|Disk quota exceeded",
        "no space is left on a disk of Spark's",
        "make room in the state folder and in the folder for temporary files",
    ),
    _known(
        r'Cannot run program "(?P<value>[^"]+)"',
        "Spark cannot start its Python",
        "have the interpreter at the same path on every machine that runs Spark",
    ),
    _known(
        r"No module named '(?P<value>tidemill(?:\.[\w.]+)?)'",
        "Spark's Python cannot import the platform",
        "install it for the interpreter that PYSPARK_PYTHON names, on every machine that runs Spark",
    ),
    _known(
        r"No module named '(?P<value>[\w.]+)'",
        "Spark's Python lacks a module",
        "install it for the interpreter that PYSPARK_PYTHON names, on every machine that runs Spark",
    ),
    _known(
        r"Failed to find (?:the )?data source: (?P<value>\w+)",
        "Spark's connectors are not among its jars",
        "run ./tidemill once: it fetches them",
    ),
    _known(
        r"(?:ClassNotFoundException|NoClassDefFoundError): (?P<value>[\w.$/]+)",
        "a class is missing from Spark's jars",
        "run ./tidemill once: it fetches them",
    ),
    _known(
        r"UnsupportedClassVersionError: (?P<value>[\w./$]+)",
        "this Java is too old for Spark",
        "install Java 17 and let JAVA_HOME name it",
    ),
    _known(
        r"JAVA_HOME is not set|JAVA_GATEWAY_EXITED|java: (?:command )?not found",
        "Spark finds no Java, or it ended at once",
        "install Java 17 and let JAVA_HOME name it",
    ),
    _known(
        r"UnknownTopicOrPartitionException|UnknownTopicIdException|Reason: Partitions [^\n]* have been deleted",
        "the topic does not exist, or lost partitions",
        "create it with ./tidemill apply {stream}",
        SourceError,
    ),
    _known(
        r"(?:SaslAuthentication|SslAuthentication|UnsupportedSaslMechanism)Exception: (?P<value>[^\n]+)",
        "Kafka refuses the stream's account",
        "correct the account that the stream connects with",
        SourceError,
    ),
    _known(
        r"(?:Topic|Group|Cluster)AuthorizationException: (?P<value>[^\n]+)",
        "Kafka does not let the stream's account read",
        "grant it Read and Describe on the topic",
        SourceError,
    ),
    _known(
        r"OffsetOutOfRangeException|Some data may have been lost because(?:[\s\S]{0,600}?Reason: (?P<value>[^\n]+))?",
        "Kafka no longer holds what the stream was to read next",
        "see the incident data-loss: raise the topic's retention, or set source.on_data_loss: skip",
        SourceError,
    ),
    _known(
        r"No resolvable bootstrap urls|Timed out waiting for a node assignment|DisconnectException"
        r"|Timeout of \d+ms expired before the position|Timeout expired while fetching topic metadata"
        r"|TimeoutException: Cannot fetch record for offset"
        r"|kafka\.common\.errors\.(?:Timeout|Network|LeaderNotAvailable|NotLeaderOrFollower|BrokerNotAvailable)Exception",
        "no Kafka broker answers",
        "is it up? ./tidemill status",
        KafkaUnavailable,
    ),
    _known(
        r"OperationalError\)?:? \((?:1044|1045|1698), ['\"](?P<value>[^\n]+?)['\"]\)",
        "the database refuses the account",
        "correct its password and rights",
        ConfigError,
    ),
    _known(
        r"OperationalError\)?:? \(1049, ['\"](?P<value>[^\n]+?)['\"]\)",
        "the database has no such schema",
        "create it with ./tidemill apply {stream}",
        StoreError,
    ),
    _known(
        r"OperationalError\)?:? \(20\d\d, ['\"](?P<value>[^\n]+?)['\"]\)",
        "the database cannot be reached",
        "is it up? ./tidemill status",
        DatabaseUnavailable,
    ),
    _known(
        r"All masters are unresponsive|Failed to connect to master (?P<value>[\w.:-]+)",
        "no Spark master answers",
        "start it, or correct the master of this stream",
    ),
    _known(
        r"Application has been killed\. Reason: (?P<value>[^\n]+)",
        "Spark's cluster ended the stream's application",
        "see the master's log",
    ),
    _known(
        r"ExecutorLostFailure \(executor \S+ exited[^\n]*?Reason: (?P<value>[^\n]+)",
        "executors were lost again and again",
        "see the logs of Spark's workers",
    ),
    _known(
        r"BindException: (?P<value>[^\n]+?)(?:: Service|$)",
        "Spark cannot listen where it should",
        "set SPARK_LOCAL_IP to an address of this machine",
    ),
    _known(
        r"UnknownHostException: (?P<value>[^\n:]+)",
        "this machine knows no host of that name",
        "correct the name, or the machine's resolver",
    ),
    _known(
        r"(?:java\.nio\.file\.AccessDeniedException: |PermissionError: \[Errno 13\] Permission denied: )(?P<value>.+)",
        "the driver may not use a file",
        "correct its owner or mode",
    ),
    _known(
        r"Py4JNetworkError|Answer from Java side is empty",
        "Spark's JVM ended under its Python",
        "see the driver's log, and the system's for an out-of-memory kill",
    ),
)


def named(text: str, stream: str | None = None, *, last_words: bool = False) -> TidemillError | None:
    """The usual cause that a text shows, None if it shows none.

    Args:
        text: of an exception, or of a log without what was survived.
        stream: for remedies that name it.
        last_words: look only for what ends the process wherever it stands.
    """
    for known in _KNOWN:
        found = known.words.search(text) if known.last_word or not last_words else None
        if found:
            value = found.groupdict().get("value")
            remedy = known.remedy.format(stream=stream or "").strip()
            return known.kind(known.what, value=value.strip().rstrip(".")[:_LONGEST] if value else None, remedy=remedy)
    return None


def cause(error: BaseException, stream: str | None = None) -> TidemillError:
    """The first real cause in what Spark hands on: an error of ours keeps its class."""
    if isinstance(error, TidemillError):
        return error
    text = str(error)
    if ours := OURS.search(text):
        kind = getattr(errors, ours.group(1), StreamError)
        return kind(ours.group(2)) if issubclass(kind, TidemillError) else StreamError(ours.group(2))
    if known := named(text, stream):
        return known
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return StreamError("the stream failed", value=(causes[-1] if causes else (lines or ["no reason given"])[0])[:500])
