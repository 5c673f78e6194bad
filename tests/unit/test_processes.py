"""How processes are known by their environment."""

from __future__ import annotations

import os
import subprocess

import psutil
import pytest

from tidemill.processes import environment_of


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


def test_a_process_that_has_ended_is_said_to_have() -> None:
    """As psutil says it."""
    started = subprocess.Popen(["true"])
    process = psutil.Process(started.pid)
    started.wait()
    with pytest.raises(psutil.NoSuchProcess):
        environment_of(process)
