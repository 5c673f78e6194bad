"""Whatever happens to a stream, the real writer on the real database does what a plain model says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, find, given
from hypothesis import settings as how

from support import histories
from support.histories import History
from support.merges import ENTITY, EVENT, STALE, Commit, Entry, Held, Model, Record, Row, Turn
from support.recording import COUNTED, Comparison, Player, make_pipeline
from tidemill.config import Account, Settings
from tidemill.errors import Fenced
from tidemill.store.connection import session
from tidemill.store.migrations import apply_pipeline, migrate_control

TABLES = {"both": (ENTITY, EVENT), "entities": (ENTITY,), "events": (EVENT,)}


@pytest.fixture(scope="module")
def players(mariadb: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, ...], Player]]:
    """A pipeline for each choice of tables, applied once; each history clears what it finds."""
    folder = tmp_path_factory.mktemp("histories")
    found = {}
    with ExitStack() as stack, session(mariadb, Account.MIGRATE) as connection:
        migrate_control(connection, mariadb.root / "sql")
        for name, tables in TABLES.items():
            pipeline = make_pipeline(folder, name, tables)
            apply_pipeline(connection, mariadb, pipeline)
            player = found[tables] = Player(mariadb, pipeline)
            stack.callback(player.close)
        yield found


def play(player: Player, history: History) -> list[str]:
    """Play a history on both; what does not agree."""
    model = Model(history.tables)
    player.clear(len(history.logs))
    commits = player.numbers.commits
    found = []
    for order in history.orders():
        if isinstance(order, Turn):
            model.turn(order.number)
            player.turn(order.number)
        elif not isinstance(order, Commit):
            player.acquire_lease(order.version)
        elif order.refused:
            with pytest.raises(Fenced):
                player.write(order)
        else:
            entry, counts = model.commit(order), player.write(order)
            told = {name: getattr(counts, name) for name in COUNTED}
            if told != {name: entry.counts[name] for name in COUNTED}:
                found.append(f"told {told}, expected {entry.counts}, for {order}")
            if commits.setdefault(model.ledger.index(entry) + 1, counts.commit_id) != counts.commit_id:
                found.append(f"committed twice: {order}")
    compare = Comparison(player.settings, player.pipeline, model, player.connection)
    return found + compare.everything(player.numbers, [len(log) for log in history.logs])


def test_any_history_ends_as_the_model_predicts(
    players: dict[tuple[str, ...], Player], number_of_histories: int
) -> None:
    """Tables, rollups, quarantine, ledger and positions, after any batch cuts, restarts, take-overs and replays."""

    @how(max_examples=number_of_histories)
    @given(histories.histories())
    def holds(history: History) -> None:
        assert play(players[history.tables], history) == []

    holds()


def test_a_replayed_event_replaces_the_later_one_of_its_key(players: dict[tuple[str, ...], Player]) -> None:
    """The first record of a key was in quarantine, and the second made the row. Once the first can be read, the table
    is what a stream that could read it all along would have made."""
    first, second = Record("row", readable=2), Record("row", readable=1)
    cuts = (("cut", 0, 1), ("cut", 0, 1), ("cut", 0, 1), ("replay", 0, 0, 1, True, 1))
    history = History((ENTITY, EVENT), ((first, second),), cuts)
    assert play(players[history.tables], history) == []


@pytest.mark.parametrize("first", [1, 2])
def test_a_stream_that_turns_to_another_topic_and_back_compares_no_coordinates(
    players: dict[tuple[str, ...], Player], first: int
) -> None:
    """Each turn is a generation: no new record is dropped as older, and a tombstone deletes the other topic's row."""
    log = (Record("row", seen=60), Record("tombstone"), Record("row", seen=61))
    steps = (("cut", 0, first), ("turn",), ("cut", 0, 3), ("turn",), ("cut", 0, 1), ("turn",), ("turn",))
    assert play(players[(ENTITY,)], History((ENTITY,), (log,), steps)) == []


class _LateEvent(Model):
    """The event that was written first stays, whatever came before it in Kafka."""

    def is_first(self, held: Held, partition: int, offset: int) -> bool:
        return False


class _OldCoordinates(Model):
    """Coordinates mean the same after the stream has read another topic."""

    def is_of_this_turn(self, held: Held) -> bool:
        return True


class _Equal(Model):
    """An equal version replaces."""

    def replaces(self, table: str, order: Commit, offset: int, row: Row, held: Held) -> bool:
        return super().replaces(table, order, offset, row, held) or (table == ENTITY and row.seen == held.row.seen)


class _LastOfABatch(Model):
    """Of equal rows in a batch the last stays."""

    def newest(self, table: str, rows: dict[int, Row], offsets: list[int]) -> int:
        return max(offsets, key=lambda offset: (rows[offset].seen if table == ENTITY else 0, offset))


class _EveryReplay(Model):
    """A replay by the same pipeline version rewrites the row, too."""

    def replaces(self, table: str, order: Commit, offset: int, row: Row, held: Held) -> bool:
        same = (held.partition, held.offset) == (order.partition, offset)
        return same or super().replaces(table, order, offset, row, held)


class _AnyPartition(Model):
    """A record is known by its offset, whichever partition it stands in."""

    def replaces(self, table: str, order: Commit, offset: int, row: Row, held: Held) -> bool:
        same = held.offset == offset and held.version < order.version
        return same or super().replaces(table, order, offset, row, held)


class _NoMarker(Model):
    """Nothing remembers what was deleted."""

    def is_buried(self, order: Commit, key: Any, offset: int) -> bool:
        return False

    def is_known(self, order: Commit, key: Any, offset: int) -> bool:
        return super().is_buried(order, key, offset - 1)


class _DeletesAll(Model):
    """A tombstone that is replayed deletes what came after it."""

    def is_known(self, order: Commit, key: Any, offset: int) -> bool:
        return False

    def is_before(self, held: Held, partition: int, offset: int) -> bool:
        return True


class _EachTable(Model):
    """A record that one table refuses still goes to the other."""

    def refused(self, order: Commit, sound: list[tuple[int, Record]]) -> set[int]:
        bad = super().refused(order, sound)
        return {o for o, r in sound if o in bad and not any(r.row(order.version).fits(t) for t in r.goes)}


class _WorstFirst(Model):
    """A record counts by the worst that became of it."""

    def count(self, order: Commit, sound: list[tuple[int, Record]], bad: set[int]) -> Counter[str]:
        counts = super().count(order, sound, bad)
        return counts if counts[STALE] == 0 else counts + Counter({STALE: 1})


class _Forgetful(Model):
    """A batch that comes again is committed again."""

    def commit(self, order: Commit) -> Entry:
        entry = super().commit(order)
        self.ledger = [known for known in self.ledger if known is not entry]
        return entry


class _Unresolved(Model):
    """A replay says nothing of what was in quarantine."""

    def set_aside(self, order: Commit, number: int, bad: set[int]) -> None:
        super().set_aside(replace(order, replay=None), number, bad)


@pytest.mark.parametrize("broken", Model.__subclasses__(), ids=lambda broken: str(broken.__doc__))
def test_a_broken_rule_is_found(broken: type[Model]) -> None:
    """For each rule of the model there is a history, among those that are tried, that a writer without it fails."""

    def differs(history: History) -> bool:
        kept, lost = Model(history.tables), broken(history.tables)
        return histories.run(kept, history).whole() != histories.run(lost, history).whole()

    tried = how(max_examples=3000, database=None, deadline=None, phases=[Phase.generate])
    find(histories.histories(), differs, settings=tried, random=random.Random(1))
