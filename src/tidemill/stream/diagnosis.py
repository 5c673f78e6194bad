"""What Spark reports of a failure -> its first real cause, as an error of the catalog with a remedy.

The patterns match what Spark 4.2, the clients of Kafka 3.9, the JVM and PyMySQL print; the tests have excerpts of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tidemill import errors
from tidemill.errors import StreamError, TidemillError, catalog

FROM_WORKER = re.compile(r"^tidemill\.errors\.(?P<error>\w+): (?P<text>.+)$", re.MULTILINE)
"""How an error of Tidemill looks in the traceback of a Python worker, which is all that Spark passes on of it."""
RESUMED = "all servers answer"
"""How a driver's log record begins that ends an outage: what the log holds before it was survived."""
_PIPELINE = "<pipeline>"
"""What a remedy names where the stream is not known."""
_LONGEST = 500
_OF_PY4J = re.compile(r"An error occurred while calling \w+\.\w+\.?$")
"""The first line of an exception of Java in Python: the cause is in the next one."""


@dataclass(frozen=True)
class _Known:
    """A cause that is recognised by what is printed."""

    code: str
    pattern: str
    """A group ``value`` is what the error quotes."""
    ends_process: bool = False
    """Whether it is the cause wherever a log has it, whatever follows."""


_KNOWN = (
    # In the order of causation: memory and disks first, servers that do not answer last.
    _Known(
        "TM-STREAM-JVM-OUT-OF-MEMORY",
        r"java\.lang\.OutOfMemoryError(?:: (?P<value>[^\n]+))?",
        ends_process=True,
    ),
    _Known(
        "TM-STREAM-MEMORY-TOO-SMALL",
        r"\[INVALID_(?:DRIVER|EXECUTOR)_MEMORY\] (?P<value>[^\n]+?)\.?(?:\n|$)",
    ),
    _Known(
        "TM-STREAM-WORKER-CRASHED",
        r"Python worker exited unexpectedly \(crashed\)",
    ),
    _Known(
        "TM-STREAM-EXECUTOR-KILLED",
        r"[Ee]xit(?:ed with)? (?:code|status)(?: is)?:? 137\b",
    ),
    _Known(
        "TM-STREAM-DISK-FULL",
        r"No space left on device|Disk quota exceeded",
    ),
    _Known(
        "TM-STREAM-PYTHON-NOT-STARTED",
        r'Cannot run program "(?P<value>[^"]+)"',
    ),
    _Known(
        "TM-STREAM-PACKAGE-MISSING",
        r"No module named '(?P<value>tidemill(?:\.[\w.]+)?)'",
    ),
    _Known(
        "TM-STREAM-MODULE-MISSING",
        r"No module named '(?P<value>[\w.]+)'",
    ),
    _Known(
        "TM-STREAM-CONNECTOR-MISSING",
        r"Failed to find (?:the )?data source: (?P<value>\w+)",
    ),
    _Known(
        "TM-STREAM-CLASS-MISSING",
        r"(?:ClassNotFoundException|NoClassDefFoundError): (?P<value>[\w.$/]+)",
    ),
    _Known(
        "TM-STREAM-JAVA-TOO-OLD",
        r"UnsupportedClassVersionError: (?P<value>[\w./$]+)",
    ),
    _Known(
        "TM-STREAM-JAVA-MISSING",
        r"JAVA_HOME is not set|JAVA_GATEWAY_EXITED|java: (?:command )?not found",
    ),
    _Known(
        "TM-STREAM-TOPIC-MISSING",
        r"UnknownTopicOrPartitionException|UnknownTopicIdException|Reason: Partitions [^\n]* have been deleted",
    ),
    _Known(
        "TM-STREAM-KAFKA-CREDENTIALS",
        r"(?:SaslAuthentication|SslAuthentication|UnsupportedSaslMechanism)Exception: (?P<value>[^\n]+)",
    ),
    _Known(
        "TM-STREAM-KAFKA-NOT-AUTHORIZED",
        r"(?:Topic|Group|Cluster)AuthorizationException: (?P<value>[^\n]+)",
    ),
    _Known(
        "TM-STREAM-RECORDS-GONE",
        r"OffsetOutOfRangeException|Some data may have been lost because(?:[\s\S]{0,600}?Reason: (?P<value>[^\n]+))?",
    ),
    _Known(
        "TM-KAFKA-UNAVAILABLE",
        r"No resolvable bootstrap urls|Timed out waiting for a node assignment|DisconnectException"
        r"|Timeout of \d+ms expired before the position|Timeout expired while fetching topic metadata"
        r"|TimeoutException: Cannot fetch record for offset"
        r"|kafka\.common\.errors\.(?:Timeout|Network|LeaderNotAvailable|NotLeaderOrFollower|BrokerNotAvailable)Exception",
    ),
    _Known(
        "TM-STREAM-DATABASE-CREDENTIALS",
        r"OperationalError\)?:? \((?:1044|1045|1698), ['\"](?P<value>[^\n]+?)['\"]\)",
    ),
    _Known(
        "TM-STREAM-SCHEMA-MISSING",
        r"OperationalError\)?:? \(1049, ['\"](?P<value>[^\n]+?)['\"]\)",
    ),
    _Known(
        "TM-STORE-UNAVAILABLE",
        r"OperationalError\)?:? \(20\d\d, ['\"](?P<value>[^\n]+?)['\"]\)",
    ),
    _Known(
        "TM-STREAM-NO-MASTER",
        r"All masters are unresponsive|Failed to connect to master (?P<value>[\w.:-]+)",
    ),
    _Known(
        "TM-STREAM-APPLICATION-KILLED",
        r"Application has been killed\. Reason: (?P<value>[^\n]+)",
    ),
    _Known(
        "TM-STREAM-EXECUTORS-LOST",
        r"ExecutorLostFailure \(executor \S+ exited[^\n]*?Reason: (?P<value>[^\n]+)",
    ),
    _Known(
        "TM-STREAM-ADDRESS-NOT-BOUND",
        r"BindException: (?P<value>[^\n]+?)(?:: Service|$)",
    ),
    _Known(
        "TM-STREAM-HOST-UNKNOWN",
        r"UnknownHostException: (?P<value>[^\n:]+)",
    ),
    _Known(
        "TM-STREAM-FILE-PERMISSION",
        r"(?:java\.nio\.file\.AccessDeniedException: |PermissionError: \[Errno 13\] Permission denied: )(?P<value>.+)",
    ),
    _Known(
        "TM-STREAM-JVM-ENDED",
        r"Py4JNetworkError|Answer from Java side is empty",
    ),
)


def recognise(text: str, stream: str | None = None, *, ends_process: bool = False) -> TidemillError | None:
    """The cause that a text shows, None if it shows none that is known.

    Args:
        text: of an exception, or of a log.
        stream: for remedies that name it.
        ends_process: look only for causes that end the process.
    """
    for known in _KNOWN:
        match = re.search(known.pattern, text) if known.ends_process or not ends_process else None
        if match:
            value = match.groupdict().get("value")
            message = catalog.find(known.code)
            parameters = {"stream": stream or _PIPELINE} if "stream" in message.parameters else {}
            kind: type[TidemillError] = getattr(errors, message.error)
            return kind(known.code, value=value.strip().rstrip(".")[:_LONGEST] if value else None, **parameters)
    return None


def cause(error: BaseException, stream: str | None = None) -> TidemillError:
    """The first real cause in what Spark passes on. An error that Tidemill raised in a worker keeps class and code."""
    if isinstance(error, TidemillError):
        return error
    text = str(error)
    if match := FROM_WORKER.search(text):
        return _restored(match["error"], match["text"])
    if known := recognise(text, stream):
        return known
    lines = [line.strip(" \t:") for line in text.splitlines() if line.strip() and not _OF_PY4J.match(line)]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    value = causes[-1] if causes else (lines or ["no reason was given"])[0]
    return StreamError("TM-STREAM-FAILED", value=value[:_LONGEST])


def _restored(name: str, text: str) -> TidemillError:
    """The error whose traceback ends with ``tidemill.errors.<name>: <text>``."""
    kind = getattr(errors, name, StreamError)
    if not (isinstance(kind, type) and issubclass(kind, TidemillError)):
        kind = StreamError
    if parsed := catalog.parse(text):
        return kind(parsed.code, value=parsed.value, **parsed.parameters)
    return kind("TM-STREAM-FAILED", value=text[:_LONGEST])
