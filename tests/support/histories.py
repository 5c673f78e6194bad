"""Histories: what producers wrote to each partition, and what happened to the stream that read it.

Batch cuts, tasks run again, restarts, take-overs and replays, in any order. Each step is one that can happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from support.merges import ENTITY, EVENT, GAP, POISON, ROW, TOMBSTONE, Commit, Model, Record, TakeOver, Turn


@dataclass(frozen=True)
class History:
    """What was produced, and what happened to the stream."""

    tables: tuple[str, ...]
    logs: tuple[tuple[Record, ...], ...]
    """What each partition holds in the end."""
    steps: tuple[tuple[Any, ...], ...]

    def orders(self) -> list[TakeOver | Turn | Commit]:
        """The history as the writer sees it. Ends with everything committed."""
        return list(_Plan(self).run())


class _Plan:
    """Turns steps into orders: knows positions, epochs and batch numbers."""

    def __init__(self, history: History) -> None:
        self.steps = history.steps
        self.topics = (history.logs, tuple(log[::-1] for log in history.logs))
        """The other topic has the same records in another order, so that its coordinates are those of other keys."""
        self.read = tuple([0] * len(history.logs) for _ in self.topics)
        """Topic -> partition -> position."""
        self.turns = 0
        self.epoch, self.version, self.batch_id, self.replays = 1, 1, 0, 0
        self.last: dict[int, Commit] = {}
        """Partition -> the newest commit of this epoch."""
        self.last_replay: Commit | None = None

    @property
    def logs(self) -> tuple[tuple[Record, ...], ...]:
        """The partitions of the topic that the stream reads."""
        return self.topics[self.turns % 2]

    @property
    def positions(self) -> list[int]:
        """The positions in the topic that the stream reads."""
        return self.read[self.turns % 2]

    def run(self) -> Iterator[TakeOver | Turn | Commit]:
        for name, *given in self.steps:
            yield from getattr(self, name)(*given)
        for partition in range(len(self.logs)):
            yield from self.cut(partition, len(self.logs[partition]))

    def cut(self, partition: int, count: int) -> Iterator[Commit]:
        """The stream commits the next records of a partition."""
        partition %= len(self.logs)
        start = self.positions[partition]
        records = self.logs[partition][start : start + count]
        if records:
            order = Commit(self.epoch, self.version, self.batch_id, partition, start, records, turn=self.turns)
            self.positions[partition], self.last[partition] = order.until, order
            self.batch_id += 1
            yield order

    def again(self, partition: int) -> Iterator[Commit]:
        """The outcome of a commit was unknown: the same batch comes once more."""
        order = self.last.get(partition % len(self.logs))
        if order is not None:
            yield order

    def restart(self, newer: bool) -> Iterator[TakeOver]:
        """Another driver, maybe of a newer pipeline version."""
        self.epoch, self.version, self.batch_id = self.epoch + 1, self.version + newer, 0
        self.last = {}
        yield TakeOver(self.version)

    def turn(self) -> Iterator[TakeOver | Turn]:
        """``source.topic`` is edited: the next driver reads the other topic, from where the stream left it."""
        yield from self.restart(newer=True)
        self.turns += 1
        self.last_replay = None
        yield Turn(self.turns)

    def ghost(self, partition: int) -> Iterator[Commit]:
        """The driver before this one wakes up and goes on where the stream stands."""
        partition %= len(self.logs)
        start = self.positions[partition]
        if self.epoch > 1 and start < len(self.logs[partition]):
            rest = self.logs[partition][start:]
            yield Commit(self.epoch - 1, self.version, 0, partition, start, rest, refused=True, turn=self.turns)

    def replay(self, partition: int, start: int, count: int, newer: bool, every: int) -> Iterator[Commit]:
        """A range is read once more beside the stream, by the same or by a newer pipeline version."""
        partition %= len(self.logs)
        records = self.logs[partition][: self.positions[partition]][start : start + count]
        if records:
            self.replays += 1
            chosen = None if every == 1 else frozenset(range(start, start + len(records), every))
            order = Commit(
                *(0, self.version + newer, 0, partition, start, records, self.replays, chosen), turn=self.turns
            )
            self.last_replay = order
            yield order

    def correct(self, partition: int) -> Iterator[Commit]:
        """All that was read of a partition is read once more by a newer pipeline version."""
        yield from self.replay(partition, 0, len(self.logs[partition % len(self.logs)]), newer=True, every=1)

    def replay_again(self) -> Iterator[Commit]:
        """A replay whose outcome was unknown goes on."""
        if self.last_replay is not None and self.last_replay.version >= self.version:
            yield self.last_replay


_teams = st.sampled_from([None, "", "red", "Red", "é", "😀 tab\t", "\\N", "nine char", "far more than any column"])
_any_row = st.builds(
    Record,
    what=st.just(ROW),
    id=st.integers(1, 3),
    code=st.sampled_from(["a", "a", "A", "ß"]),
    team=_teams,
    points=st.sampled_from([0, 5, 6, -4, 2**31 - 5, 2**40]),
    amount=st.sampled_from([None, Decimal("0.001"), Decimal("-7.250"), Decimal("123456789.125")]),
    seen=st.sampled_from([0, 1, 59, 60, 61, 3600]),
    goes=st.sampled_from([frozenset((ENTITY, EVENT))] * 3 + [frozenset((ENTITY,)), frozenset((EVENT,)), frozenset()]),
    readable=st.sampled_from([1, 1, 2]),
    slip=st.sampled_from([0, 0, 0, 1]),
)
_others = st.builds(
    Record,
    what=st.sampled_from([TOMBSTONE, TOMBSTONE, POISON, GAP]),
    id=st.integers(1, 3),
    readable=st.sampled_from([1, 1, 1, 2]),
)
_records = st.one_of(_any_row, _any_row, _any_row, _others)
_partition = st.integers(0, 3)
_steps = st.one_of(
    st.tuples(st.just("cut"), _partition, st.integers(1, 6)),
    st.tuples(st.just("cut"), _partition, st.integers(1, 6)),
    st.tuples(st.just("again"), _partition),
    st.tuples(st.just("restart"), st.booleans()),
    st.tuples(st.just("ghost"), _partition),
    st.tuples(
        *(
            st.just("replay"),
            _partition,
            st.integers(0, 5),
            st.integers(1, 8),
            st.booleans(),
            st.sampled_from([1, 1, 2]),
        )
    ),
    st.tuples(st.just("correct"), _partition),
    st.tuples(st.just("replay_again")),
    st.tuples(st.just("turn")),
)


def histories() -> st.SearchStrategy[History]:
    """Any history of one to four partitions, over one table or two."""
    logs = st.lists(st.lists(_records, min_size=2, max_size=10).map(tuple), min_size=1, max_size=4).map(tuple)
    tables = st.sampled_from([(ENTITY, EVENT), (ENTITY,), (EVENT,)])
    return st.builds(History, tables, logs, st.lists(_steps, min_size=4, max_size=14).map(tuple))


def run(model: Model, history: History) -> Model:
    """A model with the history in it."""
    for order in history.orders():
        if isinstance(order, Turn):
            model.turn(order.number)
        elif isinstance(order, Commit) and not order.refused:
            model.commit(order)
    return model
