"""When a requested state of a stream counts as reached, and the reason that is shown while it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.streams import RUNNING, ago
from tidemill.airflow.triggers.request_outcome import StateRequest, outcome_of

START = StateRequest(stream="flights", desired_state="running", by="airflow: ann, a run", after_epoch=0)
STOP = START | {"desired_state": "stopped"}
RESTART = START | {"after_epoch": 7}
FRESH = {"requested_at": ago(3), "state": None, "heartbeat_epoch": None, "heartbeat_at": None, "last_error": None}
NO_DRIVER = {"epoch": 0, "acquired_at": None, "pid": None, "host": None, "log_file": None}

CASES: list[tuple[str, StateRequest, dict[str, Any], bool, bool | None, str]] = [
    # name, request, changes of a healthy running row, whether the process is gone, outcome, reason
    ("runs", START, {}, False, True, ""),
    ("runs, and its process is gone", START, {}, True, None, "its driver"),
    ("silent", START, {"heartbeat_at": ago(60)}, False, None, ""),
    ("starting", START, FRESH | {"acquired_at": ago(1)}, False, None, "its driver is starting"),
    ("no driver yet", START, FRESH | NO_DRIVER, False, None, "check that the DAG stream__flights is not paused"),
    ("waits", START, FRESH | {"acquired_at": ago(1), "waiting_for": "Kafka"}, False, None, "waits for Kafka"),
    ("failed", START, {"state": "failed", "last_error": "no room"}, False, None, "its last driver reported: no room"),
    ("halted", START, {"halted_reason": "6 drivers broke"}, False, False, "it is halted: 6 drivers broke"),
    ("not applied", START, FRESH | NO_DRIVER | {"newest_version": 0}, False, False, "run ./tidemill apply flights"),
    (
        "stopped since",
        START,
        {"desired_state": "stopped", "requested_by": "bob"},
        False,
        False,
        "bob has requested the state stopped since",
    ),
    ("old driver still there", RESTART, {"exit_epoch": 7}, False, None, "its driver of epoch 7 has not exited yet"),
    (
        "old driver has exited",
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
    ("still runs", STOP, {"desired_state": "stopped"}, False, None, "its driver of epoch 7 is running"),
    ("has exited", STOP, {"desired_state": "stopped", "state": "stopped"}, False, True, ""),
    ("has failed", STOP, {"desired_state": "stopped", "state": "failed"}, False, True, ""),
    (
        "the last heartbeat is an older driver's",
        STOP,
        {"desired_state": "stopped", "state": "stopped", "epoch": 8},
        False,
        None,
        "",
    ),
    ("is gone", STOP, {"desired_state": "stopped"}, True, True, ""),
    ("was declared lost", STOP, {"desired_state": "stopped", "last_failed_at": ago(1)}, False, True, ""),
    ("never ran", STOP, NO_DRIVER | {"desired_state": "stopped"}, False, True, ""),
    (
        "halted, and to be stopped",
        STOP,
        {"desired_state": "stopped", "state": "failed", "halted_reason": "x"},
        False,
        True,
        "",
    ),
    ("started since", STOP, {"requested_by": "bob"}, False, False, "bob has requested the state running since"),
]


@pytest.mark.parametrize(
    ("request_", "changes", "gone", "reached", "reason"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_requested_state_is_reached_or_not_yet_or_never_will_be(
    request_: StateRequest, changes: dict[str, Any], gone: bool, reached: bool | None, reason: str
) -> None:
    """With a reason unless it is reached."""
    outcome, shown = outcome_of(replace(RUNNING, **changes), request_, gone=gone)
    assert outcome is reached
    assert reason in shown
    assert bool(shown) is not bool(reached)


def test_a_stream_whose_row_was_removed_is_not_waited_for() -> None:
    """A person removed it by hand."""
    assert outcome_of(None, START, gone=False)[0] is False
