"""The write path modelled in plain Python: records in, tables, quarantine and ledger out.

The model shares no code with the writer and has no database: it settles one key after the other in dictionaries. Its
rules are small methods, so that a test can break one of them.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

ENTITY, EVENT = "entity", "event"
EPOCH = dt.datetime(2026, 1, 1)
LONGEST = {ENTITY: 8, EVENT: 12}
"""Characters of ``team`` that each table takes: a record may fit one table and not the other."""
LARGEST = {ENTITY: Decimal(10**17), EVENT: Decimal(1000)}
"""What ``amount`` stays below in each table."""
INT = range(-(2**31), 2**31)

ROW, TOMBSTONE, POISON, GAP = "row", "tombstone", "poison", "gap"
WRITTEN, STALE, DUPLICATE, FILTERED, QUARANTINED = "written", "stale", "duplicate", "filtered", "quarantined"
BEST_FIRST = (WRITTEN, STALE, DUPLICATE, FILTERED)


@dataclass(frozen=True)
class Record:
    """What stands at one offset, as far as the write path can tell."""

    what: str
    id: int = 1
    code: str = "a"
    """With ``id`` the key of the event table."""
    team: str | None = None
    points: int = 0
    amount: Decimal | None = None
    seen: int = 0
    """Version of the entity table, seconds after EPOCH."""
    goes: frozenset[str] = frozenset((ENTITY, EVENT))
    """Tables whose transform keeps it."""
    readable: int = 1
    """First pipeline version whose transform can read it."""
    slip: int = 0
    """Seconds by which each newer pipeline version corrects ``seen`` downwards."""

    def row(self, version: int) -> Row:
        """What the transform of a pipeline version makes of it."""
        return Row(
            *(self.id, self.code, self.team),
            points=self.points + 7 * (version - 1),
            amount=self.amount,
            seen=EPOCH + dt.timedelta(seconds=self.seen - self.slip * (version - 1)),
        )


@dataclass(frozen=True)
class Row:
    """The columns of both tables."""

    id: int
    code: str
    team: str | None
    points: int
    amount: Decimal | None
    seen: dt.datetime

    def key(self, table: str) -> tuple[Any, ...]:
        return (self.id,) if table == ENTITY else (self.code, self.id)

    def fits(self, table: str) -> bool:
        """Whether the database takes it."""
        fits = len(self.team or "") <= LONGEST[table] and self.points in INT
        return fits and abs(self.amount or Decimal(0)) < LARGEST[table]


@dataclass(frozen=True)
class Held:
    """A row in a table, with the columns of the platform."""

    row: Row
    commit: int
    partition: int
    offset: int
    version: int
    turn: int = 0
    """Of the commit that wrote it."""


@dataclass(frozen=True)
class Turn:
    """The stream turns to the other topic."""

    number: int
    """How often it has turned by now."""


@dataclass(frozen=True)
class TakeOver:
    """A driver of a pipeline version becomes the newest."""

    version: int


@dataclass(frozen=True)
class Commit:
    """A task hands one range of a partition to the writer."""

    epoch: int
    version: int
    batch_id: int
    partition: int
    start: int
    records: tuple[Record, ...]
    replay: int | None = None
    chosen: frozenset[int] | None = None
    """Offsets that the replay asked for; None for all of the range."""
    refused: bool = False
    """The writer has to refuse it."""
    turn: int = 0
    """How often the stream had turned to another topic."""

    @property
    def until(self) -> int:
        return self.start + len(self.records)

    def wanted(self) -> Iterator[tuple[int, Record]]:
        """The records that are in the batch, with their offsets."""
        for offset, record in enumerate(self.records, self.start):
            if record.what != GAP and (self.chosen is None or offset in self.chosen):
                yield offset, record

    def gaps(self) -> int:
        return sum(record.what == GAP and self._asked(at) for at, record in enumerate(self.records, self.start))

    def unselected(self) -> int:
        return sum(not self._asked(at) for at in range(self.start, self.until))

    def _asked(self, offset: int) -> bool:
        return self.chosen is None or offset in self.chosen


@dataclass(frozen=True)
class Entry:
    """What the ledger says of one commit."""

    order: Commit
    counts: Counter[str]
    tables: dict[str, Counter[str]]
    """Per table, for a pipeline of several."""


@dataclass
class Model:
    """Tables, quarantine and ledger of one pipeline. Commits are numbered from 1."""

    tables: tuple[str, ...]
    rows: dict[str, dict[Any, Held]] = field(default_factory=lambda: {ENTITY: {}, EVENT: {}})
    markers: dict[Any, tuple[int, int, int]] = field(default_factory=dict)
    """Key of the entity table -> commit, partition and offset of its newest tombstone."""
    quarantine: dict[tuple[int, int, int], dict[str, Any]] = field(default_factory=dict)
    """Turn, partition and offset -> what is known of the record."""
    ledger: list[Entry] = field(default_factory=list)
    fates: dict[str, dict[int, str]] = field(default_factory=dict)
    """Table -> offset -> what became of it, in the commit at hand."""
    turned: int = 0
    """How often the stream has turned to another topic."""

    def turn(self, number: int) -> None:
        """The coordinates of what was read before are of another topic, or of the same one before the other."""
        self.turned = number
        self.markers = {}

    def is_of_this_turn(self, held: Held) -> bool:
        """Whether the coordinates of a row can be compared with those of the records that are read now."""
        return held.turn == self.turned

    def commit(self, order: Commit) -> Entry:
        """Settle one commit; one that was made before is only told again."""
        for entry in self.ledger:
            if entry.order == order:
                return entry
        number = len(self.ledger) + 1
        self.fates = {table: {} for table in self.tables}
        bad = {offset for offset, record in order.wanted() if self.is_rejected(record, order.version)}
        bad |= self.refused(order, [(offset, record) for offset, record in order.wanted() if offset not in bad])
        sound = [(offset, record) for offset, record in order.wanted() if offset not in bad]
        for table in self.tables:
            if table == ENTITY:
                self.delete(order, number, {offset: r for offset, r in sound if r.what == TOMBSTONE})
            self.settle(order, number, table, _rows(order, table, sound))
        self.set_aside(order, number, bad)
        entry = Entry(order, self.count(order, sound, bad), self.count_tables(sound))
        self.ledger.append(entry)
        return entry

    def is_rejected(self, record: Record, version: int) -> bool:
        """Whether it can be no row of any table: unreadable, or a tombstone that deletes nothing."""
        if record.what == POISON or record.readable > version:
            return True
        return record.what == TOMBSTONE and ENTITY not in self.tables

    def refused(self, order: Commit, sound: list[tuple[int, Record]]) -> set[int]:
        """Records that some table cannot hold; none goes to another table then.

        Of each key only the newest row that fits is of interest, and those that come before it.
        """
        graves = {record.id: offset for offset, record in sound if record.what == TOMBSTONE}
        bad: set[int] = set()
        while True:
            found = set()
            for table in self.tables:
                rows = _rows(order, table, [(offset, record) for offset, record in sound if offset not in bad])
                if table == ENTITY:
                    rows = {offset: row for offset, row in rows.items() if offset > graves.get(row.id, -1)}
                for offsets in _by_key(table, rows).values():
                    best = self.newest(table, rows, offsets)
                    if not rows[best].fits(table):
                        found.add(best)
            if not found:
                return bad
            bad |= found

    def delete(self, order: Commit, number: int, tombstones: dict[int, Record]) -> None:
        """Apply tombstones: of several for one key, the last counts."""
        last = {(record.id,): offset for offset, record in sorted(tombstones.items())}
        for offset, record in tombstones.items():
            key = (record.id,)
            acts = last[key] == offset and self.bury(order, number, key, offset)
            self.fates[ENTITY][offset] = WRITTEN if acts else STALE

    def bury(self, order: Commit, number: int, key: Any, offset: int) -> bool:
        """Move the key's marker and remove the row that the tombstone means, unless the tombstone is known."""
        if self.is_known(order, key, offset):
            return False
        self.markers[key] = (number, order.partition, offset)
        held = self.rows[ENTITY].get(key)
        if held is not None and self.is_before(held, order.partition, offset):
            del self.rows[ENTITY][key]
        return True

    def is_before(self, held: Held, partition: int, offset: int) -> bool:
        """Whether a tombstone means this row: not one that came after it in its own partition."""
        later = self.is_of_this_turn(held) and held.partition == partition and held.offset >= offset
        return not later

    def is_known(self, order: Commit, key: Any, offset: int) -> bool:
        """Whether this tombstone, or a later one of its partition, has been applied."""
        return self.is_buried(order, key, offset - 1)

    def is_buried(self, order: Commit, key: Any, offset: int) -> bool:
        """Whether a tombstone of the same partition came after this row."""
        marker = self.markers.get(key)
        return marker is not None and marker[1] == order.partition and offset < marker[2]

    def settle(self, order: Commit, number: int, table: str, rows: dict[int, Row]) -> None:
        """Of each key of the batch the newest row, against the row that is there."""
        self.fates[table] |= dict.fromkeys(rows, STALE if table == ENTITY else DUPLICATE)
        if table == ENTITY:
            rows = {offset: row for offset, row in rows.items() if not self.is_buried(order, row.key(table), offset)}
        for key, offsets in _by_key(table, rows).items():
            best = self.newest(table, rows, offsets)
            held = self.rows[table].get(key)
            if held is None or self.replaces(table, order, best, rows[best], held):
                self.rows[table][key] = Held(rows[best], number, order.partition, best, order.version, self.turned)
                self.fates[table][best] = WRITTEN

    def newest(self, table: str, rows: dict[int, Row], offsets: list[int]) -> int:
        """Of one key's offsets in a batch the one to keep: the newest version, and of equal ones the first."""
        if table == EVENT:
            return min(offsets)
        return max(offsets, key=lambda offset: (rows[offset].seen, -offset))

    def replaces(self, table: str, order: Commit, offset: int, row: Row, held: Held) -> bool:
        """Whether a row replaces the one that is there."""
        same = (held.partition, held.offset) == (order.partition, offset) and self.is_of_this_turn(held)
        corrected = same and held.version < order.version
        if table == EVENT:
            return corrected or self.is_first(held, order.partition, offset)
        return corrected or row.seen > held.row.seen

    def is_first(self, held: Held, partition: int, offset: int) -> bool:
        """Whether a replayed event comes before the row of its key in Kafka: it was in quarantine when that was
        written, and a stream that could read it from the beginning would have kept it."""
        return held.partition == partition and held.offset > offset and self.is_of_this_turn(held)

    def set_aside(self, order: Commit, number: int, bad: set[int]) -> None:
        """Keep what can be no row; what a replay made sound is resolved."""
        for offset in sorted(bad):
            record = order.records[offset - order.start]
            new = {"commit": number, "replay": order.replay, "resolved": None, "record": record}
            found = self.quarantine.setdefault((order.turn, order.partition, offset), new)
            found |= {"version": order.version, "resolved": None}
        if order.replay is not None:
            for offset, _ in order.wanted():
                found = self.quarantine.get((order.turn, order.partition, offset), {"resolved": 0})
                if offset not in bad and found["resolved"] is None:
                    found["resolved"] = number

    def count(self, order: Commit, sound: list[tuple[int, Record]], bad: set[int]) -> Counter[str]:
        """Each offset of the range once, a record by the best that became of it in any table."""
        counts = Counter({QUARANTINED: len(bad), "gap": order.gaps(), "unselected": order.unselected()})
        for offset, _ in sound:
            fates = {self.fates[table].get(offset, FILTERED) for table in self.tables}
            counts[next(fate for fate in BEST_FIRST if fate in fates)] += 1
        return counts

    def count_tables(self, sound: list[tuple[int, Record]]) -> dict[str, Counter[str]]:
        """Each record that was not set aside once for each table."""
        if len(self.tables) == 1:
            return {}
        return {t: Counter(self.fates[t].get(offset, FILTERED) for offset, _ in sound) for t in self.tables}

    def rollup(self, table: str, key: Callable[[Row], Any]) -> dict[Any, tuple[int, int, Decimal, int]]:
        """Group -> count, sum of points, sum of amount, how many have more than 5 points."""
        groups: dict[Any, tuple[int, int, Decimal, int]] = defaultdict(lambda: (0, 0, Decimal(0), 0))
        for held in self.rows[table].values():
            n, points, amount, many = groups[key(held.row)]
            row = held.row
            groups[key(row)] = (n + 1, points + row.points, amount + (row.amount or 0), many + (row.points > 5))
        return dict(groups)

    def whole(self) -> tuple[Any, ...]:
        """All of it, to compare two models."""
        entries = [(+entry.counts, entry.tables) for entry in self.ledger]
        return self.rows, self.markers, self.quarantine, entries


def _rows(order: Commit, table: str, records: list[tuple[int, Record]]) -> dict[int, Row]:
    """What the transform of one table makes of the records it wants."""
    return {offset: r.row(order.version) for offset, r in records if r.what == ROW and table in r.goes}


def _by_key(table: str, rows: dict[int, Row]) -> dict[Any, list[int]]:
    found: dict[Any, list[int]] = defaultdict(list)
    for offset, row in sorted(rows.items()):
        found[row.key(table)].append(offset)
    return found
