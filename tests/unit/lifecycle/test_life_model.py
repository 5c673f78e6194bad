"""Under any order of events: one driver an epoch, a stopped stream stays stopped, one that is to run runs again."""

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
"""Eight minutes: one driver that sends no heartbeat, one that does not exit, and the longest backoff."""
PATIENCE = int(LIMITS.leave_seconds / TICK_SECONDS) + 40
"""Ticks within which every driver of a stopped stream has exited, or was killed."""


class Machine(RuleBasedStateMachine):
    """What both machines share: the world, the requests of people and the faults."""

    world_type: ClassVar[type[World]] = World

    def __init__(self) -> None:
        super().__init__()
        self.world = self.world_type()
        self.supervisors: list[Steps] = [self.world.supervise() for _ in range(SUPERVISORS)]

    @initialize(sees_processes=st.booleans())
    def begin(self, sees_processes: bool) -> None:
        """A stream that a person has just started."""
        self.world.sees_processes = sees_processes
        self.world.request_state("running")

    def fair(
        self,
        ticks: int,
        until: Callable[[], bool] = lambda: False,
        pause: ActionType | None = None,
        only: Sequence[Steps] = (),
    ) -> bool:
        """Let time pass in which every driver and supervisor gets its turn.

        Args:
            ticks: at most.
            until: stop when this holds.
            pause: stop when a supervisor has decided on this and not carried it out; it is then the last one.
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
    @rule(state=st.sampled_from(["running", "stopped"]))
    def request(self, state: str) -> None:
        """Start, or stop."""
        self.world.request_state(state)

    @precondition(lambda self: self.world.up)
    @rule()
    def restart(self) -> None:
        """By a person."""
        self.world.request_state("running")
        self.world.request_exit()

    @precondition(lambda self: self.world.up)
    @rule()
    def apply(self) -> None:
        """A newer version."""
        self.world.row = replace(self.world.row, newest_version=self.world.row.newest_version + 1)

    @rule(up=st.sampled_from([True, True, False]))
    def database(self, up: bool) -> None:
        """It becomes unavailable, and available again."""
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
            driver.cut_off_until = self.world.now + timedelta(seconds=30)

    @rule(number=st.integers(0, SUPERVISORS - 1))
    def airflow_restarts(self, number: int) -> None:
        """A supervisor loses what it was about to do. An epoch that it acquired without a driver has failed."""
        self.world.troubles += not any(driver.epoch == self.world.row.epoch for driver in self.world.drivers)
        self.supervisors[number] = self.world.supervise()

    def heal(self) -> None:
        """No fault is left."""
        self.world.up = self.world.healthy = True
        for driver in self.world.drivers:
            driver.cut_off_until = min(driver.cut_off_until, self.world.now)

    def teardown(self) -> None:
        """Once the faults are over, the stream reaches its desired state, and stays in it."""
        self.heal()
        if self.world.row.desired_state == "stopped" or self.world.row.halted_reason:
            # That no driver is started is checked in ``World.start``.
            self.fair(PATIENCE)
            left = [driver for driver in self.world.living() if not driver.faulty]
            holder = self.world.holder()
            # A process that hangs is ended if it can be seen, and if its process id was recorded.
            if self.world.sees_processes and holder is not None and holder.pid == self.world.row.pid:
                left.append(holder)
            ensure(not left, "a stopped stream has a driver")
            self.world.request_state("running")
        elif not self.fair(LONGEST_TICKS, lambda: self.world.runs() or bool(self.world.row.halted_reason)):
            raise Broken("a stream that is to run does not run again, and is not halted")
        if self.world.row.halted_reason:
            self.world.request_state("running")
        ensure(self.fair(LONGEST_TICKS, self.world.runs), "a stream that is to run does not run again")
        epoch = self.world.row.epoch
        self.fair(30)
        ensure(self.world.runs() and self.world.row.epoch == epoch, "it does not keep running")


class AnyOrder(Machine):
    """Drivers and supervisors act at any time, and stop in the middle; time passes at any speed."""

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
        """A supervisor is brought to decide on an action, and something else happens before it acts."""
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
                self.world.request_state(then)
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
        """Only time passes."""
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
    """Only the database is late: no living driver is found lost, or replaced without need."""

    @rule(ticks=st.sampled_from([1, 2, 5, 10, 40]))
    def go_on(self, ticks: int) -> None:
        """All is as usual for a while."""
        self.fair(ticks)
        self.check()

    @precondition(lambda self: self.world.up)
    @rule(seconds=st.sampled_from([4.0, 20.0, 60.0]), cut_off=st.sampled_from([0.0, 4.0, 11.0]))
    def outage(self, seconds: float, cut_off: float) -> None:
        """The database or the network is unavailable; drivers need a while to connect again."""
        self.world.up = False
        self.fair(int(seconds / TICK_SECONDS))
        self.back(cut_off)

    @precondition(lambda self: self.world.up)
    @rule(seconds=st.sampled_from([20.0, 60.0]), cut_off=st.sampled_from([0.0, 11.0]))
    def freeze(self, seconds: float, cut_off: float) -> None:
        """The database does not answer for a while, and no connection breaks."""
        self.world.tick(seconds)
        self.back(cut_off)

    def back(self, cut_off: float) -> None:
        """It answers again."""
        self.world.up = True
        for driver in self.world.living():
            driver.cut_off_until = self.world.now + timedelta(seconds=cut_off)
        self.fair(20)
        self.check()

    def check(self) -> None:
        """Every failure that was recorded was one."""
        ensure(
            self.world.failures <= self.world.troubles,
            "a failure of a driver without a fault was recorded",
        )


class Careful(World):
    """Raises when a driver without a fault is replaced."""

    def acquire_lease(self, seen: StreamRow, version: int) -> int:
        holder, row = self.holder(), self.row
        epoch = super().acquire_lease(seen, version)
        is_sound = holder is not None and not holder.faulty and (row.exit_epoch or 0) < row.epoch
        ensure(
            not (is_sound and row.desired_state == "running" and not row.halted_reason), "a sound driver was replaced"
        )
        return epoch


InTime.world_type = Careful


def check(machine: type[Machine], world: type[World], tried: how) -> None:
    """Run the machine on a world."""
    tested = type(machine.__name__, (machine,), {"world_type": world})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # Hypothesis has no annotations here
        tested,
        settings=how(
            tried,
            stateful_step_count=30,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("machine", [AnyOrder, InTime])
def test_under_any_order_of_events_a_stream_reaches_its_desired_state(
    machine: type[Machine], pytestconfig: pytest.Config
) -> None:
    """Never two drivers of one epoch, none that commits without it, none for a stopped stream, and it runs again."""
    check(machine, machine.world_type, how(max_examples=3000 if pytestconfig.getoption("full") else 60))


class _OneEpochForTwo(World):
    """Two processes that acquire the lease at once both get it."""

    def acquire_lease(self, seen: StreamRow, version: int) -> int:
        self._write(epoch=seen.epoch + 1, pipeline_version=version, acquired_at=self.now, pid=None)
        return seen.epoch + 1


class _AnyRequest(World):
    """The lease is acquired although the desired state was changed."""

    def acquire_lease(self, seen: StreamRow, version: int) -> int:
        return super().acquire_lease(replace(seen, requested_at=self.row.requested_at), version)


class _OpensAnyway(World):
    """The circuit opens although a person closed it meanwhile."""

    def open_circuit(self, seen: StreamRow, reason: str) -> bool:
        return super().open_circuit(replace(seen, requested_at=self.row.requested_at), reason)


class _RequestKeepsFailures(World):
    """A request to run does not reset the failures."""

    def request_state(self, state: str) -> None:
        before = self.row.failures_in_a_row
        super().request_state(state)
        self._write(failures_in_a_row=before)


class _Unfenced(World):
    """A driver commits without a check of its epoch."""

    def is_fenced(self, driver: Driver, row: StreamRow) -> bool:
        return False

    def check_fencing_token(self, driver: Driver) -> None:
        self.read()


class _RecordsNoFailure(World):
    """No failure is ever recorded."""

    def count_failure(self, epoch: int) -> None:
        self.read()


class _RollsAnyEpoch(World):
    """A request to exit that was meant for one driver reaches the next one."""

    def request_exit(self, epoch: int | None = None) -> None:
        super().request_exit()


class _LeaveForGood(World):
    """A request to exit holds for every later driver."""

    def acquire_lease(self, seen: StreamRow, version: int) -> int:
        epoch = super().acquire_lease(seen, version)
        self._write(exit_epoch=self.row.exit_epoch and epoch)
        return epoch


class _KeepsItsJudgement(World):
    """The watcher does not pass its judgement on to the task."""

    def work(self, given_up: datetime | None) -> Steps:
        return super().work(None)


class _NeverSilent(World):
    """A silent driver is never found lost."""

    def observe(self, row: StreamRow, gone: bool, viewed_seconds: float, given_up: datetime | None) -> Observed:
        return super().observe(row, gone, 0, None)


class _Decides(World):
    """A rule replaces decisions."""

    def decide(self, observed: Observed, desired: Desired, now: datetime) -> Action:
        decided = super().decide(observed, desired, now)
        return replace(decided, action_type=self.instead(decided.action_type, observed, desired))

    def instead(self, action: ActionType, observed: Observed, desired: Desired) -> ActionType:
        raise NotImplementedError


class _NeverKills(_Decides):
    """A driver that does not exit is awaited for ever."""

    def instead(self, action: ActionType, observed: Observed, desired: Desired) -> ActionType:
        return ActionType.AWAIT_EXIT if action is ActionType.KILL else action


class _StartsTheStopped(_Decides):
    """A stopped stream gets a driver."""

    def instead(self, action: ActionType, observed: Observed, desired: Desired) -> ActionType:
        return (
            ActionType.START if action is ActionType.IDLE and observed.driver_state is DriverState.STOPPED else action
        )


class _OpensAtOnce(_Decides):
    """One failure opens the circuit."""

    def instead(self, action: ActionType, observed: Observed, desired: Desired) -> ActionType:
        return ActionType.OPEN_CIRCUIT if action is ActionType.START and observed.failures else action


class _StartsBeside(_Decides, Careful):
    """A driver is started beside one that is starting."""

    def instead(self, action: ActionType, observed: Observed, desired: Desired) -> ActionType:
        return (
            ActionType.START if action is ActionType.WATCH and observed.driver_state is DriverState.STARTING else action
        )


class _RollsByForce(_Decides, Careful):
    """A driver of another version is replaced without a request to exit."""

    def instead(self, action: ActionType, observed: Observed, desired: Desired) -> ActionType:
        return ActionType.START if action is ActionType.ROLL and observed.driver_state in ALIVE else action


class _RecordsRolls(_Decides, Careful):
    """A driver that has exited as requested counts as failed."""

    def instead(self, action: ActionType, observed: Observed, desired: Desired) -> ActionType:
        is_unrecorded = observed.driver_state is DriverState.STOPPED and not observed.failure_recorded
        return ActionType.RECORD_FAILURE if is_unrecorded else action


class _JudgesAtOnce(Careful):
    """A watcher that has just begun finds a silent driver lost."""

    limits = replace(Careful.limits, view_seconds=0)


class _JudgesTooSoon(Careful):
    """Before a driver can have connected to the database again."""

    limits = replace(Careful.limits, view_seconds=8)


class _NeverBlinks(Careful):
    """A database that did not answer for a while counts as available."""

    limits = replace(Careful.limits, blink_seconds=1e6)


class _SeesThrough(Careful):
    """An observation that failed does not break the view."""

    first: datetime | None = None

    def look_on(self, view: View | None, row: StreamRow) -> View:
        self.first = self.first or row.now
        return View(self.first, row.now)


ANY_ORDER = (
    *(_OneEpochForTwo, _AnyRequest, _OpensAnyway, _RequestKeepsFailures, _Unfenced, _RecordsNoFailure, _RollsAnyEpoch),
    *(_LeaveForGood, _KeepsItsJudgement, _NeverSilent, _NeverKills, _StartsTheStopped, _OpensAtOnce),
)
IN_TIME = (_StartsBeside, _RollsByForce, _RecordsRolls, _JudgesAtOnce, _JudgesTooSoon, _NeverBlinks, _SeesThrough)


FOUND_LATE = (_RollsAnyEpoch, _NeverSilent, _KeepsItsJudgement, _Unfenced)
"""These are found only after hundreds of examples."""


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
