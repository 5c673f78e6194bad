"""The stack of another user than root, whatever the mask, beside another stack."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.other_user import OtherUser, other_user
from support.private_files import open_to_others
from tidemill.config import Account, Settings
from tidemill.devstack import child_process, control, process_records
from tidemill.kafka import clients
from tidemill.store.connection import session

# The servers alone; the process that runs the stack writes like any other program of the person.
_SERVERS = """
import signal
from tidemill import config
from tidemill.devstack.stack import Stack

with Stack(config.load(), parts=["mariadb", "kafka"]) as stack:
    try:
        stack.start()
        print("up", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
"""


@pytest.fixture
def user() -> Iterator[OtherUser]:
    """Another user, or this one where it is not root."""
    with other_user() as user:
        yield user


@contextmanager
def servers(own: Settings, user: OtherUser, mask: int) -> Iterator[Settings]:
    """MariaDB and Kafka of this user, with a state folder that is there already; returns their settings."""
    state = user.home / "state"
    environment = child_process.environment(own) | {process_records.STACK_MARK: ""}
    environment = user.environment(environment, state=state, models=state / "models")
    settings = own.model_copy(update={"state": state})
    running = subprocess.Popen(
        [*user.prefix, sys.executable, "-c", _SERVERS], cwd=user.home, env=environment, umask=mask,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        with running:
            assert running.stdout is not None
            try:
                assert running.stdout.readline() == "up\n"
                yield settings
            finally:
                running.terminate()
        assert running.returncode == 0
    finally:
        running.kill()
        process_records.stop_all(settings)


def mine(settings: Settings) -> list[Any]:
    """The databases and the topics that a stack answers with."""
    with session(settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS whose (port INT PRIMARY KEY)")
        cursor.execute("REPLACE INTO whose VALUES (%s)", (settings.db_port,))
        cursor.execute("SELECT port FROM whose")
        rows = [port for (port,) in cursor.fetchall()]
    return [rows, clients.admin(settings).list_topics(timeout=60).cluster_id]


@pytest.mark.parametrize("mask", [0o000, pytest.param(0o077, marks=pytest.mark.full)], ids=["open", "closed"])
def test_the_servers_of_another_user_beside_a_stack(
    mariadb: Settings, kafka: Settings, own: Settings, user: OtherUser, mask: int
) -> None:
    """They serve data of their own, run as this user, and nothing in their state folder, or in one from before, may be
    read, written or entered by anybody else, whatever rights the mask leaves."""
    earlier = user.home / "state" / "logs"
    earlier.mkdir(parents=True)
    (earlier / "kafka.log").touch()
    for path in (earlier.parent, earlier, earlier / "kafka.log"):
        path.chmod(0o777)
        os.chown(path, user.uid, -1)
    with servers(own, user, mask) as other:
        assert open_to_others(other.state) == {}
        (first, first_cluster), (second, second_cluster) = mine(mariadb), mine(other)
        assert (first, second) == ([mariadb.db_port], [other.db_port])
        assert first_cluster != second_cluster
        runs_as = {process.uids().real for process in process_records.marked(other)}
        assert runs_as == {user.uid}
        assert all(control.components(other).values())
    # What was made beside the state folder, such as the unpacked server, is no business of others to change.
    assert [path for path in user.home.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022] == []
    with session(mariadb, Account.MIGRATE) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE whose")


@pytest.mark.full
@pytest.mark.lane("up")
def test_the_whole_loop_of_another_user_leaves_nothing_open(own: Settings, user: OtherUser) -> None:
    """From the feed to the first scores, with Airflow's tasks, drivers, trainings and models; then everything has
    stopped, and the state folder is its owner's alone, though the mask takes no right away."""
    state = user.home / "state"
    environment = child_process.environment(own) | {process_records.STACK_MARK: ""}
    environment = user.environment(environment, state=state, models=state / "models")
    settings = own.model_copy(update={"state": state, "models": state / "models"})
    log = user.home / "up.log"
    try:
        with log.open("wb") as out:
            done = subprocess.run(
                [*user.prefix, sys.executable, "-m", "tidemill", "up", "--limit", "20000", "--until-scored"],
                cwd=user.home, env=environment, umask=0, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True, check=False,
            )  # fmt: skip
        assert done.returncode == 0, log.read_text()
        assert process_records.marked(settings) == []
        assert [path for path in (state / "models").rglob("*") if path.is_file()]
        assert open_to_others(state) == {}
        assert {path.lstat().st_uid for path in state.rglob("*")} == {user.uid}
    finally:
        control.down(settings, print)
