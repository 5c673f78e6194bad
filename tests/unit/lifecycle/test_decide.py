"""What a stream's row means, and what is done about it: every state, and every event that leads out of it."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from support.streams import NOW, RUNNING, ago
from tidemill.lifecycle.decide import ActionType, Desired, decide, desired_of
from tidemill.lifecycle.driver_state import ALIVE, FAILED, DriverState, Observed, last_signal, observe
from tidemill.lifecycle.limits import LIMITS, View
from tidemill.lifecycle.stream_row import StreamRow

LONG = LIMITS.view_seconds
"""A view of the database that is long enough to call a driver silent."""
SILENT = {"heartbeat_epoch": 6, "state": "running", "heartbeat_at": ago(501)}
"""Only the driver before has spoken."""


@pytest.mark.parametrize(
    ("changes", "gone", "life"),
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
def test_a_row_is_read_as_one_life(changes: dict[str, object], gone: bool, life: DriverState) -> None:
    """What the driver said last counts before its process, and only if it said it in this epoch."""
    assert observe(replace(RUNNING, **changes), gone=gone, viewed_seconds=LONG).driver_state is life


QUIET = replace(RUNNING, heartbeat_at=ago(8))
UNHEARD = replace(RUNNING, **SILENT, acquired_at=ago(91))
"""Never spoke, and its grace is over."""
UNLAUNCHED = replace(RUNNING, **SILENT, acquired_at=ago(46), pid=None)


@pytest.mark.parametrize("row", [QUIET, UNHEARD, UNLAUNCHED])
def test_silence_is_judged_only_by_one_who_saw_the_database_all_the_while(row: StreamRow) -> None:
    """After an outage of the database the heartbeats are old although the drivers live."""
    assert observe(row).driver_state is DriverState.SILENT
    assert observe(row, viewed_seconds=LONG - 0.1).driver_state is DriverState.SILENT
    assert observe(row, viewed_seconds=LONG).driver_state is DriverState.LOST
    assert observe(row).reason == observe(row, viewed_seconds=LONG).reason != ""


@pytest.mark.parametrize("row", [QUIET, UNHEARD, UNLAUNCHED])
def test_a_verdict_holds_for_those_who_come_later_until_the_driver_is_heard_of_again(row: StreamRow) -> None:
    """The watcher hands its verdict to the task; the count of the failure hands it to everybody."""
    heard = last_signal(row)
    assert heard is not None
    assert observe(row, given_up=heard).driver_state is DriverState.LOST
    assert observe(row, given_up=heard - timedelta(seconds=2)).driver_state is DriverState.SILENT
    counted = replace(row, last_failed_at=ago(1))
    assert observe(counted).driver_state is DriverState.LOST
    again = replace(counted, heartbeat_epoch=7, state="running", heartbeat_at=NOW)
    assert observe(again, given_up=heard).driver_state is DriverState.RUNNING
    assert observe(replace(again, now=NOW + timedelta(seconds=8))).driver_state is DriverState.SILENT


def test_a_process_that_is_gone_is_judged_at_once() -> None:
    """Nothing but its death explains that."""
    assert observe(QUIET, gone=True).driver_state is DriverState.LOST


def seen(*seconds: float) -> float:
    """How long the view is after looks at these seconds."""
    view = None
    for second in seconds:
        view = View.after(view, NOW + timedelta(seconds=second))
    assert view is not None
    return view.seconds


@pytest.mark.parametrize(
    ("looks", "seconds"),
    [
        ((0,), 0),
        ((0, 2, 4), 4),
        ((0, 2, 8), 8),
        ((0, 2, 8.1), 0),
        ((0, 2, 60, 62, 64), 4),
        ((0, 2, 1, 3), 2),
    ],
)
def test_a_view_is_broken_by_a_long_blink_and_by_a_clock_that_goes_back(
    looks: tuple[float, ...], seconds: float
) -> None:
    """A database that stood still answers late, and does not say that it did."""
    assert seen(*looks) == seconds


@pytest.mark.parametrize("life", DriverState)
def test_a_broken_driver_has_a_reason_and_no_other_has(life: DriverState) -> None:
    """The reason ends up in front of a person."""
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
    observed = observe(rows[life], gone=life is DriverState.LOST)
    assert observed.driver_state is life
    assert bool(observed.reason) == (life in (*FAILED, DriverState.SILENT))


@pytest.mark.parametrize("said", [*DriverState, *ActionType])
def test_every_state_and_every_verb_has_its_sentence(said: DriverState | ActionType) -> None:
    """A person reads it on the console."""
    assert said.sentence[0].isupper()
    assert said.sentence.endswith(".")
    assert type(said)(said.value) is said


@pytest.mark.parametrize(
    ("failed_at", "recorded"), [(None, False), (ago(501), False), (ago(500), True), (ago(1), True)]
)
def test_a_failure_is_recorded_if_one_was_recorded_since_the_epoch_began(
    failed_at: datetime | None, recorded: bool
) -> None:
    """No column holds that; it follows from the two times."""
    assert observe(replace(RUNNING, last_failed_at=failed_at)).failure_recorded is recorded


def case(
    life: DriverState,
    *,
    version: int = 2,
    recorded: bool = False,
    failures: int = 0,
    failed: float = 0,
    asked: float | None = None,
) -> Observed:
    """A stream observed in a life, ``failed`` seconds after its last counted failure, ``asked`` after it was asked."""
    leaving_since = None if asked is None else ago(asked)
    return Observed(life, 7, version, "it failed", recorded, failures, ago(failed) if failures else None, leaving_since)


WANTED = Desired(running=True, since=ago(600), version=2)
LATELY_WANTED = Desired(running=True, since=ago(10), version=2)
LATELY_UNWANTED = Desired(running=False, since=ago(10), version=2)
LONG_UNWANTED = Desired(running=False, since=ago(121), version=2)


@pytest.mark.parametrize(
    ("observed", "wanted", "verb"),
    [
        # Wanted, and what there is.
        (case(DriverState.NONE), WANTED, ActionType.START),
        (case(DriverState.STARTING), WANTED, ActionType.WATCH),
        (case(DriverState.RUNNING), WANTED, ActionType.WATCH),
        (case(DriverState.SILENT), WANTED, ActionType.WATCH),
        (case(DriverState.STOPPING), LATELY_WANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.STOPPING), WANTED, ActionType.KILL),
        (case(DriverState.STOPPED), WANTED, ActionType.START),
        # A version that is not the one applied, and a version nobody asked for.
        (case(DriverState.STARTING, version=1), WANTED, ActionType.ROLL),
        (case(DriverState.RUNNING, version=1), WANTED, ActionType.ROLL),
        (case(DriverState.STOPPED, version=1), WANTED, ActionType.START),
        (case(DriverState.RUNNING, version=1), replace(WANTED, version=None), ActionType.WATCH),
        (case(DriverState.SILENT, version=1), WANTED, ActionType.ROLL),
        # Asked to leave, for a restart or for a roll: it has its time, whatever it is doing, and then has not.
        (case(DriverState.STARTING, asked=1), WANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.RUNNING, asked=1), WANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.RUNNING, version=1, asked=120), WANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.STOPPING, asked=1), WANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.SILENT, asked=1), WANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.RUNNING, version=1, asked=121), WANTED, ActionType.KILL),
        (case(DriverState.STARTING, asked=121), WANTED, ActionType.KILL),
        (case(DriverState.STOPPING, asked=121), LATELY_WANTED, ActionType.KILL),
        (case(DriverState.SILENT, asked=121), WANTED, ActionType.KILL),
        # It has left, and the next one comes; that is no failure. If it broke, it is one.
        (case(DriverState.STOPPED, version=1, asked=1), WANTED, ActionType.START),
        (case(DriverState.STOPPED, asked=1, failures=3, failed=1), WANTED, ActionType.START),
        (case(DriverState.LOST, asked=1), WANTED, ActionType.RECORD_FAILURE),
        # Broken: first it is counted, wanted or not.
        (case(DriverState.FAILED), WANTED, ActionType.RECORD_FAILURE),
        (case(DriverState.LOST), WANTED, ActionType.RECORD_FAILURE),
        (case(DriverState.LOST), LATELY_UNWANTED, ActionType.RECORD_FAILURE),
        # Then it is started again: at once after the first failure, later after more.
        (case(DriverState.LOST, recorded=True, failures=1), WANTED, ActionType.START),
        (case(DriverState.FAILED, recorded=True, failures=2, failed=3.9), WANTED, ActionType.BACK_OFF),
        (case(DriverState.FAILED, recorded=True, failures=2, failed=4), WANTED, ActionType.START),
        (case(DriverState.FAILED, recorded=True, failures=3, failed=15), WANTED, ActionType.BACK_OFF),
        (case(DriverState.FAILED, recorded=True, failures=5, failed=59), WANTED, ActionType.BACK_OFF),
        (case(DriverState.FAILED, recorded=True, failures=5, failed=60), WANTED, ActionType.START),
        # Again and again: the circuit opens. A wish to run has set the count to 0 and closes it.
        (case(DriverState.FAILED, recorded=True, failures=6, failed=600), WANTED, ActionType.OPEN_CIRCUIT),
        (case(DriverState.FAILED, recorded=True, failures=0), WANTED, ActionType.START),
        # Not wanted, and what there is.
        (case(DriverState.NONE), LATELY_UNWANTED, ActionType.IDLE),
        (case(DriverState.STARTING), LATELY_UNWANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.RUNNING), LATELY_UNWANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.SILENT), LATELY_UNWANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.RUNNING, asked=200), LATELY_UNWANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.STOPPING), LATELY_UNWANTED, ActionType.AWAIT_EXIT),
        (case(DriverState.STOPPED), LATELY_UNWANTED, ActionType.IDLE),
        (case(DriverState.FAILED, recorded=True, failures=6), LATELY_UNWANTED, ActionType.IDLE),
        (case(DriverState.LOST, recorded=True, failures=1), LATELY_UNWANTED, ActionType.IDLE),
        # It was told to leave long ago.
        (case(DriverState.RUNNING), LONG_UNWANTED, ActionType.KILL),
        (case(DriverState.STOPPING), LONG_UNWANTED, ActionType.KILL),
        (case(DriverState.SILENT), LONG_UNWANTED, ActionType.KILL),
        (case(DriverState.STOPPED), LONG_UNWANTED, ActionType.IDLE),
        # A live driver of another version is not rolled when it is not wanted.
        (case(DriverState.RUNNING, version=1), LATELY_UNWANTED, ActionType.AWAIT_EXIT),
    ],
)
def test_each_situation_has_one_answer(observed: Observed, wanted: Desired, verb: ActionType) -> None:
    """The table is the specification."""
    assert decide(observed, wanted, NOW).action_type is verb


@pytest.mark.parametrize("life", DriverState)
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("failures", [0, 1, 5, 6, 99])
def test_nothing_is_started_beside_a_live_driver_of_the_wanted_version(
    life: DriverState, running: bool, recorded: bool, failures: int
) -> None:
    """Whatever else holds: one driver a stream, none that is not wanted, none beyond the limit of failures."""
    wanted = replace(WANTED, running=running)
    verb = decide(case(life, recorded=recorded, failures=failures, failed=9999), wanted, NOW).action_type
    if verb is ActionType.START:
        assert running
        assert life not in ALIVE
        assert life not in (DriverState.FAILED, DriverState.LOST) or (recorded and failures < LIMITS.failures)


def test_a_halted_stream_is_not_wanted() -> None:
    """The circuit overrules the wish, and the next wish closes it."""
    row = replace(RUNNING, halted_reason="six drivers broke")
    assert not desired_of(row).running
    assert desired_of(RUNNING).running


def test_what_is_wanted_is_the_newest_applied_version_or_any_where_none_is() -> None:
    """An edited folder is no version yet."""
    assert desired_of(RUNNING).version == 2
    assert desired_of(replace(RUNNING, newest_version=0)).version is None


@pytest.mark.parametrize(("exit_epoch", "is_leaving"), [(None, False), (6, False), (7, True), (8, True)])
def test_a_request_to_leave_is_for_the_drivers_up_to_an_epoch(exit_epoch: int | None, is_leaving: bool) -> None:
    """The one that follows stays."""
    observed = observe(replace(RUNNING, exit_epoch=exit_epoch, exit_requested_at=ago(3)))
    assert observed.leaving_since == (ago(3) if is_leaving else None)


def test_a_wait_says_until_when() -> None:
    """It is the time of the failure plus the backoff."""
    action = decide(case(DriverState.FAILED, recorded=True, failures=3, failed=1), WANTED, NOW)
    assert action.until == ago(1) + timedelta(seconds=16)


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 0), (2, 4), (3, 16), (4, 60), (5, 60), (10_000, 60)])
def test_backoff_grows_fourfold_up_to_a_minute_less_at_most_its_half(failures: int, seconds: float) -> None:
    """The first failure is answered at once."""
    assert LIMITS.backoff(failures, 0) == timedelta(seconds=seconds)
    assert LIMITS.backoff(failures, 1) == timedelta(seconds=seconds / 2)


def test_streams_that_broke_together_do_not_come_back_together() -> None:
    """The jitter is another one for each stream and epoch, spread over the whole range, and the same at every look."""
    rows = [replace(RUNNING, stream=f"s{number}", epoch=epoch) for number in range(100) for epoch in (1, 2)]
    found = [observe(row).jitter for row in rows]
    assert found == [observe(row).jitter for row in rows]
    assert all(0 <= jitter < 1 for jitter in found)
    assert min(len([1 for jitter in found if tenth <= jitter * 10 < tenth + 1]) for tenth in range(10)) >= 5
