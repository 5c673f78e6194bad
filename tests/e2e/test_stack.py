"""The embedded stack: what it answers when something dies, is taken, or is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import pymysql
import pytest

from support.private_files import open_to_others
from tidemill.config import Account, Settings
from tidemill.devstack import child_process, control, process_records
from tidemill.devstack.airflow_api import AirflowApi, Connection
from tidemill.devstack.stack import Stack
from tidemill.kafka import clients
from tidemill.processes import session_members
from tidemill.testing import wait_until

# A stack in a process of its own, as ./tidemill up is one. It also starts a process that has nothing to do with it any
# more, as Airflow's tasks do with a stream's driver, and waits to be stopped.
_RUN_STACK = """
import signal, subprocess, sys
from tidemill import config
from tidemill.devstack import control
from tidemill.devstack.child_process import environment
from tidemill.kafka import clients
from tidemill.devstack.stack import Stack

settings = config.load()
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
with Stack(settings, parts=["mariadb", "kafka"]) as stack:
    stack.before_stop.append(lambda: print("before", all(control.components(settings).values()), flush=True))
    try:
        stack.start()
        subprocess.Popen(sleeper, env=environment(settings), start_new_session=True)
        print("up", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("stopping", flush=True)
print("down", flush=True)
"""

_LARGE_BYTES = 50_000_000
"""Tablespaces, which hold no more of a password than its hash."""


def processes_of(settings: Settings) -> list[psutil.Process]:
    """The processes that carry the mark of a state folder."""
    return process_records.marked(settings)


@contextmanager
def running_stack(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A stack of Kafka and MariaDB in a process of its own, which is up."""
    stack = subprocess.Popen(
        [sys.executable, "-c", _RUN_STACK],
        env=child_process.environment(settings) | {process_records.STACK_MARK: ""},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert stack.stdout is not None
    try:
        assert stack.stdout.readline() == "up\n"
        yield stack
    finally:
        stack.kill()
        stack.wait()
        stack.stdout.close()
        process_records.stop_all(settings)


def serves(settings: Settings) -> bool:
    """Whether both servers answer."""
    with suppress(pymysql.err.OperationalError):
        password = settings.password(Account.READ).get_secret_value()
        pymysql.connect(
            host="127.0.0.1", port=settings.db_port, user=settings.user(Account.READ), password=password
        ).close()
        return bool(clients.admin(settings).list_topics(timeout=60).brokers)
    return False


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda stack, settings: stack.send_signal(signal.SIGINT), id="ctrl-c"),
        pytest.param(lambda stack, settings: control.down(settings, lambda sentence: None), id="down"),
    ],
)
def test_stopping_leaves_no_process(own: Settings, stop: Callable[[subprocess.Popen[str], Settings], object]) -> None:
    """Ctrl-C and down alike stop the streams first, while the servers run, then everything, detached processes too."""
    with running_stack(own) as stack:
        assert len(processes_of(own)) >= 3
        stop(stack, own)
        output, _ = stack.communicate(timeout=180)
        assert output.splitlines() == ["stopping", "before True", "down"]
        assert stack.returncode == 0
        assert processes_of(own) == []
        assert control.components(own) == {}
        assert control.running(own) is None


def test_start_after_a_crash_heals(own: Settings) -> None:
    """A stack that was killed leaves servers behind; the next start says so, stops them and serves."""
    with running_stack(own) as crashed:
        crashed.kill()
        crashed.wait()
        left = {each.pid for each in processes_of(own)}
        assert len(left) >= 3
        said: list[str] = []
        with Stack(own, parts=["mariadb", "kafka"]) as stack:
            stack.start(said.append)
            assert serves(own)
            assert not left & {each.pid for each in processes_of(own)}
    assert {sentence.split()[1] for sentence in said if "left by an earlier run" in sentence} >= {"mariadb", "kafka"}
    assert processes_of(own) == []


def test_down_stops_what_a_crash_has_left(own: Settings) -> None:
    """After a crash, down finds the servers without their stack and stops them."""
    with running_stack(own) as crashed:
        crashed.kill()
        crashed.wait()
        said: list[str] = []
        assert control.down(own, said.append)
        assert len(said) >= 3
        assert processes_of(own) == []


def test_killed_server_is_started_again_and_reported(own: Settings) -> None:
    """A server that dies is back within seconds, and the report says what happened and what is done about it."""
    said: list[str] = []
    with Stack(own, parts=["mariadb"]) as stack:
        stack.start()
        stack.watch(said.append)
        first = stack.children["mariadb"].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: "mariadb is ready again" in said, 60, "the restart")
        assert stack.children["mariadb"].pid != first
    assert said == ["mariadb was ended by signal 9; restarting it in 1 s", "mariadb is ready again"]


@pytest.mark.full
def test_server_that_keeps_dying_is_started_ever_more_slowly(own: Settings) -> None:
    """Restarts back off while the cause stays, and each report quotes it; when it is gone the server comes back."""
    said: list[str] = []
    with Stack(own, parts=["mariadb"]) as stack:
        stack.start()
        accounts = own.state / "mariadb" / "accounts.sql"
        aside = accounts.rename(accounts.with_suffix(".aside"))
        stack.watch(said.append)
        stack.children["mariadb"].stop(grace_seconds=5)
        wait_until(lambda: len(said) >= 3, 60, "the third report")
        aside.rename(accounts)
        wait_until(lambda: "mariadb is ready again" in said, 60, "the restart")
    assert [sentence.rpartition("restarting it in ")[2] for sentence in said[:3]] == ["1 s", "2 s", "4 s"]
    assert "accounts.sql" in said[2]


def test_hook_that_fails_does_not_keep_the_stack_from_stopping(own: Settings) -> None:
    """What goes wrong while streams are told to leave is reported, and the servers are stopped all the same."""
    said: list[str] = []

    def broken() -> None:
        raise RuntimeError("no answer")

    with Stack(own, parts=["mariadb"]) as stack:
        stack.before_stop.append(broken)
        stack.start(said.append)
    assert said[-1] == "stopping continues after an error: no answer"
    assert processes_of(own) == []


def test_failing_part_takes_the_others_down_with_it(own: Settings) -> None:
    """A start either ends with everything up or with one sentence and nothing up."""
    broken = own.model_copy(update={"db_buffer_pool": "1"})
    with pytest.raises(Exception, match="mariadb ended with exit code"), Stack(broken) as stack:
        stack.start()
    assert processes_of(own) == []
    assert control.components(own) == {}


def test_everything_listens_on_loopback_only(airflow_stack: Stack) -> None:
    """No port of the stack can be reached from another machine."""
    settings = airflow_stack.settings
    listening = [
        connection.laddr
        for each in processes_of(settings)
        for connection in _connections(each)
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.removeprefix("::ffff:") for address, _ in listening} == {"127.0.0.1"}
    kafka_port = int(settings.kafka_bootstrap.rpartition(":")[2])
    assert {port for _, port in listening} >= {settings.db_port, settings.airflow_port, kafka_port}


def test_secrets_are_in_private_files_only(airflow_stack: Stack) -> None:
    """No process of the stack has a secret in its command line or environment, no log holds one, and every file that
    does has mode 0600."""
    settings = airflow_stack.settings
    secrets = [secret.encode() for secret in _secrets(settings)]
    words = [b" ".join(_public(each.pid)) for each in processes_of(settings)]
    assert len(words) >= 6
    assert not any(secret in word for secret in secrets for word in words)
    files = [path for path in _files(settings.state) if 0 < _size(path) < _LARGE_BYTES]
    holders = [path for path in files if _holds(path, secrets)]
    assert {path.name for path in holders} == {"secrets.json", "airflow.cfg", "passwords.json", "accounts.sql"}
    assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}


def test_nothing_in_the_state_folder_is_open_to_others(airflow_stack: Stack) -> None:
    """Whoever is not the owner can neither read, write nor enter anything that the servers, Airflow's processes and its
    tasks have made."""
    assert open_to_others(airflow_stack.settings.state) == {}


def test_airflow_serves_its_api_to_the_generated_password(airflow_stack: Stack) -> None:
    """All four components are healthy, and a connection that is put twice is there once, as it was put last."""
    with AirflowApi(airflow_stack.settings) as api:
        wait_until(lambda: {each["status"] for each in api.health().values()} == {"healthy"}, 240, "all are healthy")
        for port in (1, 2):
            api.put_connection(Connection("sample", "http", host="127.0.0.1", port=port, extra={"a": 1}))
        found = api.request("GET", "/connections/sample")
        assert (found["port"], found["extra"]) == (2, '{"a": 1}')
        api.request("DELETE", "/connections/sample")


@pytest.mark.full
def test_killed_scheduler_is_back_without_the_workers_of_the_dead_one(airflow_stack: Stack) -> None:
    """A scheduler that is killed leaves workers behind; they are ended before the next one starts."""
    said: list[str] = []
    child = airflow_stack.children["airflow-scheduler"]
    first = child.pid
    assert first is not None
    airflow_stack.watch(said.append)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: "airflow-scheduler is ready again" in said, 300, "the restart")
    assert session_members(first) == []
    assert "signal 9" in said[0]


def _secrets(settings: Settings) -> list[str]:
    return [settings.secret(name).get_secret_value() for name in ("root", "stream", "airflow_admin", "airflow_jwt")]


def _connections(process: psutil.Process) -> list[Any]:
    with suppress(psutil.NoSuchProcess):  # Airflow's parsers come and go
        return list(process.net_connections())
    return []


def _files(folder: Path) -> Iterator[Path]:
    """All that a folder holds at the moment: servers make and remove files and folders meanwhile."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def _public(pid: int) -> list[bytes]:
    with suppress(OSError):  # it has ended
        return [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    return []


def _holds(path: Path, secrets: list[bytes]) -> bool:
    try:
        with path.open("rb") as file:
            content = b"".join(_written(file))
    except FileNotFoundError:
        return False
    return any(secret in content for secret in secrets)


def _written(file: BinaryIO) -> Iterator[bytes]:
    """The parts of a file that are on the disk: each of Kafka's indexes is 10 MB of nothing at first."""
    end = 0
    with suppress(OSError):  # there is no more data
        while True:
            begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            file.seek(begin)
            yield file.read(end - begin)
