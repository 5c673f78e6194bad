"""The embedded Kafka: one process that is broker and controller (KRaft)."""

from __future__ import annotations

import base64
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tidemill.config import Settings
from tidemill.devstack import jars, ports
from tidemill.devstack.child_process import Child, Program, environment
from tidemill.errors import SetupError
from tidemill.kafka.clients import READINESS_SECONDS, readiness_probe

NAME = "kafka"
_CAUSE = re.compile(r"\b(ERROR|FATAL)\b|Exception|^Error", re.MULTILINE)


def port(settings: Settings) -> int:
    """The broker's port.

    Raises:
        SetupError: ``kafka_bootstrap`` names another host than 127.0.0.1.
    """
    host, _, number = settings.kafka_bootstrap.rpartition(":")
    if host not in (ports.LOOPBACK, "localhost") or not number.isdigit():
        raise SetupError("TM-DEVSTACK-KAFKA-HOST", value=settings.kafka_bootstrap)
    return int(number)


def prepare(settings: Settings, cancelled: Event) -> None:
    """Write the broker's files and format its storage, once.

    Raises:
        SetupError: the storage could not be formatted.
    """
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
    (folder / "server.properties").write_text(_properties(settings, ports.free_port()), encoding="utf-8")
    stamp = folder / "formatted"
    if stamp.exists():
        return
    shutil.rmtree(folder / "data", ignore_errors=True)
    Child(_format(settings), settings).run_to_end(cancelled)
    if not cancelled.is_set():
        stamp.touch()


def program(settings: Settings) -> Program:
    """The broker; it is ready when the answer to a metadata request names it."""
    return Program(
        name=NAME,
        argv=(
            *_java(settings, "-Xmx512m", "-XX:+ExitOnOutOfMemoryError"),
            "kafka.Kafka",
            _server_properties(settings),
        ),
        environment=environment(settings),
        probe=_probe(settings),
        ready_seconds=120,
        grace_seconds=20,
        cause=_CAUSE,
    )


def _format(settings: Settings) -> Program:
    cluster = _cluster_id()
    configuration = _server_properties(settings)
    tool = ("kafka.tools.StorageTool", "format", "-t", cluster, "-c", configuration, "--standalone")
    return Program(
        name="kafka-format",
        argv=(*_java(settings, "-Xmx128m"), *tool),
        environment=environment(settings),
        cause=_CAUSE,
    )


def _java(settings: Settings, *options: str) -> tuple[str, ...]:
    folder = _folder(settings)
    return (
        str(jars.java_home() / "bin" / "java"),
        *options,
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        "-cp",
        str(jars.part(settings, "broker")[0].parent / "*"),
    )


def _probe(settings: Settings) -> Callable[[float], bool]:
    """Asks with one client for all tries: each has threads of its own."""
    clients: list[AdminClient] = []

    def answers(started: float) -> bool:
        if ports.is_free(port(settings)):
            return False
        if not clients:
            clients.append(readiness_probe(settings))
        try:
            ready = bool(clients[0].list_topics(timeout=READINESS_SECONDS).brokers)
        except KafkaException:
            return False
        if ready:
            clients.clear()
        return ready

    return answers


def _cluster_id() -> str:
    """A random identifier in Kafka's form: 16 bytes in base64 without padding, and no dash first as in an option."""
    while (made := base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")).startswith("-"):
        pass
    return made


def _folder(settings: Settings) -> Path:
    return settings.state / NAME


def _server_properties(settings: Settings) -> str:
    return str(_folder(settings) / "server.properties")


def property_value(value: object) -> str:
    r"""A value as Java's ``Properties.load`` reads it: ISO-8859-1, everything else as ``\uXXXX`` of UTF-16."""
    units = str(value).replace("\\", "\\\\").encode("utf-16-be")
    codes = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(chr(code) if ord(" ") <= code <= ord("~") else f"\\u{code:04x}" for code in codes)


def _properties(settings: Settings, controller_port: int) -> str:
    client = f"{ports.LOOPBACK}:{port(settings)}"
    controller = f"{ports.LOOPBACK}:{controller_port}"
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={controller}
listeners=PLAINTEXT://{client},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{client}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={property_value(_folder(settings) / "data")}
# A misspelt topic is an error, not a new topic.
auto.create.topics.enable=false
num.partitions=4
# Records may have old event times; retention by time would delete them at once.
log.retention.ms=-1
log.retention.bytes=4294967296
# There is one broker for all replicas.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# The default of fifty partitions each would only slow the start.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# After a kill, the broker can register again only when the session of the former process has expired.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
"""


_LOGGING = """\
status=error
appenders=out
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=WARN
rootLogger.appenderRefs=out
rootLogger.appenderRef.out.ref=OUT
"""
