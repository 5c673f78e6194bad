"""How far the tables are behind, over whole lives of streams, against what is true: no alarm is false or missing."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta

import pytest

from support.lifecycles import FRESH
from support.streams import NOW
from tidemill.lifecycle.behind import behind_seconds, is_measured
from tidemill.lifecycle.limits import LIMITS
from tidemill.lifecycle.slo import Change, freshness_message, incident_change
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.stream.metrics import StreamMetrics

PROMISED = 30.0
TICK = 2.0
NEAR = 5.0 + 2 * TICK
"""A measurement bounds the truth from above by that much at most: a record's age, a probe, a heartbeat."""
LONGEST_START = LIMITS.leave_seconds + LIMITS.grace_seconds + LIMITS.unmeasured_seconds
PARTITIONS = (0, 1)


_NEW = replace(FRESH, desired_state="running", lag_records=None, behind_seconds=None)


@dataclass
class Life:
    """A topic, the stream that reads it, its drivers, and the watcher that opens the incident."""

    dice: random.Random
    row: StreamRow = _NEW
    seconds: float = 0
    waiting: dict[int, deque[float]] = field(default_factory=lambda: {each: deque() for each in PARTITIONS})
    """Partition -> when each record arrived that is not committed."""
    records_per_tick: float = 0
    capacity: int = 10_000
    """Records that a driver commits in a tick."""
    kafka: bool = True
    state: str = "none"
    until: float = 0
    """When the present state of the driver ends."""
    silent: bool = False
    start_seconds: float = 20
    metrics: StreamMetrics = field(default_factory=lambda: StreamMetrics(0))
    measured_at: float = 0
    late_since: float | None = None
    alarms: int = 0

    def truth(self) -> float:
        """For how long the oldest record has waited."""
        return max((self.seconds - each[0] for each in self.waiting.values() if each), default=0.0)

    def tick(self) -> None:
        self.seconds += TICK
        self._set(now=NOW + timedelta(seconds=self.seconds))
        if self.kafka:
            count = int(self.records_per_tick) + (self.dice.random() < self.records_per_tick % 1)
            for _ in range(count):
                self.waiting[self.dice.choice(PARTITIONS)].append(self.seconds - self.dice.random() * TICK)
        self._drive()
        self._watch()

    def request(self, state: str) -> None:
        self._set(desired_state=state, requested_at=self.row.now, halted_reason=None)
        if state == "stopped" and self.state in ("starting", "running"):
            self.leave(self.dice.uniform(0, 30))

    def leave(self, seconds: float) -> None:
        """The driver is requested to exit, and has a batch to finish."""
        if self.state in ("starting", "running"):
            self.state, self.until = "stopping", self.seconds + seconds

    def end(self, reported: str | None) -> None:
        """The driver ends; None without a report."""
        if self.state not in ("none", "gone"):
            if reported is not None:
                self.report(reported)
            self.state, self.until = "gone", self.seconds + (0 if reported else 10)

    def report(self, state: str) -> None:
        """A heartbeat, as ``store/control/heartbeats`` writes it."""
        facts = self.metrics.facts(self.seconds, self.row.now.replace(tzinfo=UTC))
        measured, before = facts["behind_seconds"], self.row.behind_seconds
        grown = None if before is None else before + self._since(self.row.heartbeat_at)
        known = [each for each in (measured, grown) if isinstance(each, float)]
        self._set(
            heartbeat_epoch=self.row.epoch, state=state, heartbeat_at=self.row.now, lag_records=facts["lag_records"],
            behind_seconds=min(known, default=None),
        )  # fmt: skip
        if measured is not None:
            self.measured_at = self.seconds

    def _set(self, **changes: object) -> None:
        self.row = replace(self.row, **changes)  # type: ignore[arg-type]

    def _since(self, then: object) -> float:
        return (self.row.now - then).total_seconds() if then is not None else 0.0  # type: ignore[operator, no-any-return]

    def _drive(self) -> None:
        due = self.seconds >= self.until
        if self.state in ("none", "gone"):
            if due and self.row.desired_state == "running" and self.row.halted_reason is None:
                self._set(epoch=self.row.epoch + 1, acquired_at=self.row.now, pid=1, master="local[2]")
                self.metrics, self.silent = StreamMetrics(self.seconds), False
                self.state, self.until = "starting", self.seconds + self.start_seconds
            return
        if self.silent:
            return
        if self.state == "starting" and due:
            self.state = "running"
        if self.state == "stopping" and due:
            self.end("stopped")
            return
        if self.state in ("running", "stopping"):
            self._work()
        if self.state != "starting" or self.until - self.seconds < self.start_seconds / 2:
            self.report(self.state)

    def _work(self) -> None:
        if not self.kafka:
            self.metrics.note_lag(self.seconds, None)
            return
        left, now_us = self.capacity, self._us(self.seconds)
        for partition, records in self.waiting.items():
            while records and left:
                self.metrics.note_newest({partition: self._us(records.popleft())}, now_us)
                left -= 1
        lags = {partition: len(records) for partition, records in self.waiting.items()}
        uncertain = self.metrics.uncertain(lags, self.row.now.replace(tzinfo=UTC))
        self.metrics.note_lag(self.seconds, lags, {each: self._us(self.waiting[each][0]) for each in uncertain})

    def _us(self, seconds: float) -> int:
        return int(((NOW + timedelta(seconds=seconds)).replace(tzinfo=UTC)).timestamp() * 1e6)

    def _watch(self) -> None:
        """What a watcher sees and does, held against the truth."""
        truth, behind = self.truth(), behind_seconds(self.row)
        is_late = truth > PROMISED and self.row.desired_state == "running"
        self.late_since = (self.late_since or self.seconds) if is_late else None
        if behind is not None and is_measured(self.row):
            assert truth - NEAR <= behind <= truth + NEAR, f"{behind} s are reported, {truth} s are true"
        change = incident_change(self.row, PROMISED)
        if change is Change.OPEN:
            self.alarms += 1
            self._set(freshness_incident_since=self.row.now)
            if "measured" in freshness_message(self.row, PROMISED):
                # It counts from the oldest record that waited at the last measurement. If that one still waits, the
                # incident is true a little earlier.
                is_long = self.seconds - self.measured_at > LONGEST_START - NEAR
                assert is_long or truth > PROMISED - NEAR, "a start is taken for an outage"
            else:
                assert truth > PROMISED - NEAR, f"a false alarm: {truth} s are true"
        elif change is Change.CLOSE:
            self._set(freshness_incident_since=None)
            assert truth < PROMISED or self.row.desired_state != "running"
        self._require_alarm()

    def _require_alarm(self) -> None:
        is_known = self.row.freshness_incident_since is not None
        if self.late_since is None or is_known or self.row.behind_seconds is None:  # no driver has ever measured it
            return
        asked = self._since(self.row.requested_at)
        late = min(self.seconds - self.late_since, asked)
        is_reading = self.state == "running" and self.kafka and not self.silent and self.measured_at == self.seconds
        assert not (is_reading and late > NEAR and asked > PROMISED + NEAR), f"{self.truth()} s late, and no alarm"
        assert late < LONGEST_START + PROMISED + NEAR, "late for long, and no alarm"


EVENTS: dict[str, Callable[[Life], None]] = {
    "time passes": lambda life: None,
    "a person stops it": lambda life: life.request("stopped"),
    "a person starts it": lambda life: life.request("running"),
    "a restart or a roll": lambda life: life.leave(life.dice.uniform(0, 60)),
    "the driver fails": lambda life: life.end("failed"),
    "the driver is killed": lambda life: life.end(None),
    "the driver hangs": lambda life: setattr(life, "silent", life.state == "running"),
    "a hung driver is ended": lambda life: life.end(None) if life.silent else None,
    "the circuit opens": lambda life: (life.end("failed"), life._set(halted_reason="6 failed"))[0],
    "drivers start slowly": lambda life: setattr(life, "start_seconds", life.dice.uniform(5, 85)),
    "the feed is silent": lambda life: setattr(life, "records_per_tick", 0),
    "a record comes now and then": lambda life: setattr(life, "records_per_tick", life.dice.uniform(0.002, 0.2)),
    "the feed is fast": lambda life: setattr(life, "records_per_tick", life.dice.uniform(1, 20)),
    "the driver is slow": lambda life: setattr(life, "capacity", life.dice.randrange(8)),
    "the driver is fast": lambda life: setattr(life, "capacity", 10_000),
    "Kafka is unavailable": lambda life: setattr(life, "kafka", False),
    "Kafka is available": lambda life: setattr(life, "kafka", True),
}


def live(seed: int, events: int = 40) -> Life:
    """A random life; each tick of it is held against the truth."""
    life = Life(random.Random(seed))
    for _ in range(events):
        event = life.dice.choice(list(EVENTS))
        EVENTS[event](life)
        for _ in range(life.dice.choice((1, 3, 10, 30, 150))):
            life.tick()
    return life


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.full)])
def test_over_any_life_no_alarm_is_false_and_none_is_missing(first: int, run_seed: int) -> None:
    """Starts, stops, restarts, rolls, crashes, hangs and outages, with feeds that are fast, slow or silent."""
    lives = [live(run_seed * 10_000 + first * 100 + n) for n in range(25 if first == 0 else 600)]
    assert sum(life.alarms for life in lives) > len(lives) / 5, "the sweep meets no late tables"


STORIES: dict[str, tuple[str, ...]] = {
    "a start after an hour": ("a person stops it", *["time passes"] * 20, "a person starts it"),
    "a restart": ("a restart or a roll",),
    "five rolls in a row": ("a restart or a roll",) * 5,
    "a crash": ("the driver is killed",),
    "a failure": ("the driver fails",),
    "an idle hour": ("time passes",) * 20,
    "Kafka is unavailable for a minute": ("Kafka is unavailable", "Kafka is available"),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
@pytest.mark.parametrize("seed", range(5))
def test_a_stream_without_a_record_to_read_is_never_late(story: tuple[str, ...], seed: int) -> None:
    """Whatever is done with it, and however slowly its drivers start: no record waits, and no incident opens."""
    life = Life(random.Random(seed), records_per_tick=5)
    for _ in range(60):
        life.tick()
    life.records_per_tick = 0
    for event in ("drivers start slowly", *story):
        EVENTS[event](life)
        for _ in range(90):
            life.tick()
    assert life.alarms == 0
    assert (behind_seconds(life.row), life.state) == (0.0, "running")


def test_a_record_after_a_stopped_hour_is_as_late_as_it_has_waited() -> None:
    """Not as late as the newest record that is committed: 42 s, and not an hour."""
    life = Life(random.Random(0), records_per_tick=5)
    for _ in range(60):
        life.tick()
    life.records_per_tick = 0
    life.request("stopped")
    for _ in range(1800):
        life.tick()
    life.waiting[0].append(life.seconds)
    life.start_seconds, life.capacity = 42.0, 0
    life.request("running")
    while life.state != "running":
        life.tick()
    assert life.row.lag_records == 1
    assert behind_seconds(life.row) == pytest.approx(44, abs=TICK)
