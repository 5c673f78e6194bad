"""The main job as a user starts it, and the commands beside it, over pipes."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidemill.config import Account, Settings
from tidemill.devstack import child_process, control, process_records
from tidemill.store.connection import session
from tidemill.testing import wait_until

pytestmark = pytest.mark.lane("up")

FLIGHTS = 20_000
"""The fewest from which the model beats its baseline."""


def shell(settings: Settings) -> dict[str, str]:
    """The environment of a user's shell: without the mark by which a stopping stack ends all that it started."""
    return {
        name: value for name, value in child_process.environment(settings).items() if name != process_records.STACK_MARK
    }


def command(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command beside the running stack."""
    return subprocess.run(
        [sys.executable, "-m", "tidemill", *words],
        env=shell(settings), capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def facts(settings: Settings) -> dict[str, Any]:
    """What ``status --json`` says."""
    answer = command(settings, "status", "--json")
    assert answer.returncode == 0, answer.stderr
    return dict(json.loads(answer.stdout))


@contextlib.contextmanager
def up(settings: Settings, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """``./tidemill up`` with its output in a file; whatever it leaves is stopped."""
    with log.open("wb") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", "tidemill", "up", "--limit", str(FLIGHTS), *options],
            env=shell(settings), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        yield running
    finally:
        control.down(settings, print)
        running.wait(180)


def until_said(running: subprocess.Popen[bytes], log: Path, words: str, seconds: float) -> None:
    """Wait until ``up``, which goes on, has said something. Reading its log costs the machine nothing."""
    wait_until(lambda: words in log.read_text() or running.poll() is not None, seconds, words)
    assert running.poll() is None, log.read_text()


def until_state(settings: Settings, state: str, seconds: float) -> None:
    """Wait until ``status`` says that of the stream."""
    wait_until(lambda: facts(settings)["streams"][0]["state"] == state, seconds, f"stream is {state}")


def refreshes(settings: Settings) -> int:
    """How many refreshes were begun."""
    with session(settings, Account.READ) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM refreshes")
        return int(cursor.fetchone()[0])


@pytest.mark.full
def test_up_scores_answers_leaves_and_comes_back(own: Settings, tmp_path: Path) -> None:
    """Everything starts on a disturbed feed, the loop turns, the other commands answer, and ``--until-scored`` leaves.

    It leaves with 0, after the ledger's sum, the model beside its baseline, and one query over rows, rollup and scores.
    The next ``up`` finds all of it: what a person stopped stays stopped until he starts it. ``down`` ends it all.
    """
    log, chaos = tmp_path / "up.log", ("--chaos", "duplicates=0.1,disorder=300,malformed=0.01")
    with up(own, log, *chaos, "--until-scored") as running:
        until_said(running, log, "refresh__flights__late_arrival: unpaused", 720)
        _says_that_it_is_up(own)
        until_said(running, log, "refresh__flights__late_arrival: triggered", 900)
        verified = command(own, "verify", "flights")
        assert (verified.returncode, verified.stdout) == (0, "flights: ledger, Kafka and tables agree\n")
        assert "no changes" in command(own, "plan", "flights").stdout
        assert facts(own)["streams"][0]["rows"]["flights"] == FLIGHTS
        # Before it begins, a refresh looks whether its stream runs.
        wait_until(lambda: refreshes(own), 300, "the refresh has begun")
        assert command(own, "stop", "flights").returncode == 0
        until_state(own, "stopped", 300)
        assert running.wait(1200) == 0, log.read_text()
    first = log.read_text()
    _summarises(first)
    assert process_records.marked(own) == []

    with up(own, log, *chaos) as running:
        until_said(running, log, "Airflow: ", 720)
        found = facts(own)
        assert (found["streams"][0]["desired_state"], found["streams"][0]["state"]) == ("stopped", "stopped")
        assert f"version {found['models'][0]['published_version']} published" in first
        assert found["models"][0]["scored_rows"] > 19_000
        assert "areaUnderROC" in command(own, "models").stdout
        assert command(own, "start", "flights").returncode == 0
        until_state(own, "running", 360)
        ended = command(own, "down")
        assert ended.returncode == 0, ended.stderr
        assert running.wait(180) == 0
    assert "the stack has stopped" in log.read_text()
    assert process_records.marked(own) == []


def _says_that_it_is_up(settings: Settings) -> None:
    second = command(settings, "up")
    assert second.returncode == 3
    assert "TM-DEVSTACK-ALREADY-RUNNING" in second.stderr
    assert second.stderr.count("\n") == 1


def _summarises(said: str) -> None:
    lag = r"flights: running, [\d,]+ records in Kafka, lag [\d,]+ records, behind \d+ s, freshness [^,]+, "
    assert re.search(lag + r"[1-9]\d* commits; rows: flights [\d,]+, ", said)
    assert re.search(r"Airflow: http://127\.0\.0\.1:\d+, user admin", said)
    assert re.search(r"flights\.late_arrival: champion version 1, areaUnderROC 0\.\d+ \(baseline 0\.\d+\)", said)
    assert "the first scores are published" in said
    assert re.search(r"ledger: [\d,]+ records = [\d,]+ written \+ ", said)
    _, _, answer = said.partition("fresh rows, history, rollup and scores in one query")
    header, *rows = answer.splitlines()[1:]
    assert "p_late" in header
    assert re.search(r"\b[01]\.\d{3}\b", rows[0]), "an answer with a score"
    assert "\x1b" not in said


def test_commands_without_a_stack_say_so_in_one_sentence(own: Settings) -> None:
    """No traceback, an exit code, and what to do."""
    for words, code in ((("verify", "flights"), 2), (("start", "flights"), 2), (("check", "flight"), 2)):
        answer = command(own, *words)
        assert answer.returncode == code, answer.stderr
        assert answer.stderr.startswith("tidemill: ")
        assert answer.stderr.count("\n") == 1
    assert command(own, "down").stdout == "the stack was not running\n"
    shown = command(own, "status")
    assert (shown.returncode, shown.stdout) == (3, "stack: not running\n")
    assert shown.stderr.startswith("tidemill: [TM-DEVSTACK-DOWN] the stack is not running")
    as_json = command(own, "status", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["stack"]["pid"]) == (3, None)
