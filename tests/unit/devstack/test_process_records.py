"""Recognising and ending processes of a stack."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tidemill.config import Settings
from tidemill.devstack import process_records
from tidemill.devstack.process_records import Record
from tidemill.processes import end_session, session_members

# A leader that starts a child in a process group of its own, as Airflow's supervisor does with each task, says so,
# and then waits.
_LEADER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def leader(own: Settings) -> Iterator[subprocess.Popen[str]]:
    """A session of two processes that carry the mark of ``own``."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LEADER],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {process_records.STACK_MARK: str(own.state)},
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    for each in session_members(process.pid):
        each.kill()
    process.wait()
    process.stdout.close()


def test_process_with_another_start_time_is_not_ours(own: Settings) -> None:
    """A process id that the system gave to somebody else is not taken for the recorded process."""
    ours = Record.of("kafka", os.getpid())
    assert ours.is_alive()
    stranger = replace(ours, started=ours.started - 100)
    assert not stranger.is_alive()
    assert not stranger.has_session()


def test_record_survives_the_way_through_the_file(own: Settings) -> None:
    """What was written is read again, and a forgotten or broken record names nobody."""
    record = Record.of("kafka", os.getpid())
    record.write(own)
    assert process_records.read(own, "kafka") == record
    assert process_records.read_all(own) == [record]
    (own.state / "run" / "kafka.json").write_text('{"name": "kaf')
    assert process_records.read_all(own) == []
    process_records.remove(own, "kafka")
    assert process_records.read(own, "kafka") is None


def test_ending_a_session_ends_other_groups_in_it_too(leader: subprocess.Popen[str]) -> None:
    """A task in a process group of its own does not outlive the session it was started in."""
    members = session_members(leader.pid)
    assert len(members) == 2
    end_session(leader.pid, grace_seconds=5)
    assert session_members(leader.pid) == []


def test_session_without_its_leader_is_still_found(own: Settings, leader: subprocess.Popen[str]) -> None:
    """What a killed leader has left is stopped by the next start, and said."""
    Record.of("airflow-scheduler", leader.pid).write(own)
    leader.kill()
    leader.wait()
    [sentence] = process_records.stop_all(own)
    assert "airflow-scheduler" in sentence
    assert session_members(leader.pid) == []
    assert process_records.read_all(own) == []


def test_marked_process_is_found_wherever_it_was_started(own: Settings, leader: subprocess.Popen[str]) -> None:
    """The mark in the environment finds detached processes of this state folder, and of no other."""
    found = {each.pid for each in process_records.marked(own)}
    assert found == {each.pid for each in session_members(leader.pid)}
    assert process_records.marked(own, spare=[leader.pid]) == []
    assert process_records.marked(own.model_copy(update={"state": own.state / "other"})) == []
