"""Under any order of events: one driver an epoch, what is stopped stays stopped, what is wanted runs again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from support.lifecycles import TICK_SECONDS, Broken, Driver, Steps, World, ensure, step
from tidemill.lifecycle.decide import Action, ActionType, Desired
from tidemill.lifecycle.driver_state import ALIVE, DriverState, Observed
from tidemill.lifecycle.limits import LIMITS, View
from tidemill.lifecycle.stream_row import StreamRow

SUPERVISORS = 2
LONGEST_TICKS = 250
"""Eight minutes: one driver that never speaks, one that does not leave, and all the backoff there is."""
PATIENCE = int(LIMITS.leave_seconds / TICK_SECONDS) + 40
"""Ticks in which every driver that is not wanted has left, or was made to."""


class Machine(RuleBasedStateMachine):
    """What both machines share: the world, the acts of people and the faults."""

    world_type: ClassVar[type[World]] = World

    def __init__(self) -> None:
        super().__init__()
        self.world = self.world_type()
        self.supervisors: list[Steps] = [self.world.supervise() for _ in range(SUPERVISORS)]

    @initialize(sees_processes=st.booleans())
    def begin(self, sees_processes: bool) -> None:
        """A stream that a person has just started."""
        self.world.sees_processes = sees_processes
        self.world.wish("running")

    def fair(
        self,
        ticks: int,
        until: Callable[[], bool] = lambda: False,
        pause: ActionType | None = None,
        only: Sequence[Steps] = (),
    ) -> bool:
        """Let time pass in which everybody gets their turn.

        Args:
            ticks: at most.
            until: stop when this holds.
            pause: stop when somebody has decided on this, and has not done it; it is then the last supervisor.
            only: these supervisors; all if empty.

        Returns:
            Whether one of both happened.
        """
        for _ in range(ticks):
            self.world.tick(TICK_SECONDS)
            for driver in [*self.world.living()] * 4:
                if driver.alive and not driver.hung:
                    step(driver.steps)
            for number, supervisor in enumerate(only or self.supervisors):
                for _ in range(6):
                    if step(supervisor) is pause is not None:
                        self.supervisors.append(self.supervisors.pop(number))
                        return True
            if until():
                return True
        return False

    @precondition(lambda self: self.world.up)
    @rule(wanted=st.sampled_from(["running", "stopped"]))
    def wish(self, wanted: str) -> None:
        """Start, or stop."""
        self.world.wish(wanted)

    @precondition(lambda self: self.world.up)
    @rule()
    def restart(self) -> None:
        """By a person."""
        self.world.wish("running")
        self.world.request_exit()

    @precondition(lambda self: self.world.up)
    @rule()
    def apply(self) -> None:
        """A newer version."""
        self.world.row = replace(self.world.row, newest_version=self.world.row.newest_version + 1)

    @rule(up=st.sampled_from([True, True, False]))
    def database(self, up: bool) -> None:
        """It goes away, and comes back."""
        self.world.up = up

    @precondition(lambda self: self.world.living())
    @rule(data=st.data(), how=st.sampled_from(["dies", "hangs", "is stubborn", "is cut off"]))
    def trouble(self, data: st.DataObject, how: str) -> None:
        """Of a driver."""
        driver: Driver = data.draw(st.sampled_from(self.world.living()), label="driver")
        self.world.troubles += 1
        driver.faulty = True
        if how == "dies":
            driver.alive = False
        elif how == "hangs":
            driver.hung = True
        elif how == "is stubborn":
            driver.stubborn = True
        else:
            driver.deaf_until = self.world.now + timedelta(seconds=30)

    @rule(number=st.integers(0, SUPERVISORS - 1))
    def airflow_restarts(self, number: int) -> None:
        """A supervisor forgets what it was about to do. An epoch that it took, and started no driver for, is broken."""
        self.world.troubles += not any(driver.epoch == self.world.row.epoch for driver in self.world.drivers)
        self.supervisors[number] = self.world.supervise()

    def heal(self) -> None:
        """Nothing is in the way any more."""
        self.world.up = self.world.healthy = True

    def teardown(self) -> None:
        """Whatever has happened: let it be over, and the stream becomes what is wanted of it, and stays that."""
        self.heal()
        if self.world.row.desired_state == "stopped" or self.world.row.halted_reason:
            # That nothing is started is checked where things are started.
            self.fair(PATIENCE)
            left = [driver for driver in self.world.living() if not driver.faulty]
            holder = self.world.holder()
            # A process that hangs is ended if it can be seen, and if whoever started it lived to say which it is.
            if self.world.sees_processes and holder is not None and holder.pid == self.world.row.pid:
                left.append(holder)
            ensure(not left, "a stopped stream has a driver")
            self.world.wish("running")
        elif not self.fair(LONGEST_TICKS, lambda: self.world.runs() or bool(self.world.row.halted_reason)):
            raise Broken("a wanted stream does not run again, nor does it say why not")
        if self.world.row.halted_reason:
            self.world.wish("running")
        ensure(self.fair(LONGEST_TICKS, self.world.runs), "a wanted stream does not run again")
        taken = self.world.row.epoch
        self.fair(30)
        ensure(self.world.runs() and self.world.row.epoch == taken, "it does not keep running")


class AnyOrder(Machine):
    """Everybody acts when they like, and stops in the middle; time passes as it likes."""

    @rule(number=st.integers(0, SUPERVISORS - 1), steps=st.sampled_from([1, 2, 3, 5, 8, 20]))
    def supervise(self, number: int, steps: int) -> None:
        """Some steps of one."""
        for _ in range(steps):
            step(self.supervisors[number])

    @precondition(lambda self: self.world.up)
    @rule(
        verb=st.sampled_from([ActionType.START, ActionType.ROLL, ActionType.KILL, ActionType.OPEN_CIRCUIT]),
        then=st.sampled_from(["running", "stopped", "the other one is faster"]),
    )
    def overtake(self, verb: ActionType, then: str) -> None:
        """One is brought to decide on something, and something else happens before it acts."""
        holder = self.world.holder()
        if verb is ActionType.ROLL:
            self.apply()
        elif verb is ActionType.OPEN_CIRCUIT:
            self.world.healthy = False
        elif holder is not None:
            self.world.troubles += 1
            holder.alive, holder.stubborn = verb is not ActionType.START, verb is ActionType.KILL
            self.world.request_exit()
        if self.fair(70, pause=verb):
            if then == "the other one is faster":
                self.fair(25, only=self.supervisors[:1])
            else:
                self.world.wish(then)
        self.world.healthy = True

    @precondition(lambda self: self.world.living())
    @rule(data=st.data(), steps=st.sampled_from([1, 2, 3, 8, 20]))
    def drive(self, data: st.DataObject, steps: int) -> None:
        """Some steps of one."""
        driver: Driver = data.draw(st.sampled_from(self.world.living()), label="driver")
        for _ in range(0 if driver.hung else steps):
            step(driver.steps)

    @rule(seconds=st.sampled_from([0.5, 5.0, 50.0, 130.0]))
    def wait(self, seconds: float) -> None:
        """Nobody does anything."""
        self.world.tick(seconds)

    @rule(ticks=st.sampled_from([1, 5, 20, 20]))
    def go_on(self, ticks: int) -> None:
        """All is as usual for a while."""
        self.fair(ticks)

    @rule(healthy=st.booleans())
    def cluster(self, healthy: bool) -> None:
        """Drivers cannot work, and can again."""
        self.world.healthy = healthy


class InTime(Machine):
    """Everybody is punctual but the database: nobody who lives is taken for dead, nor replaced for nothing."""

    @rule(ticks=st.sampled_from([1, 2, 5, 10, 40]))
    def go_on(self, ticks: int) -> None:
        """All is as usual for a while."""
        self.fair(ticks)
        self.check()

    @precondition(lambda self: self.world.up)
    @rule(seconds=st.sampled_from([4.0, 20.0, 60.0]), deaf=st.sampled_from([0.0, 4.0, 11.0]))
    def outage(self, seconds: float, deaf: float) -> None:
        """The database is away, or the network is; drivers take a while to find it again."""
        self.world.up = False
        self.fair(int(seconds / TICK_SECONDS))
        self.back(deaf)

    @precondition(lambda self: self.world.up)
    @rule(seconds=st.sampled_from([20.0, 60.0]), deaf=st.sampled_from([0.0, 11.0]))
    def freeze(self, seconds: float, deaf: float) -> None:
        """The database stands still: whoever asks waits for an answer, and gets one."""
        self.world.tick(seconds)
        self.back(deaf)

    def back(self, deaf: float) -> None:
        """It answers again."""
        self.world.up = True
        for driver in self.world.living():
            driver.deaf_until = self.world.now + timedelta(seconds=deaf)
        self.fair(20)
        self.check()

    def check(self) -> None:
        """Whatever was counted as a failure was one."""
        ensure(self.world.failures <= self.world.troubles, "somebody who lived, or was told to leave, was counted")


class Careful(World):
    """Complains when a driver is replaced that does all it should."""

    def acquire_lease(self, seen: StreamRow, version: int) -> int:
        holder, row = self.holder(), self.row
        epoch = super().acquire_lease(seen, version)
        well = holder is not None and not holder.faulty and (row.exit_epoch or 0) < row.epoch
        ensure(not (well and row.desired_state == "running" and not row.halted_reason), "a good driver was replaced")
        return epoch


InTime.world_type = Careful


def check(machine: type[Machine], world: type[World], tried: how) -> None:
    """Run the machine on a world."""
    found = type(machine.__name__, (machine,), {"world_type": world})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # Hypothesis has no annotations here
        found,
        settings=how(
            tried,
            stateful_step_count=30,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("machine", [AnyOrder, InTime])
def test_under_any_order_of_events_a_stream_becomes_what_is_wanted(
    machine: type[Machine], pytestconfig: pytest.Config
) -> None:
    """Never two drivers of one epoch, none that commits without it, none for a stopped stream, and it runs again."""
    check(machine, machine.world_type, how(max_examples=3000 if pytestconfig.getoption("full") else 60))


class _OneEpochForTwo(World):
    """Two that take over at once are not told apart."""

    def acquire_lease(self, seen: StreamRow, version: int) -> int:
        self._write(epoch=seen.epoch + 1, pipeline_version=version, acquired_at=self.now, pid=None)
        return seen.epoch + 1


class _AnyWish(World):
    """A take-over does not heed a later wish."""

    def acquire_lease(self, seen: StreamRow, version: int) -> int:
        return super().acquire_lease(replace(seen, requested_at=self.row.requested_at), version)


class _HaltAnyway(World):
    """A circuit opens though somebody closed it meanwhile."""

    def halt(self, seen: StreamRow, reason: str) -> bool:
        return super().halt(replace(seen, requested_at=self.row.requested_at), reason)


class _WishForgetsNothing(World):
    """A wish to run leaves the failures where they are."""

    def wish(self, wanted: str) -> None:
        before = self.row.failures_in_a_row
        super().wish(wanted)
        self._write(failures_in_a_row=before)


class _Unfenced(World):
    """A driver commits without proof of its epoch."""

    def is_fenced(self, driver: Driver, row: StreamRow) -> bool:
        return False

    def check_fencing_token(self, driver: Driver) -> None:
        self.read()


class _CountsNothing(World):
    """No failure is ever counted."""

    def count_failure(self, epoch: int) -> None:
        self.read()


class _RollsWhomever(World):
    """Whoever asks a driver to leave may mean the one before it."""

    def request_exit(self, epoch: int | None = None) -> None:
        super().request_exit()


class _LeaveForGood(World):
    """A request to leave is for every driver to come."""

    def acquire_lease(self, seen: StreamRow, version: int) -> int:
        epoch = super().acquire_lease(seen, version)
        self._write(exit_epoch=self.row.exit_epoch and epoch)
        return epoch


class _KeepsItsVerdict(World):
    """The watcher does not tell the task what it knows."""

    def work(self, given_up: datetime | None) -> Steps:
        return super().work(None)


class _NeverSilent(World):
    """Silence is no reason."""

    def observe(self, row: StreamRow, gone: bool, viewed_seconds: float, given_up: datetime | None) -> Observed:
        return super().observe(row, gone, 0, None)


class _Decides(World):
    """What is decided is changed by a rule."""

    def decide(self, observed: Observed, wanted: Desired, now: datetime) -> Action:
        action = super().decide(observed, wanted, now)
        return replace(action, action_type=self.instead(action.action_type, observed, wanted))

    def instead(self, verb: ActionType, observed: Observed, wanted: Desired) -> ActionType:
        raise NotImplementedError


class _NeverKills(_Decides):
    """Who does not leave is waited for."""

    def instead(self, verb: ActionType, observed: Observed, wanted: Desired) -> ActionType:
        return ActionType.AWAIT_EXIT if verb is ActionType.KILL else verb


class _StartsTheUnwanted(_Decides):
    """What has no driver gets one."""

    def instead(self, verb: ActionType, observed: Observed, wanted: Desired) -> ActionType:
        return ActionType.START if verb is ActionType.IDLE and observed.driver_state is DriverState.STOPPED else verb


class _HaltsAtOnce(_Decides):
    """One failure is enough."""

    def instead(self, verb: ActionType, observed: Observed, wanted: Desired) -> ActionType:
        return ActionType.OPEN_CIRCUIT if verb is ActionType.START and observed.failures else verb


class _StartsBeside(_Decides, Careful):
    """A driver that starts is not seen."""

    def instead(self, verb: ActionType, observed: Observed, wanted: Desired) -> ActionType:
        return ActionType.START if verb is ActionType.WATCH and observed.driver_state is DriverState.STARTING else verb


class _RollsByForce(_Decides, Careful):
    """A driver of another version is not asked."""

    def instead(self, verb: ActionType, observed: Observed, wanted: Desired) -> ActionType:
        return ActionType.START if verb is ActionType.ROLL and observed.driver_state in ALIVE else verb


class _CountsRolls(_Decides, Careful):
    """A driver that has left is a failure."""

    def instead(self, verb: ActionType, observed: Observed, wanted: Desired) -> ActionType:
        return (
            ActionType.RECORD_FAILURE
            if observed.driver_state is DriverState.STOPPED and not observed.failure_recorded
            else verb
        )


class _JudgesAtOnce(Careful):
    """Whoever has just come calls a driver silent."""

    limits = replace(Careful.limits, view_seconds=0)


class _JudgesTooSoon(Careful):
    """Before a driver can have found the database again."""

    limits = replace(Careful.limits, view_seconds=8)


class _NeverBlinks(Careful):
    """A database that stood still was there."""

    limits = replace(Careful.limits, blink_seconds=1e6)


class _SeesThrough(Careful):
    """A look that failed does not break the view."""

    first: datetime | None = None

    def look_on(self, view: View | None, row: StreamRow) -> View:
        self.first = self.first or row.now
        return View(self.first, row.now)


ANY_ORDER = (
    *(_OneEpochForTwo, _AnyWish, _HaltAnyway, _WishForgetsNothing, _Unfenced, _CountsNothing, _RollsWhomever),
    *(_LeaveForGood, _KeepsItsVerdict, _NeverSilent, _NeverKills, _StartsTheUnwanted, _HaltsAtOnce),
)
IN_TIME = (_StartsBeside, _RollsByForce, _CountsRolls, _JudgesAtOnce, _JudgesTooSoon, _NeverBlinks, _SeesThrough)


FOUND_LATE = (_RollsWhomever, _NeverSilent, _KeepsItsVerdict, _Unfenced)
"""These are found only after hundreds of tries."""


@pytest.mark.parametrize(
    ("machine", "world"),
    [
        *(pytest.param(AnyOrder, world, marks=pytest.mark.full if world in FOUND_LATE else ()) for world in ANY_ORDER),
        *((InTime, world) for world in IN_TIME),
    ],
)
def test_a_broken_rule_is_found(machine: type[Machine], world: type[World]) -> None:
    """The check can fail: in each of these worlds one rule does not hold, and it notices."""
    with pytest.raises(Broken):
        check(machine, world, how(max_examples=2000, database=None, derandomize=True))
