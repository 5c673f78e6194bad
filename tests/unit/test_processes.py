"""How processes are recognised by their environment, signalled and waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tidemill.processes import (
    carriers,
    end,
    end_child,
    end_session,
    environment_of,
    is_running,
    send_signal,
    session_members,
    wait_until_gone,
)

# A leader with a child in a process group of its own. With the argument ``stubborn`` the leader ignores SIGTERM.
_LEADER = """
import signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
print(child.pid, flush=True)
time.sleep(600)
"""


def start_leader(*words: str) -> subprocess.Popen[bytes]:
    """A session of two processes that carry the mark ``TIDE_TEST``."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LEADER, *words],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"TIDE_TEST": "session"},
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    """A session that ends at SIGTERM."""
    with start_leader() as process:
        yield process
        send_signal(session_members(process.pid), signal.SIGKILL)


def test_a_process_that_becomes_another_program_keeps_its_environment() -> None:
    """Looked at thousands of times while it does: now and then the kernel has none to show."""
    chain = "exec bash -c 'exec bash -c \"exec sleep 60\"'"
    for _ in range(40):
        with subprocess.Popen(["bash", "-c", chain], env=os.environ | {"TIDE_TEST": "ours"}) as started:
            try:
                process = psutil.Process(started.pid)
                # Before it becomes anything it is shown with the environment of its parent.
                while "TIDE_TEST" not in process.environ():
                    pass
                for _ in range(300):
                    assert environment_of(process, seconds=10).get("TIDE_TEST") == "ours"
            finally:
                started.kill()


def test_a_process_without_environment_has_none() -> None:
    """It is not waited for long."""
    with subprocess.Popen(["sleep", "60"], env={}) as started:
        try:
            assert environment_of(psutil.Process(started.pid), seconds=0.1) == {}
        finally:
            started.kill()


def test_a_process_that_has_ended_has_no_environment() -> None:
    """The error is psutil's."""
    started = subprocess.Popen(["true"])
    process = psutil.Process(started.pid)
    started.wait()
    with pytest.raises(psutil.NoSuchProcess):
        environment_of(process)


def test_a_session_has_members_after_its_leader_has_ended(leader: subprocess.Popen[bytes]) -> None:
    """A process group of its own does not take a process out of the session, and a zombie is no member."""
    assert len(session_members(leader.pid)) == 2
    leader.kill()
    assert wait_until_gone([psutil.Process(leader.pid)], 10) == []
    [child] = session_members(leader.pid)
    assert child.pid != leader.pid
    assert not is_running(psutil.Process(leader.pid))


def test_a_mark_is_inherited_by_every_process_of_the_session(leader: subprocess.Popen[bytes]) -> None:
    """That is how detached processes are found."""
    marked = {process.pid for process, value in carriers("TIDE_TEST") if value == "session"}
    assert {process.pid for process in session_members(leader.pid)} <= marked
    assert list(carriers("TIDE_TEST_OF_NO_PROCESS")) == []


def test_ending_a_session_ends_its_other_process_groups(leader: subprocess.Popen[bytes]) -> None:
    """A task in a group of its own does not outlive the session that started it."""
    end_session(leader.pid, grace_seconds=5)
    assert session_members(leader.pid) == []


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    """SIGKILL follows after the grace, and nothing is left."""
    with start_leader("stubborn") as process:
        leader_of = process.pid
        assert end(lambda: session_members(leader_of), 0.2, (signal.SIGTERM,)) != []
        assert end(lambda: session_members(leader_of), 0.2) == []
        assert process.wait(60) == -signal.SIGKILL


def test_a_child_is_ended_with_its_exit_code() -> None:
    """By SIGTERM, or by SIGKILL where it ignores that or has no time; one that has ended keeps its code."""
    with subprocess.Popen(["sleep", "60"]) as child:
        assert end_child(child, 10) == -signal.SIGTERM
    with subprocess.Popen(["sleep", "60"]) as child:
        assert end_child(child, 0) == -signal.SIGKILL
    with subprocess.Popen(["sh", "-c", "exit 3"]) as child:
        child.wait()
        assert end_child(child, 10) == 3
    with start_leader("stubborn") as child:
        assert end_child(child, 0.1) == -signal.SIGKILL
        end_session(child.pid, 0)


def test_a_process_that_has_ended_meanwhile_is_not_signalled() -> None:
    """Neither an error, nor a signal to whatever has its id later."""
    with subprocess.Popen(["sleep", "60"]) as child:
        process = psutil.Process(child.pid)
        child.kill()
    send_signal([process], signal.SIGTERM)
    assert not is_running(process)
