"""The records of a feed: a fixed sequence per Kafka partition, which follows from the options alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tidemill.demo.chaos import MALFORMED, Chaos, FaultKind, Integers, disturb, spoil
from tidemill.demo.flights import read_flights
from tidemill.errors import ConfigError

FORMAT = 1
"""Increase it when the same options no longer make the same sequence."""
CHUNK_RECORDS = 20_000
SHORTEST_SLEEP_SECONDS, LONGEST_SLEEP_SECONDS = 0.001, 0.25

Message = tuple[bytes, bytes, int, int]
"""Key, value, partition and offset."""


@dataclass(frozen=True)
class FeedOptions:
    """What to play and how fast."""

    speed: float | None = None
    """Event time per real time; None is as fast as Kafka accepts records."""
    limit: int | None = None
    """This many flights, the first by scheduled time; None is all. The sequence of more flights does not begin with
    that of fewer, because their records mix in event time: a topic is bound to its limit."""
    seed: int = 1
    chaos: Chaos = field(default_factory=Chaos)

    def __post_init__(self) -> None:
        if self.speed is not None and not (math.isfinite(self.speed) and self.speed > 0):
            raise ConfigError("TM-DEMO-SPEED", value=self.speed)
        if self.limit is not None and self.limit < 1:
            raise ConfigError("TM-DEMO-LIMIT", value=self.limit)
        if self.seed < 0:
            raise ConfigError("TM-DEMO-SEED", value=self.seed)

    @classmethod
    def parse(cls, speed: str = "max", limit: int | None = None, seed: int = 1, chaos: str = "") -> FeedOptions:
        """Read options in the form of the command line.

        Raises:
            ConfigError: one of them is not valid.
        """
        try:
            factor = None if speed == "max" else float(speed)
        except ValueError:
            raise ConfigError("TM-DEMO-SPEED", value=speed) from None
        return cls(speed=factor, limit=limit, seed=seed, chaos=Chaos.parse(chaos))

    def mark(self, partitions: int) -> str:
        """The options that the sequence follows from; the speed is not one of them."""
        return f"form={FORMAT},limit={self.limit or 'all'},seed={self.seed},{self.chaos},partitions={partitions}"


@dataclass(frozen=True)
class Clock:
    """Real time in seconds, for tests to replace."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Feed:
    """The sequence of a feed: the partition and the order of every record.

    Raises:
        SetupError: the flights are not installed.
    """

    def __init__(self, options: FeedOptions, partitions: int) -> None:
        self.options = options
        self.partitions = partitions
        self.records = read_flights(options.limit)
        self.sequence = disturb(len(self.records), options.chaos, options.seed)
        self.partition: Integers = (self.records.flight[self.sequence.record] + 1) % partitions
        """Per entry: the id modulo the number of partitions."""
        self.position: Integers = np.empty(len(self.sequence), dtype=np.int64)
        """Per entry: its offset in its partition."""
        for partition in range(partitions):
            entries = np.flatnonzero(self.partition == partition)
            self.position[entries] = np.arange(len(entries))
        self.due: Integers = np.maximum.accumulate(self.records.updated_at[self.sequence.record])
        """Per entry: the event time at which it is written, in seconds since 1970."""

    def __len__(self) -> int:
        return len(self.sequence)

    def remaining(self, ends: Sequence[int]) -> Integers:
        """The entries that are still to be written when the partitions end at these offsets."""
        return np.flatnonzero(self.position >= np.array(ends)[self.partition])

    def messages(self, entries: Integers) -> Iterator[Message]:
        """These entries as messages."""
        records, kinds = self.sequence.record[entries], self.sequence.kind[entries]
        values = self.records.values(records)
        for at in np.flatnonzero(np.isin(kinds, MALFORMED)):
            values[at] = spoil(values[at], FaultKind(kinds[at]))
        partitions, positions = self.partition[entries].tolist(), self.position[entries].tolist()
        return zip(self.records.keys(records), values, partitions, positions, strict=True)

    def chunks(self, entries: Integers, clock: Clock) -> Iterator[Integers]:
        """The entries in pieces as they become due, the first at once; an empty piece while none is due."""
        start, at, speed = clock.now(), 0, self.options.speed
        due_seconds = (self.due[entries] - self.due[entries[:1]]) / speed if speed else None
        while at < len(entries):
            until = at + CHUNK_RECORDS
            if due_seconds is not None:
                passed = clock.now() - start
                until = min(until, int(np.searchsorted(due_seconds, passed, side="right")))
                if until == at:
                    wait_seconds = float(due_seconds[at]) - passed
                    clock.sleep(min(max(wait_seconds, SHORTEST_SLEEP_SECONDS), LONGEST_SLEEP_SECONDS))
            yield entries[at:until]
            at = until
