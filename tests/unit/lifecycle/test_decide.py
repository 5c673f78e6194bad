"""What a stream's row means, and what is done about it: every state, and every event that leads out of it."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from support.streams import NOW, RUNNING, ago
from tidemill.lifecycle.decide import Verb, Wanted, decide, wanted_of
from tidemill.lifecycle.driver_state import BROKEN, LIVE, Life, Observed, observe, sign_of_life
from tidemill.lifecycle.limits import LIMITS, View
from tidemill.lifecycle.stream_row import StreamRow

LONG = LIMITS.view_seconds
"""A view of the database that is long enough to call a driver silent."""
SILENT = {"beat_epoch": 6, "state": "running", "beat_at": ago(501)}
"""Only the driver before has spoken."""


@pytest.mark.parametrize(
    ("changes", "gone", "life"),
    [
        ({}, False, Life.RUNNING),
        ({"state": "starting"}, False, Life.STARTING),
        ({"state": "stopping"}, False, Life.STOPPING),
        ({"state": "stopped"}, False, Life.STOPPED),
        ({"state": "stopped"}, True, Life.STOPPED),
        ({"state": "failed", "last_error": "no"}, True, Life.FAILED),
        ({"state": "failed", "beat_at": ago(900)}, False, Life.FAILED),
        ({}, True, Life.LOST),
        ({"beat_at": ago(7.5)}, False, Life.RUNNING),
        ({"beat_at": ago(7.6)}, False, Life.LOST),
        ({"beat_at": ago(7.6), "state": "stopping"}, False, Life.LOST),
        ({"epoch": 0, "taken_at": None, "beat_epoch": None, "state": None, "beat_at": None}, False, Life.NONE),
        (SILENT | {"taken_at": ago(90)}, False, Life.STARTING),
        (SILENT | {"taken_at": ago(91)}, False, Life.LOST),
        (SILENT | {"taken_at": ago(5)}, True, Life.LOST),
        (SILENT | {"taken_at": ago(45), "pid": None}, False, Life.STARTING),
        (SILENT | {"taken_at": ago(46), "pid": None}, False, Life.LOST),
        (SILENT | {"taken_at": ago(46), "pid": None, "submission_id": "driver-1"}, False, Life.STARTING),
        ({"beat_epoch": None, "state": None, "beat_at": None, "taken_at": ago(5)}, False, Life.STARTING),
        (SILENT | {"state": "stopped", "taken_at": ago(5)}, False, Life.STARTING),
    ],
)
def test_a_row_is_read_as_one_life(changes: dict[str, object], gone: bool, life: Life) -> None:
    """What the driver said last counts before its process, and only if it said it in this epoch."""
    assert observe(replace(RUNNING, **changes), gone=gone, viewed_seconds=LONG).life is life


QUIET = replace(RUNNING, beat_at=ago(8))
UNHEARD = replace(RUNNING, **SILENT, taken_at=ago(91))
"""Never spoke, and its grace is over."""
UNLAUNCHED = replace(RUNNING, **SILENT, taken_at=ago(46), pid=None)


@pytest.mark.parametrize("row", [QUIET, UNHEARD, UNLAUNCHED])
def test_silence_is_judged_only_by_one_who_saw_the_database_all_the_while(row: StreamRow) -> None:
    """After an outage of the database the heartbeats are old although the drivers live."""
    assert observe(row).life is Life.SILENT
    assert observe(row, viewed_seconds=LONG - 0.1).life is Life.SILENT
    assert observe(row, viewed_seconds=LONG).life is Life.LOST
    assert observe(row).reason == observe(row, viewed_seconds=LONG).reason != ""


@pytest.mark.parametrize("row", [QUIET, UNHEARD, UNLAUNCHED])
def test_a_verdict_holds_for_those_who_come_later_until_the_driver_is_heard_of_again(row: StreamRow) -> None:
    """The watcher hands its verdict to the task; the count of the failure hands it to everybody."""
    heard = sign_of_life(row)
    assert heard is not None
    assert observe(row, given_up=heard).life is Life.LOST
    assert observe(row, given_up=heard - timedelta(seconds=2)).life is Life.SILENT
    counted = replace(row, last_failed_at=ago(1))
    assert observe(counted).life is Life.LOST
    again = replace(counted, beat_epoch=7, state="running", beat_at=NOW)
    assert observe(again, given_up=heard).life is Life.RUNNING
    assert observe(replace(again, now=NOW + timedelta(seconds=8))).life is Life.SILENT


def test_a_process_that_is_gone_is_judged_at_once() -> None:
    """Nothing but its death explains that."""
    assert observe(QUIET, gone=True).life is Life.LOST


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


@pytest.mark.parametrize("life", Life)
def test_a_broken_driver_has_a_reason_and_no_other_has(life: Life) -> None:
    """The reason ends up in front of a person."""
    rows = {
        Life.NONE: replace(RUNNING, epoch=0),
        Life.STARTING: replace(RUNNING, state="starting"),
        Life.RUNNING: RUNNING,
        Life.STOPPING: replace(RUNNING, state="stopping"),
        Life.STOPPED: replace(RUNNING, state="stopped"),
        Life.FAILED: replace(RUNNING, state="failed"),
        Life.SILENT: replace(RUNNING, beat_at=ago(99)),
        Life.LOST: RUNNING,
    }
    observed = observe(rows[life], gone=life is Life.LOST)
    assert observed.life is life
    assert bool(observed.reason) == (life in (*BROKEN, Life.SILENT))


@pytest.mark.parametrize("said", [*Life, *Verb])
def test_every_state_and_every_verb_has_its_sentence(said: Life | Verb) -> None:
    """A person reads it on the console."""
    assert said.sentence[0].isupper()
    assert said.sentence.endswith(".")
    assert type(said)(said.value) is said


@pytest.mark.parametrize(("failed_at", "counted"), [(None, False), (ago(501), False), (ago(500), True), (ago(1), True)])
def test_a_failure_is_counted_if_one_was_counted_since_the_epoch_began(
    failed_at: datetime | None, counted: bool
) -> None:
    """No column says so; the two times do."""
    assert observe(replace(RUNNING, last_failed_at=failed_at)).counted is counted


def case(
    life: Life,
    *,
    version: int = 2,
    counted: bool = False,
    failures: int = 0,
    failed: float = 0,
    asked: float | None = None,
) -> Observed:
    """A stream observed in a life, ``failed`` seconds after its last counted failure, ``asked`` after it was asked."""
    leaving_since = None if asked is None else ago(asked)
    return Observed(life, 7, version, "it broke", counted, failures, ago(failed) if failures else None, leaving_since)


WANTED = Wanted(running=True, since=ago(600), version=2)
LATELY_WANTED = Wanted(running=True, since=ago(10), version=2)
LATELY_UNWANTED = Wanted(running=False, since=ago(10), version=2)
LONG_UNWANTED = Wanted(running=False, since=ago(121), version=2)


@pytest.mark.parametrize(
    ("observed", "wanted", "verb"),
    [
        # Wanted, and what there is.
        (case(Life.NONE), WANTED, Verb.START),
        (case(Life.STARTING), WANTED, Verb.WATCH),
        (case(Life.RUNNING), WANTED, Verb.WATCH),
        (case(Life.SILENT), WANTED, Verb.WATCH),
        (case(Life.STOPPING), LATELY_WANTED, Verb.STOP),
        (case(Life.STOPPING), WANTED, Verb.KILL),
        (case(Life.STOPPED), WANTED, Verb.START),
        # A version that is not the one applied, and a version nobody asked for.
        (case(Life.STARTING, version=1), WANTED, Verb.ROLL),
        (case(Life.RUNNING, version=1), WANTED, Verb.ROLL),
        (case(Life.STOPPED, version=1), WANTED, Verb.START),
        (case(Life.RUNNING, version=1), replace(WANTED, version=None), Verb.WATCH),
        (case(Life.SILENT, version=1), WANTED, Verb.ROLL),
        # Asked to leave, for a restart or for a roll: it has its time, whatever it is doing, and then has not.
        (case(Life.STARTING, asked=1), WANTED, Verb.STOP),
        (case(Life.RUNNING, asked=1), WANTED, Verb.STOP),
        (case(Life.RUNNING, version=1, asked=120), WANTED, Verb.STOP),
        (case(Life.STOPPING, asked=1), WANTED, Verb.STOP),
        (case(Life.SILENT, asked=1), WANTED, Verb.STOP),
        (case(Life.RUNNING, version=1, asked=121), WANTED, Verb.KILL),
        (case(Life.STARTING, asked=121), WANTED, Verb.KILL),
        (case(Life.STOPPING, asked=121), LATELY_WANTED, Verb.KILL),
        (case(Life.SILENT, asked=121), WANTED, Verb.KILL),
        # It has left, and the next one comes; that is no failure. If it broke, it is one.
        (case(Life.STOPPED, version=1, asked=1), WANTED, Verb.START),
        (case(Life.STOPPED, asked=1, failures=3, failed=1), WANTED, Verb.START),
        (case(Life.LOST, asked=1), WANTED, Verb.FAIL),
        # Broken: first it is counted, wanted or not.
        (case(Life.FAILED), WANTED, Verb.FAIL),
        (case(Life.LOST), WANTED, Verb.FAIL),
        (case(Life.LOST), LATELY_UNWANTED, Verb.FAIL),
        # Then it is started again: at once after the first failure, later after more.
        (case(Life.LOST, counted=True, failures=1), WANTED, Verb.START),
        (case(Life.FAILED, counted=True, failures=2, failed=3.9), WANTED, Verb.WAIT),
        (case(Life.FAILED, counted=True, failures=2, failed=4), WANTED, Verb.START),
        (case(Life.FAILED, counted=True, failures=3, failed=15), WANTED, Verb.WAIT),
        (case(Life.FAILED, counted=True, failures=5, failed=59), WANTED, Verb.WAIT),
        (case(Life.FAILED, counted=True, failures=5, failed=60), WANTED, Verb.START),
        # Again and again: the circuit opens. A wish to run has set the count to 0 and closes it.
        (case(Life.FAILED, counted=True, failures=6, failed=600), WANTED, Verb.HALT),
        (case(Life.FAILED, counted=True, failures=0), WANTED, Verb.START),
        # Not wanted, and what there is.
        (case(Life.NONE), LATELY_UNWANTED, Verb.DONE),
        (case(Life.STARTING), LATELY_UNWANTED, Verb.STOP),
        (case(Life.RUNNING), LATELY_UNWANTED, Verb.STOP),
        (case(Life.SILENT), LATELY_UNWANTED, Verb.STOP),
        (case(Life.RUNNING, asked=200), LATELY_UNWANTED, Verb.STOP),
        (case(Life.STOPPING), LATELY_UNWANTED, Verb.STOP),
        (case(Life.STOPPED), LATELY_UNWANTED, Verb.DONE),
        (case(Life.FAILED, counted=True, failures=6), LATELY_UNWANTED, Verb.DONE),
        (case(Life.LOST, counted=True, failures=1), LATELY_UNWANTED, Verb.DONE),
        # It was told to leave long ago.
        (case(Life.RUNNING), LONG_UNWANTED, Verb.KILL),
        (case(Life.STOPPING), LONG_UNWANTED, Verb.KILL),
        (case(Life.SILENT), LONG_UNWANTED, Verb.KILL),
        (case(Life.STOPPED), LONG_UNWANTED, Verb.DONE),
        # A live driver of another version is not rolled when it is not wanted.
        (case(Life.RUNNING, version=1), LATELY_UNWANTED, Verb.STOP),
    ],
)
def test_each_situation_has_one_answer(observed: Observed, wanted: Wanted, verb: Verb) -> None:
    """The table is the specification."""
    assert decide(observed, wanted, NOW).verb is verb


@pytest.mark.parametrize("life", Life)
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("failures", [0, 1, 5, 6, 99])
def test_nothing_is_started_beside_a_live_driver_of_the_wanted_version(
    life: Life, running: bool, counted: bool, failures: int
) -> None:
    """Whatever else holds: one driver a stream, none that is not wanted, none beyond the limit of failures."""
    wanted = replace(WANTED, running=running)
    verb = decide(case(life, counted=counted, failures=failures, failed=9999), wanted, NOW).verb
    if verb is Verb.START:
        assert running
        assert life not in LIVE
        assert life not in (Life.FAILED, Life.LOST) or (counted and failures < LIMITS.failures)


def test_a_halted_stream_is_not_wanted() -> None:
    """The circuit overrules the wish, and the next wish closes it."""
    row = replace(RUNNING, halted_reason="six drivers broke")
    assert not wanted_of(row).running
    assert wanted_of(RUNNING).running


def test_what_is_wanted_is_the_newest_applied_version_or_any_where_none_is() -> None:
    """An edited folder is no version yet."""
    assert wanted_of(RUNNING).version == 2
    assert wanted_of(replace(RUNNING, newest_version=0)).version is None


@pytest.mark.parametrize(("leave_epoch", "is_leaving"), [(None, False), (6, False), (7, True), (8, True)])
def test_a_request_to_leave_is_for_the_drivers_up_to_an_epoch(leave_epoch: int | None, is_leaving: bool) -> None:
    """The one that follows stays."""
    observed = observe(replace(RUNNING, leave_epoch=leave_epoch, leave_at=ago(3)))
    assert observed.leaving_since == (ago(3) if is_leaving else None)


def test_a_wait_says_until_when() -> None:
    """It is the time of the failure plus the backoff."""
    action = decide(case(Life.FAILED, counted=True, failures=3, failed=1), WANTED, NOW)
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
