"""Streams modelled in memory: a control plane, driver processes and supervisors that act at any time.

The decisions are those of the real :mod:`tidemill.lifecycle.decide`; everything else is simulated. Drivers and
supervisors are generators that stop before each statement to the database and each action on a process, so that a test
can let anything happen in between. Each rule is a small method, so that a test can break one of them.
"""

from __future__ import annotations

from collections.abc import Generator
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import ClassVar

from support.streams import NOW, RUNNING
from tidemill.errors import DatabaseUnavailable, Fenced
from tidemill.lifecycle.decide import WAITING, Action, ActionType, Desired, decide, desired_of
from tidemill.lifecycle.driver_state import DriverState, Observed, last_signal, observe
from tidemill.lifecycle.limits import LIMITS, Limits, View
from tidemill.lifecycle.stream_row import StreamRow

Steps = Generator[ActionType | None]
"""A step yields the action that was just decided and is not carried out yet, if there is one."""
TICK_SECONDS = 2.0
FRESH = replace(
    RUNNING, desired_state="stopped", requested_at=NOW, epoch=0, pipeline_version=None, host=None, pid=None,
    acquired_at=None, heartbeat_epoch=None, state=None, heartbeat_at=None, batches=None, newest_version=1,
)  # fmt: skip
"""A stream that was applied and never started."""


class Broken(AssertionError):
    """Something happened that must never happen."""


def ensure(holds: bool, sentence: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise Broken(sentence)


@dataclass(eq=False)
class Driver:
    """A process."""

    pid: int
    epoch: int
    version: int
    alive: bool = True
    hung: bool = False
    stubborn: bool = False
    """Does not exit when it is requested to; only the loss of its epoch ends it."""
    faulty: bool = False
    """Whether a fault of it was ever simulated."""
    cut_off_until: datetime = NOW
    """Does not reach the database before, although the database is available."""
    steps: Steps = field(init=False)


@dataclass
class World:
    """One stream and all that acts on it. Methods up to ``open_circuit`` are the statements of ``store/control``."""

    row: StreamRow = FRESH
    now: datetime = NOW
    up: bool = True
    """Whether the database is available."""
    healthy: bool = True
    """Whether drivers can work."""
    sees_processes: bool = True
    """False where drivers run on a machine that supervisors do not see."""
    drivers: list[Driver] = field(default_factory=list)
    failures: int = 0
    """All that were ever recorded."""
    troubles: int = 0
    """All that were ever simulated."""
    limits: ClassVar[Limits] = replace(LIMITS, failures=3)
    """Three failures open the circuit, so that random events get there."""

    def read(self) -> StreamRow:
        if not self.up:
            raise DatabaseUnavailable("TM-STORE-UNAVAILABLE")
        if self.row.now != self.now:
            self._set(now=self.now)
        return self.row

    def _write(self, **changes: object) -> None:
        self.read()
        self._set(**changes)

    def _set(self, **changes: object) -> None:
        # As ``replace`` does, in a fifth of the time.
        row = copy(self.row)
        row.__dict__.update(changes)
        self.row = row

    def tick(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def request_state(self, state: str) -> None:
        self.tick(0.001)
        changes: dict[str, object] = {"desired_state": state, "requested_at": self.now}
        if state == "running":
            changes |= {"failures_in_a_row": 0, "halted_reason": None}
        self._write(**changes)

    def request_exit(self, epoch: int | None = None) -> None:
        if self.row.epoch == (epoch or self.row.epoch) and (self.row.exit_epoch or 0) < self.row.epoch:
            self._write(exit_epoch=self.row.epoch, exit_requested_at=self.now)

    def acquire_lease(self, seen: StreamRow, version: int) -> int:
        if (self.read().epoch, self.row.requested_at) != (seen.epoch, seen.requested_at):
            raise Fenced("TM-STORE-LEASE-ACQUIRED", stream="flights")
        self.tick(0.001)  # no two statements happen at one moment
        self._write(epoch=seen.epoch + 1, pipeline_version=version, acquired_at=self.now, pid=None)
        return self.row.epoch

    def record_driver(self, driver: Driver) -> None:
        if self.read().epoch == driver.epoch:
            self._write(pid=driver.pid)

    def report_heartbeat(self, epoch: int, state: str, batches: int = 0, error: str | None = None) -> None:
        if epoch >= (self.read().heartbeat_epoch or 0):
            self._write(heartbeat_epoch=epoch, state=state, heartbeat_at=self.now, batches=batches, last_error=error)

    def count_failure(self, epoch: int) -> None:
        row = self.read()
        failed_at, acquired_at = row.last_failed_at, row.acquired_at
        if row.epoch == epoch and (failed_at is None or acquired_at is None or failed_at < acquired_at):
            self._write(failures_in_a_row=row.failures_in_a_row + 1, last_failed_at=self.now)
            self.failures += 1

    def clear_failures(self) -> None:
        self._write(failures_in_a_row=0)

    def open_circuit(self, seen: StreamRow, reason: str) -> bool:
        opens = self.read().halted_reason is None and self.row.requested_at == seen.requested_at
        if opens:
            self._write(halted_reason=reason)
            ensure(self.row.failures_in_a_row >= self.limits.failures, "the circuit opens without failures")
        return opens

    # What supervisors call.

    def observe(self, row: StreamRow, gone: bool, viewed_seconds: float, given_up: datetime | None) -> Observed:
        return observe(row, gone=gone, viewed_seconds=viewed_seconds, given_up=given_up, limits=self.limits)

    def decide(self, observed: Observed, desired: Desired, now: datetime) -> Action:
        return decide(observed, desired, now, self.limits)

    # Processes.

    def living(self) -> list[Driver]:
        return [driver for driver in self.drivers if driver.alive]

    def launch(self, epoch: int, version: int) -> Driver:
        driver = Driver(100 + len(self.drivers), epoch, version)
        driver.steps = self.drive(driver)
        self.drivers.append(driver)
        same = [each for each in self.living() if each.epoch == epoch]
        ensure(len(same) == 1, f"{len(same)} drivers live that hold epoch {epoch}")
        return driver

    def is_gone(self, row: StreamRow) -> bool:
        return self.sees_processes and row.pid is not None and not any(d.pid == row.pid for d in self.living())

    def stop_driver(self, row: StreamRow) -> None:
        for driver in self.living():
            if self.sees_processes and driver.pid == row.pid:
                driver.alive = False

    # A driver.

    def drive(self, driver: Driver) -> Steps:
        """As ``stream/driver`` and ``store/write/transaction`` do it, one statement after the other."""
        state, batches = "starting", 0
        while True:
            yield None
            if self.now < driver.cut_off_until:
                continue
            try:
                row = self.read()
                yield None
                if self.is_fenced(driver, row):
                    break
                self.report_heartbeat(driver.epoch, state, batches)
                stays = (
                    row.desired_state == "running"
                    and row.halted_reason is None
                    and (row.exit_epoch or 0) < driver.epoch
                )
                yield None
                # Once its exit is requested it leaves, whatever is requested meanwhile.
                if (not stays or state == "stopping") and not driver.stubborn:
                    if state == "stopping":
                        self.report_heartbeat(driver.epoch, "stopped", batches)
                        break
                    state = "stopping"
                elif not self.healthy:
                    self.troubles += 1
                    self.report_heartbeat(driver.epoch, "failed", batches, "no")
                    break
                elif state == "starting":
                    state = "running"
                else:
                    yield from self.commit(driver)
                    batches += 1
            except DatabaseUnavailable:
                continue  # it waits
            except Fenced:
                break
        driver.alive = False

    def is_fenced(self, driver: Driver, row: StreamRow) -> bool:
        return row.epoch != driver.epoch

    def check_fencing_token(self, driver: Driver) -> None:
        if self.read().epoch != driver.epoch:
            raise Fenced("TM-STORE-LEASE-LOST", stream="flights")

    def commit(self, driver: Driver) -> Steps:
        self.check_fencing_token(driver)
        ensure(driver.epoch == self.row.epoch, f"epoch {driver.epoch} commits in epoch {self.row.epoch}")
        yield None
        self.clear_failures()

    # A supervisor: a trigger that watches, and the task that it wakes.

    def supervise(self) -> Steps:
        view, before = None, None
        while True:
            yield None
            gone = before is not None and self.is_gone(before)
            yield None
            try:
                row = self.read()
                view = self.look_on(view, row)
                gone = gone and before is not None and before.epoch == row.epoch
                before = row
                observed = self.observe(row, gone, view.seconds, None)
                action = self.decide(observed, desired_of(row), row.now)
                if action.action_type not in (*WAITING, ActionType.IDLE):
                    yield from self.work(last_signal(row) if observed.driver_state is DriverState.LOST else None)
            except DatabaseUnavailable:
                view = None

    def look_on(self, view: View | None, row: StreamRow) -> View:
        return View.after(view, row.now, self.limits)

    def work(self, given_up: datetime | None) -> Steps:
        while True:
            yield None
            row = self.read()
            gone = self.is_gone(row)
            yield None
            before, row = row, self.read()
            observed = self.observe(row, gone and row.epoch == before.epoch, 0, given_up)
            action = self.decide(observed, desired_of(row), row.now)
            if action.action_type in (*WAITING, ActionType.IDLE):
                return
            yield action.action_type
            try:
                yield from self.act(row, action)
            except Fenced:
                continue  # look again

    def act(self, row: StreamRow, action: Action) -> Steps:
        if action.action_type is ActionType.START:
            version = self.read().newest_version
            yield None
            epoch = self.start(row, version)
            yield None
            self.stop_driver(row)
            yield None
            driver = self.launch(epoch, version)
            yield None
            self.record_driver(driver)
        elif action.action_type is ActionType.ROLL:
            self.roll(row)
        elif action.action_type is ActionType.KILL:
            epoch = self.acquire_lease(row, row.pipeline_version or 0)
            yield None
            self.stop_driver(row)
            yield None
            if self.read().epoch == epoch:
                yield None
                self.report_heartbeat(epoch, "stopped")
        elif action.action_type is ActionType.RECORD_FAILURE:
            self.stop_driver(row)
            yield None
            self.count_failure(row.epoch)
        else:
            self.open_circuit(row, action.reason)

    def start(self, row: StreamRow, version: int) -> int:
        epoch = self.acquire_lease(row, version)
        ensure(desired_of(self.row).running, "a driver is started for a stream that is to be stopped")
        return epoch

    def roll(self, row: StreamRow) -> None:
        before = self.row.exit_epoch
        self.request_exit(row.epoch)
        is_outdated = self.row.exit_epoch == before or self.row.pipeline_version != self.row.newest_version
        ensure(is_outdated, "the exit of a driver of the newest version is requested")

    # What a test does with all this.

    def holder(self) -> Driver | None:
        """The living driver of the newest epoch."""
        return next((driver for driver in self.living() if driver.epoch == self.row.epoch), None)

    def runs(self) -> bool:
        """Whether a driver of the newest version reads and is to stay."""
        row = self.row
        fresh = row.heartbeat_at is not None and (self.now - row.heartbeat_at).total_seconds() <= TICK_SECONDS
        reads = fresh and row.heartbeat_epoch == row.epoch and row.state == "running"
        stays = row.pipeline_version == row.newest_version and (row.exit_epoch or 0) < row.epoch
        return self.holder() is not None and reads and stays


def step(steps: Steps) -> ActionType | None:
    """On to the next point where something else may happen."""
    return next(steps, None)
