"""When a wish has come true, and what is said while it has not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError

from support.streams import RUNNING, ago
from tidemill.airflow.dags.control import form, outcome_of, write_requests

START = {"stream": "flights", "desired_state": "running", "by": "airflow: ann, a run", "after": 0}
STOP = START | {"desired_state": "stopped"}
RESTART = START | {"after": 7}
STOPPED = replace(RUNNING, desired_state="stopped")
FRESH = {"requested_at": ago(3), "state": None, "heartbeat_epoch": None, "heartbeat_at": None, "last_error": None}
NO_DRIVER = {"epoch": 0, "acquired_at": None, "pid": None, "host": None, "log_file": None}

CASES: list[tuple[str, dict[str, Any], dict[str, Any], bool, bool | None, str]] = [
    # what, wish, changes of a healthy running row, whether the process is gone, verdict, words
    ("runs", START, {}, False, True, ""),
    ("runs, and its process is gone", START, {}, True, None, "its driver"),
    ("silent", START, {"heartbeat_at": ago(60)}, False, None, ""),
    ("starting", START, FRESH | {"acquired_at": ago(1)}, False, None, "its driver is starting"),
    ("no driver yet", START, FRESH | NO_DRIVER, False, None, "is the DAG stream__flights switched on?"),
    ("waits", START, FRESH | {"acquired_at": ago(1), "waiting_for": "Kafka"}, False, None, "waits for Kafka"),
    ("failed", START, {"state": "failed", "last_error": "no room"}, False, None, "its last driver said: no room"),
    ("halted", START, {"halted_reason": "6 drivers broke"}, False, False, "it is halted: 6 drivers broke"),
    ("not applied", START, FRESH | NO_DRIVER | {"newest_version": 0}, False, False, "run ./tidemill apply flights"),
    (
        "stopped meanwhile",
        START,
        {"desired_state": "stopped", "requested_by": "bob"},
        False,
        False,
        "wished stopped meanwhile, by",
    ),
    ("old driver still there", RESTART, {"exit_epoch": 7}, False, None, "its driver of epoch 7 has not left yet"),
    (
        "old driver has left",
        RESTART,
        {"state": "stopped", "requested_at": ago(3)},
        False,
        None,
        "no driver was started",
    ),
    ("next driver", RESTART, {"epoch": 8, "heartbeat_epoch": 8}, False, True, ""),
    (
        "next driver is starting",
        RESTART,
        FRESH | {"epoch": 8, "acquired_at": ago(1)},
        False,
        None,
        "its driver is starting",
    ),
    ("runs on", STOP, {"desired_state": "stopped"}, False, None, "its driver of epoch 7 is running"),
    ("has left", STOP, {"desired_state": "stopped", "state": "stopped"}, False, True, ""),
    ("has failed", STOP, {"desired_state": "stopped", "state": "failed"}, False, True, ""),
    (
        "its last word is an older driver's",
        STOP,
        {"desired_state": "stopped", "state": "stopped", "epoch": 8},
        False,
        None,
        "",
    ),
    ("is gone", STOP, {"desired_state": "stopped"}, True, True, ""),
    ("was given up", STOP, {"desired_state": "stopped", "last_failed_at": ago(1)}, False, True, ""),
    ("never ran", STOP, NO_DRIVER | {"desired_state": "stopped"}, False, True, ""),
    (
        "halted, and not wanted",
        STOP,
        {"desired_state": "stopped", "state": "failed", "halted_reason": "x"},
        False,
        True,
        "",
    ),
    ("started meanwhile", STOP, {"requested_by": "bob"}, False, False, "it was wished running meanwhile, by bob"),
]


@pytest.mark.parametrize(
    ("wish", "changes", "gone", "settled", "why"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_wish_has_come_true_or_not_yet_or_never_will(
    wish: dict[str, Any], changes: dict[str, Any], gone: bool, settled: bool | None, why: str
) -> None:
    """And the words say which."""
    found, words = outcome_of(replace(RUNNING, **changes), wish, gone=gone)
    assert found is settled
    assert why in words
    assert bool(words) is not bool(settled)


def test_a_stream_of_which_nothing_is_known_any_more_is_not_waited_for() -> None:
    """Its row was removed by hand."""
    assert outcome_of(None, START, gone=False)[0] is False


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"stream": "fligths", "action": "start"}, "no such stream: fligths; one of: flights, tides, all"),
        ({"stream": "flights", "action": "pause"}, "no such action: pause; one of: start, stop, restart"),
    ],
)
def test_what_there_is_not_is_refused_in_one_sentence_before_anything_is_written(
    params: dict[str, str], words: str
) -> None:
    """No database is asked, and Airflow does not try again."""
    with pytest.raises(AirflowFailException) as caught:
        write_requests(["flights", "tides"], params=params, run_id="a run", dag_run=None)
    assert str(caught.value) == words


def test_the_form_offers_what_there_is_and_presumes_no_stream() -> None:
    """Nobody stops a stream by sending an empty form."""
    offered = form(["tides", "flights"])
    assert offered["stream"].schema["enum"] == ["flights", "tides", "all"]
    assert offered["action"].schema["enum"] == ["start", "stop", "restart"]
    assert offered["action"].resolve() == "start"
    with pytest.raises(ParamValidationError):
        offered["stream"].resolve()
    with pytest.raises(ParamValidationError):
        offered["stream"].resolve("fligths")
