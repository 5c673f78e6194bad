"""The stack in containers is described as the embedded stack is, with the names and settings of ``config.py``.

Each check is run on the project's own description, which has to be right, and on copies of it in which just one thing
was broken, which it has to notice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from support import containers
from support.containers import Check, Description
from tidemill.config import Settings

Break = Callable[[Description], object]


@pytest.fixture
def description(own: Settings) -> Description:
    """The project's own description."""
    return containers.read_description(own)


def put(service: str, **variables: object) -> Break:
    """Set variables of a service."""
    return lambda d: d.environment(service).update(variables)


def say(service: str, **keys: object) -> Break:
    """Set keys of a service."""
    return lambda d: d.services[service].update(keys)


def drop(service: str, key: str) -> Break:
    """Take a key of a service away."""
    return lambda d: d.services[service].pop(key)


def swap(text: str, old: str, new: str) -> Break:
    """Write something else into one of the files."""

    def replace(d: Description) -> None:
        assert old in getattr(d, text)
        setattr(d, text, getattr(d, text).replace(old, new))

    return replace


def swap_word(service: str, old: str, new: str) -> Break:
    """Write another word into the command of a service."""
    return lambda d: d.services[service].update(
        command=[new if word == old else word for word in d.services[service]["command"]]
    )


BROKEN: list[tuple[Check, str, Break]] = [
    (containers.settings_are_known, "a misspelt setting", put("init", TIDEMILL_DB_PROT="1")),
    (containers.settings_are_known, "a port that is no number", put("init", TIDEMILL_DB_PORT="three")),
    (containers.settings_are_known, "a number without quotes", put("init", TIDEMILL_DB_PORT=3306)),
    (containers.settings_are_known, "an unknown account", put("init", TIDEMILL_DB_ROOT_PASSWORD="${X:?}")),
    (containers.settings_are_known, "a schema of one's own", put("spark-worker", TIDEMILL_DB_DATA="other")),
    (containers.settings_agree, "another control schema", put("init", TIDEMILL_DB_CONTROL="control")),
    (containers.settings_agree, "another dialect", put("init", TIDEMILL_DB_DIALECT="tidb")),
    (containers.hosts_are_services, "an unknown database host", put("init", TIDEMILL_DB_HOST="db")),
    (containers.hosts_are_services, "an unknown broker", put("init", TIDEMILL_KAFKA_BOOTSTRAP="broker:9092")),
    (containers.hosts_are_services, "the broker's other port", put("init", TIDEMILL_KAFKA_BOOTSTRAP="kafka:19092")),
    (containers.hosts_are_services, "a master elsewhere", swap_word("spark-master", "7077", "7078")),
    (containers.hosts_are_services, "Airflow elsewhere", put("init", TIDEMILL_AIRFLOW_PORT="8081")),
    (containers.hosts_are_services, "another database port", put("init", TIDEMILL_DB_PORT="3307")),
    (containers.published_on_loopback, "a port for everybody", say("kafka", ports=["19092:19092"])),
    (containers.published_on_loopback, "Spark's page published", say("spark-master", ports=["127.0.0.1:8080:8080"])),
    (containers.published_on_loopback, "an unexpected port", say("mariadb", ports=["127.0.0.1:3306:3306"])),
    (containers.published_on_loopback, "the machine's own network", say("feed", network_mode="host")),
    (containers.published_on_loopback, "root by description", say("init", user="root")),
    (containers.passwords_come_from_outside, "a password", put("init", TIDEMILL_DB_STREAM_PASSWORD="hush")),
    (containers.passwords_come_from_outside, "a fallback", put("init", TIDEMILL_DB_STREAM_PASSWORD="${X:-hush}")),
    (containers.passwords_come_from_outside, "a key", put("init", AIRFLOW__CORE__FERNET_KEY="hush")),
    (containers.passwords_come_from_outside, "a password in argv", say("init", command=["x", "${X:?y}"])),
    (containers.passwords_come_from_outside, "a password with a value", swap("example", "READ_PASSWORD=", "X=y")),
    (
        containers.passwords_come_from_outside,
        "the strongest account for all",
        put("spark-worker", TIDEMILL_DB_MIGRATE_PASSWORD="${TIDEMILL_DB_MIGRATE_PASSWORD:?}"),
    ),
    (containers.accounts_agree, "a right too many", swap("accounts", "SELECT, SHOW VIEW", "SELECT, DELETE, SHOW VIEW")),
    (containers.accounts_agree, "a right too few", swap("accounts", ", CREATE TEMPORARY TABLES", "")),
    (containers.accounts_agree, "rights handed on", swap("accounts", "TO $who;", "TO $who WITH GRANT OPTION;")),
    (containers.accounts_agree, "old rights left", swap("accounts", "REVOKE ALL PRIVILEGES, GRANT OPTION", "SHOW")),
    (containers.accounts_agree, "a password unquoted", swap("accounts", "sed ", "cat; : ")),
    (containers.accounts_agree, "a password in argv", swap("accounts", "--user=root", "-p$MARIADB_ROOT_PASSWORD")),
    (containers.accounts_agree, "another character set", swap("accounts", "utf8mb4_nopad_bin", "utf8mb4_general_ci")),
    (containers.accounts_agree, "a script nobody runs", say("mariadb", volumes=["mariadb:/var/lib/mysql"])),
    (containers.airflow_parts_agree, "a part left out", lambda d: d.services.pop("airflow-triggerer")),
    (containers.airflow_parts_agree, "a log server", say("airflow-scheduler", command=["airflow", "scheduler"])),
    (containers.airflow_parts_agree, "an unknown option", put("airflow-scheduler", AIRFLOW__API__HOSTS="x")),
    (containers.airflow_parts_agree, "a home of its own", put("airflow-triggerer", AIRFLOW_HOME="/root")),
    (containers.versions_agree, "another Kafka", say("kafka", image="apache/kafka:4.2.0")),
    (containers.versions_agree, "another MariaDB", say("mariadb", image="mariadb:11.8")),
    (containers.versions_agree, "a registry's host", say("kafka", image="registry.example/apache/kafka:4.3.1")),
    (containers.broker_agrees, "topics by accident", put("kafka", KAFKA_AUTO_CREATE_TOPICS_ENABLE="true")),
    (containers.broker_agrees, "a property of its own", put("kafka", KAFKA_LOG_SEGMENT_BYTES="1")),
    (containers.server_agrees, "commits that may be lost", lambda d: d.services["mariadb"]["command"].pop(9)),
    (containers.server_agrees, "an option of its own", lambda d: d.services["mariadb"]["command"].append("--log-bin")),
    (containers.servers_are_watched, "nobody asks", drop("kafka", "healthcheck")),
    (containers.servers_are_watched, "nobody starts it again", drop("spark-worker", "restart")),
    (containers.servers_are_watched, "it does not wait", say("init", depends_on={"kafka": {"condition": "started"}})),
    (containers.servers_are_watched, "it starts too early", drop("airflow-triggerer", "depends_on")),
    (containers.state_is_kept, "state in the container", drop("airflow-scheduler", "volumes")),
    (containers.state_is_kept, "logs in the container", put("kafka", KAFKA_LOG_DIRS="/kafka")),
    (containers.state_is_kept, "an unknown volume", lambda d: d.compose["volumes"].pop("mariadb")),
    (containers.streams_leave_room, "no limit of cores", put("spark-master", SPARK_MASTER_OPTS="")),
    (containers.streams_leave_room, "too few cores", swap_word("spark-worker", "4", "2")),
    (containers.streams_leave_room, "loopback for executors", put("airflow-scheduler", SPARK_LOCAL_IP="127.0.0.1")),
    (containers.image_is_sound, "root's programs", swap("dockerfile", "USER tidemill", "USER root")),
    (containers.image_is_sound, "packages without hashes", swap("dockerfile", " --require-hashes", "")),
    (containers.image_is_sound, "secrets in the image", swap("dockerignore", "!src", "!src\n!.env")),
    (containers.image_is_sound, "everything in the image", swap("dockerignore", "*\n!LICENSE", "!LICENSE")),
    (containers.image_is_sound, "another folder", put("init", TIDEMILL_ROOT="/srv")),
]


@pytest.mark.parametrize("check", containers.CHECKS, ids=lambda check: check.__name__)
def test_the_description_holds(check: Check, description: Description) -> None:
    """The check, whose own docstring says what it stands for, finds nothing wrong."""
    assert list(check(description)) == []


@pytest.mark.parametrize(("check", "what", "spoil"), BROKEN, ids=[f"{c.__name__}: {what}" for c, what, _ in BROKEN])
def test_what_is_broken_is_found(check: Check, what: str, spoil: Break, description: Description) -> None:
    """The check speaks up when this one thing is wrong."""
    broken = copy.deepcopy(description)
    spoil(broken)
    assert list(check(broken)), what


def test_every_check_is_seen_to_fail() -> None:
    """No check is trusted that was never shown anything wrong."""
    assert {check for check, _, _ in BROKEN} == set(containers.CHECKS)
