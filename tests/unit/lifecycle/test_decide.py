"""The state that a stream's row means, and the action on it: every state, and every event that leads out of it."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from support.streams import NOW, RUNNING, ago
from tidemill.lifecycle.decide import ActionType, Desired, decide, desired_of
from tidemill.lifecycle.driver_state import ALIVE, FAILED, DriverState, Observed, last_signal, observe
from tidemill.lifecycle.limits import LIMITS, View
from tidemill.lifecycle.stream_row import StreamRow

LONG = LIMITS.view_seconds
"""A view of the database that is long enough to find a silent driver lost."""
SILENT = {"heartbeat_epoch": 6, "state": "running", "heartbeat_at": ago(501)}
"""Only the driver before has sent heartbeats."""


@pytest.mark.parametrize(
    ("changes", "gone", "state"),
    [
        ({}, False, DriverState.RUNNING),
        ({"state": "starting"}, False, DriverState.STARTING),
        ({"state": "stopping"}, False, DriverState.STOPPING),
        ({"state": "stopped"}, False, DriverState.STOPPED),
        ({"state": "stopped"}, True, DriverState.STOPPED),
        ({"state": "failed", "last_error": "no"}, True, DriverState.FAILED),
        ({"state": "failed", "heartbeat_at": ago(900)}, False, DriverState.FAILED),
        ({}, True, DriverState.LOST),
        ({"heartbeat_at": ago(7.5)}, False, DriverState.RUNNING),
        ({"heartbeat_at": ago(7.6)}, False, DriverState.LOST),
        ({"heartbeat_at": ago(7.6), "state": "stopping"}, False, DriverState.LOST),
        (
            {"epoch": 0, "acquired_at": None, "heartbeat_epoch": None, "state": None, "heartbeat_at": None},
            False,
            DriverState.NONE,
        ),
        (SILENT | {"acquired_at": ago(90)}, False, DriverState.STARTING),
        (SILENT | {"acquired_at": ago(91)}, False, DriverState.LOST),
        (SILENT | {"acquired_at": ago(5)}, True, DriverState.LOST),
        (SILENT | {"acquired_at": ago(45), "pid": None}, False, DriverState.STARTING),
        (SILENT | {"acquired_at": ago(46), "pid": None}, False, DriverState.LOST),
        (SILENT | {"acquired_at": ago(46), "pid": None, "submission_id": "driver-1"}, False, DriverState.STARTING),
        (
            {"heartbeat_epoch": None, "state": None, "heartbeat_at": None, "acquired_at": ago(5)},
            False,
            DriverState.STARTING,
        ),
        (SILENT | {"state": "stopped", "acquired_at": ago(5)}, False, DriverState.STARTING),
    ],
)
def test_a_row_means_one_state(changes: dict[str, object], gone: bool, state: DriverState) -> None:
    """What the driver reported last counts before its process, and only if it reported it in this epoch."""
    assert observe(replace(RUNNING, **changes), gone=gone, viewed_seconds=LONG).driver_state is state


QUIET = replace(RUNNING, heartbeat_at=ago(8))
UNHEARD = replace(RUNNING, **SILENT, acquired_at=ago(91))
"""It sent no heartbeat, and its grace is over."""
UNLAUNCHED = replace(RUNNING, **SILENT, acquired_at=ago(46), pid=None)


@pytest.mark.parametrize("row", [QUIET, UNHEARD, UNLAUNCHED])
def test_silence_is_judged_only_by_a_watcher_that_saw_the_database_all_the_while(row: StreamRow) -> None:
    """After an outage of the database the heartbeats are old although the drivers are alive."""
    assert observe(row).driver_state is DriverState.SILENT
    assert observe(row, viewed_seconds=LONG - 0.1).driver_state is DriverState.SILENT
    assert observe(row, viewed_seconds=LONG).driver_state is DriverState.LOST
    assert observe(row).reason == observe(row, viewed_seconds=LONG).reason != ""


@pytest.mark.parametrize("row", [QUIET, UNHEARD, UNLAUNCHED])
def test_a_judgement_holds_until_the_driver_sends_another_heartbeat(row: StreamRow) -> None:
    """The watcher passes it on to the task; the recorded failure passes it on to every reader of the row."""
    signal_at = last_signal(row)
    assert signal_at is not None
    assert observe(row, given_up=signal_at).driver_state is DriverState.LOST
    assert observe(row, given_up=signal_at - timedelta(seconds=2)).driver_state is DriverState.SILENT
    recorded = replace(row, last_failed_at=ago(1))
    assert observe(recorded).driver_state is DriverState.LOST
    again = replace(recorded, heartbeat_epoch=7, state="running", heartbeat_at=NOW)
    assert observe(again, given_up=signal_at).driver_state is DriverState.RUNNING
    assert observe(replace(again, now=NOW + timedelta(seconds=8))).driver_state is DriverState.SILENT


def test_a_process_that_is_gone_is_judged_at_once() -> None:
    """Nothing but its death explains that."""
    assert observe(QUIET, gone=True).driver_state is DriverState.LOST


def test_a_driver_whose_failure_is_recorded_is_lost_also_where_its_process_cannot_be_seen() -> None:
    """The process that recorded it saw its end; a recent heartbeat is then one of before."""
    row = replace(RUNNING, heartbeat_at=ago(3), last_failed_at=ago(2))
    assert observe(row).driver_state is DriverState.LOST
    assert observe(row).failure_recorded
    assert observe(replace(row, heartbeat_at=ago(1))).driver_state is DriverState.RUNNING


def seen(*seconds: float) -> float:
    """How long the view is after observations at these seconds."""
    view = None
    for second in seconds:
        view = View.after(view, NOW + timedelta(seconds=second))
    assert view is not None
    return view.seconds


@pytest.mark.parametrize(
    ("observations", "seconds"),
    [
        ((0,), 0),
        ((0, 2, 4), 4),
        ((0, 2, 8), 8),
        ((0, 2, 8.1), 0),
        ((0, 2, 60, 62, 64), 4),
        ((0, 2, 1, 3), 2),
    ],
)
def test_a_view_is_broken_by_a_long_pause_and_by_a_clock_that_goes_back(
    observations: tuple[float, ...], seconds: float
) -> None:
    """A database that did not answer for a while gives no sign of that."""
    assert seen(*observations) == seconds


@pytest.mark.parametrize("state", DriverState)
def test_a_failed_or_silent_driver_has_a_reason_and_no_other_has(state: DriverState) -> None:
    """A person reads the reason."""
    rows = {
        DriverState.NONE: replace(RUNNING, epoch=0),
        DriverState.STARTING: replace(RUNNING, state="starting"),
        DriverState.RUNNING: RUNNING,
        DriverState.STOPPING: replace(RUNNING, state="stopping"),
        DriverState.STOPPED: replace(RUNNING, state="stopped"),
        DriverState.FAILED: replace(RUNNING, state="failed"),
        DriverState.SILENT: replace(RUNNING, heartbeat_at=ago(99)),
        DriverState.LOST: RUNNING,
    }
    observed = observe(rows[state], gone=state is DriverState.LOST)
    assert observed.driver_state is state
    assert bool(observed.reason) == (state in (*FAILED, DriverState.SILENT))


@pytest.mark.parametrize("member", [*DriverState, *ActionType])
def test_every_state_and_every_action_has_its_sentence(member: DriverState | ActionType) -> None:
    """A reader of the code finds it under the name."""
    assert member.sentence[0].isupper()
    assert member.sentence.endswith(".")
    assert type(member)(member.value) is member


@pytest.mark.parametrize(
    ("failed_at", "recorded"), [(None, False), (ago(501), False), (ago(500), True), (ago(1), True)]
)
def test_a_failure_is_recorded_if_one_was_recorded_since_the_epoch_began(
    failed_at: datetime | None, recorded: bool
) -> None:
    """No column holds that; it follows from the two times."""
    assert observe(replace(RUNNING, last_failed_at=failed_at)).failure_recorded is recorded


def case(
    state: DriverState,
    *,
    version: int = 2,
    recorded: bool = False,
    failures: int = 0,
    failed: float = 0,
    asked: float | None = None,
) -> Observed:
    """A stream in a state, ``failed`` seconds after its last failure, ``asked`` seconds after the request to exit."""
    leaving_since = None if asked is None else ago(asked)
    return Observed(
        state, 7, version, "it failed", recorded, failures, ago(failed) if failures else None, leaving_since
    )


TO_RUN = Desired(running=True, since=ago(600), version=2)
TO_RUN_SINCE_NOW = Desired(running=True, since=ago(10), version=2)
TO_STOP = Desired(running=False, since=ago(10), version=2)
TO_STOP_LONG_AGO = Desired(running=False, since=ago(121), version=2)


@pytest.mark.parametrize(
    ("observed", "desired", "action_type"),
    [
        # It is to run, by the state of its driver.
        (case(DriverState.NONE), TO_RUN, ActionType.START),
        (case(DriverState.STARTING), TO_RUN, ActionType.WATCH),
        (case(DriverState.RUNNING), TO_RUN, ActionType.WATCH),
        (case(DriverState.SILENT), TO_RUN, ActionType.WATCH),
        (case(DriverState.STOPPING), TO_RUN_SINCE_NOW, ActionType.AWAIT_EXIT),
        (case(DriverState.STOPPING), TO_RUN, ActionType.KILL),
        (case(DriverState.STOPPED), TO_RUN, ActionType.START),
        # A version that is not the newest applied one, and no applied version.
        (case(DriverState.STARTING, version=1), TO_RUN, ActionType.ROLL),
        (case(DriverState.RUNNING, version=1), TO_RUN, ActionType.ROLL),
        (case(DriverState.STOPPED, version=1), TO_RUN, ActionType.START),
        (case(DriverState.RUNNING, version=1), replace(TO_RUN, version=None), ActionType.WATCH),
        (case(DriverState.SILENT, version=1), TO_RUN, ActionType.ROLL),
        # Requested to exit, for a restart or for a roll: it has its time, whatever it is doing, and is then killed.
        (case(DriverState.STARTING, asked=1), TO_RUN, ActionType.AWAIT_EXIT),
        (case(DriverState.RUNNING, asked=1), TO_RUN, ActionType.AWAIT_EXIT),
        (case(DriverState.RUNNING, version=1, asked=120), TO_RUN, ActionType.AWAIT_EXIT),
        (case(DriverState.STOPPING, asked=1), TO_RUN, ActionType.AWAIT_EXIT),
        (case(DriverState.SILENT, asked=1), TO_RUN, ActionType.AWAIT_EXIT),
        (case(DriverState.RUNNING, version=1, asked=121), TO_RUN, ActionType.KILL),
        (case(DriverState.STARTING, asked=121), TO_RUN, ActionType.KILL),
        (case(DriverState.STOPPING, asked=121), TO_RUN_SINCE_NOW, ActionType.KILL),
        (case(DriverState.SILENT, asked=121), TO_RUN, ActionType.KILL),
        # It has exited, and the next one follows; that is no failure. If it was lost, that is one.
        (case(DriverState.STOPPED, version=1, asked=1), TO_RUN, ActionType.START),
        (case(DriverState.STOPPED, asked=1, failures=3, failed=1), TO_RUN, ActionType.START),
        (case(DriverState.LOST, asked=1), TO_RUN, ActionType.RECORD_FAILURE),
        # Failed: first the failure is recorded, whether it is to run or not.
        (case(DriverState.FAILED), TO_RUN, ActionType.RECORD_FAILURE),
        (case(DriverState.LOST), TO_RUN, ActionType.RECORD_FAILURE),
        (case(DriverState.LOST), TO_STOP, ActionType.RECORD_FAILURE),
        # Then it is started again: at once after the first failure, later after more.
        (case(DriverState.LOST, recorded=True, failures=1), TO_RUN, ActionType.START),
        (case(DriverState.FAILED, recorded=True, failures=2, failed=3.9), TO_RUN, ActionType.BACK_OFF),
        (case(DriverState.FAILED, recorded=True, failures=2, failed=4), TO_RUN, ActionType.START),
        (case(DriverState.FAILED, recorded=True, failures=3, failed=15), TO_RUN, ActionType.BACK_OFF),
        (case(DriverState.FAILED, recorded=True, failures=5, failed=59), TO_RUN, ActionType.BACK_OFF),
        (case(DriverState.FAILED, recorded=True, failures=5, failed=60), TO_RUN, ActionType.START),
        # Again and again: the circuit opens. A request to run resets the failures and closes it.
        (case(DriverState.FAILED, recorded=True, failures=6, failed=600), TO_RUN, ActionType.OPEN_CIRCUIT),
        (case(DriverState.FAILED, recorded=True, failures=0), TO_RUN, ActionType.START),
        # It is to be stopped, by the state of its driver.
        (case(DriverState.NONE), TO_STOP, ActionType.IDLE),
        (case(DriverState.STARTING), TO_STOP, ActionType.AWAIT_EXIT),
        (case(DriverState.RUNNING), TO_STOP, ActionType.AWAIT_EXIT),
        (case(DriverState.SILENT), TO_STOP, ActionType.AWAIT_EXIT),
        (case(DriverState.RUNNING, asked=200), TO_STOP, ActionType.AWAIT_EXIT),
        (case(DriverState.STOPPING), TO_STOP, ActionType.AWAIT_EXIT),
        (case(DriverState.STOPPED), TO_STOP, ActionType.IDLE),
        (case(DriverState.FAILED, recorded=True, failures=6), TO_STOP, ActionType.IDLE),
        (case(DriverState.LOST, recorded=True, failures=1), TO_STOP, ActionType.IDLE),
        # Its exit was requested long ago.
        (case(DriverState.RUNNING), TO_STOP_LONG_AGO, ActionType.KILL),
        (case(DriverState.STOPPING), TO_STOP_LONG_AGO, ActionType.KILL),
        (case(DriverState.SILENT), TO_STOP_LONG_AGO, ActionType.KILL),
        (case(DriverState.STOPPED), TO_STOP_LONG_AGO, ActionType.IDLE),
        # A live driver of another version is not rolled when the stream is to be stopped.
        (case(DriverState.RUNNING, version=1), TO_STOP, ActionType.AWAIT_EXIT),
    ],
)
def test_each_situation_has_one_action(observed: Observed, desired: Desired, action_type: ActionType) -> None:
    """The table is the specification."""
    assert decide(observed, desired, NOW).action_type is action_type


@pytest.mark.parametrize("state", DriverState)
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("failures", [0, 1, 5, 6, 99])
def test_nothing_is_started_beside_a_live_driver_of_the_desired_version(
    state: DriverState, running: bool, recorded: bool, failures: int
) -> None:
    """Whatever else holds: one driver a stream, none for a stopped one, none beyond the limit of failures."""
    desired = replace(TO_RUN, running=running)
    action_type = decide(case(state, recorded=recorded, failures=failures, failed=9999), desired, NOW).action_type
    if action_type is ActionType.START:
        assert running
        assert state not in ALIVE
        assert state not in (DriverState.FAILED, DriverState.LOST) or (recorded and failures < LIMITS.failures)


def test_a_halted_stream_is_not_to_run() -> None:
    """The open circuit overrules the request, and the next request closes it."""
    row = replace(RUNNING, halted_reason="six drivers failed")
    assert not desired_of(row).running
    assert desired_of(RUNNING).running


def test_the_desired_version_is_the_newest_applied_one_or_any_where_none_is() -> None:
    """An edited folder is no version yet."""
    assert desired_of(RUNNING).version == 2
    assert desired_of(replace(RUNNING, newest_version=0)).version is None


@pytest.mark.parametrize(("exit_epoch", "is_leaving"), [(None, False), (6, False), (7, True), (8, True)])
def test_a_request_to_exit_is_for_the_drivers_up_to_an_epoch(exit_epoch: int | None, is_leaving: bool) -> None:
    """The one that follows stays."""
    observed = observe(replace(RUNNING, exit_epoch=exit_epoch, exit_requested_at=ago(3)))
    assert observed.leaving_since == (ago(3) if is_leaving else None)


def test_a_backoff_ends_at_a_known_time() -> None:
    """It is the time of the failure plus the backoff."""
    action = decide(case(DriverState.FAILED, recorded=True, failures=3, failed=1), TO_RUN, NOW)
    assert action.until == ago(1) + timedelta(seconds=16)


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 0), (2, 4), (3, 16), (4, 60), (5, 60), (10_000, 60)])
def test_backoff_grows_fourfold_up_to_a_minute_less_at_most_its_half(failures: int, seconds: float) -> None:
    """The first failure is answered at once."""
    assert LIMITS.backoff(failures, 0) == timedelta(seconds=seconds)
    assert LIMITS.backoff(failures, 1) == timedelta(seconds=seconds / 2)


def test_streams_that_failed_together_do_not_restart_together() -> None:
    """The jitter is another one for each stream and epoch, spread over the whole range, and the same at every look."""
    rows = [replace(RUNNING, stream=f"s{number}", epoch=epoch) for number in range(100) for epoch in (1, 2)]
    found = [observe(row).jitter for row in rows]
    assert found == [observe(row).jitter for row in rows]
    assert all(0 <= jitter < 1 for jitter in found)
    assert min(len([1 for jitter in found if tenth <= jitter * 10 < tenth + 1]) for tenth in range(10)) >= 5
