"""Replays in the database: what no record makes any more leaves tables and rollups, once, beside the stream."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from support.errors import coded
from support.histories import ENTITY
from support.recording import make_pipeline
from support.writes import Writer
from tidemill.config import Account, Settings
from tidemill.errors import Contention, Fenced, StreamError
from tidemill.store.connection import session
from tidemill.store.control import leases, ledger, quarantine, replays
from tidemill.store.control.quarantine import QuarantineFilter
from tidemill.store.maintenance.verify import verify
from tidemill.store.migrations import apply_pipeline, migrate_control
from tidemill.store.sql.identifiers import NO_PARTITION
from tidemill.store.sql.mariadb import MariaDB
from tidemill.store.write import fencing, retract, transaction
from tidemill.store.write.context import NO_GENERATION, Range, WriteContext
from tidemill.store.write.retract import OutdatedRow, count_outdated, retract_outdated
from tidemill.store.write.transaction import Batch, Rejected, write_batch
from tidemill.testing import wait_until

ROWS = [(1, "red", 5, 10), (2, "red", 7, 11), (3, "blue", 1, 12), (4, "blue", 2, 13), (5, "blue", 4, 14)]


def everything(rows: list[OutdatedRow]) -> list[OutdatedRow]:
    """Spares nothing."""
    return rows


def begin(writer: Writer) -> WriteContext:
    """A newer version of the stream's pipeline, and a replay by it."""
    replay_id = replays.request_replay(
        writer.connection, writer.pipeline.name, writer.version + 1, {"asked": {}}, "a test"
    )
    return replace(writer.write_context, epoch=0, pipeline_version=writer.version + 1, replay_id=replay_id)


def again(writer: Writer, write_context: WriteContext, rows: list[tuple[Any, ...]], offsets: list[int]) -> None:
    """The newer version makes these rows of the records at these offsets of partition 0, and filters the others."""
    writer.positions[0] = 0
    batch = writer.batch(rows)
    table = batch.rows[writer.table]
    table = table.set_column(4, "_offset", pa.array(offsets, pa.int64()))
    until = len(ROWS)
    batch = replace(batch, range=Range(0, 0, until), rows={writer.table: table}, filtered=until - len(rows))
    write_batch(writer.settings, writer.pipeline, write_context, batch)


@pytest.mark.parametrize("size", [2, 2_000])
def test_rows_of_records_that_make_them_no_longer_are_retracted(
    entity: Writer, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Out of table and rollup and counted in the replay, however many leave at once; others and later ones stay."""
    monkeypatch.setattr(retract, "ROWS", size)
    entity.write(ROWS)
    entity.write([(6, "red", 1, 20)], partition=1)
    entity.write([(7, "red", 1, 20)], partition=2)
    write_context = begin(entity)
    again(entity, write_context, [(2, "red", 70, 11)], [1])
    where = (entity.settings, entity.pipeline, write_context, [Range(0, 0, 4), Range(1, 0, 1)])
    assert count_outdated(entity.connection, *where, everything) == 4
    spared = retract_outdated(entity.connection, *where, lambda rows: [row for row in rows if row.key != (1,)])
    assert spared == 3
    assert entity.rows() == [(1, "red", 5, 10), (2, "red", 70, 11), (5, "blue", 4, 14), (7, "red", 1, 20)]
    assert retract_outdated(entity.connection, *where, everything) == 1
    assert retract_outdated(entity.connection, *where, everything) == 0
    assert entity.groups() == {"red": (2, 71), "blue": (1, 4)}
    assert write_context.replay_id is not None
    assert replays.read(entity.connection, write_context.replay_id).retracted_rows == 4
    assert entity.verify() == []


def test_a_row_that_the_stream_writes_meanwhile_is_not_retracted(entity: Writer) -> None:
    """Found as outdated, and written anew before its turn came."""
    entity.write(ROWS)
    write_context = begin(entity)

    def overtake(rows: list[OutdatedRow]) -> list[OutdatedRow]:
        entity.write([(3, "green", 9, 99)])
        return rows

    where = (entity.settings, entity.pipeline, write_context, [Range(0, 0, 5)])
    assert retract_outdated(entity.connection, *where, overtake) == 4
    assert entity.rows() == [(3, "green", 9, 99)]
    assert entity.verify() == []


def test_records_of_an_earlier_generation_are_left_out(entity: Writer) -> None:
    """Offsets of a topic that was made again are those of other records."""
    entity.write(ROWS[:2])
    entity.write(ROWS[2:3], partition=1)
    ((since,),) = entity.query(f"SELECT MIN(_commit) FROM {entity.table}")
    with entity.connection.cursor() as cursor:
        name = entity.pipeline.name
        cursor.execute("INSERT INTO topics VALUES (%s, %s, 'another', 2, %s)", (name, name, since))
    write_context = replace(begin(entity), generation=2, since_commit=since)
    ranges = [Range(0, 0, 9), Range(1, 0, 9)]
    assert retract_outdated(entity.connection, entity.settings, entity.pipeline, write_context, ranges, everything) == 1
    assert [row[0] for row in entity.rows()] == [1, 2]


def test_an_outdated_version_retracts_nothing(event: Writer) -> None:
    """The stream has a newer driver: what it writes is not to be judged by an older folder."""
    event.write(ROWS)
    write_context = begin(event)
    leases.acquire_lease(event.connection, event.pipeline.name, event.version + 2, "a test")
    with pytest.raises(Fenced, check=coded("TM-STORE-NEWER-VERSION")):
        retract_outdated(event.connection, event.settings, event.pipeline, write_context, [Range(0, 0, 5)], everything)
    assert len(event.rows()) == 5
    assert event.verify() == []


def met(writer: Writer, generation: int) -> int:
    """The stream has met another generation of its topic; returns the newest commit before it."""
    since = ledger.last_commit(writer.connection, writer.pipeline.name)
    with writer.connection.cursor() as cursor:
        cursor.execute(
            "REPLACE INTO topics (stream, topic, topic_id, generation, since_commit) VALUES (%s, %s, %s, %s, %s)",
            (writer.pipeline.name, writer.pipeline.source.topic, f"id{generation}", generation, since),
        )
        cursor.execute("DELETE FROM offsets WHERE stream = %s", (writer.pipeline.name,))
    topic = writer.pipeline.source.topic
    ledger.begin_at(writer.connection, writer.pipeline.name, topic, dict.fromkeys(range(4), 0))
    writer.positions.clear()
    return since


def test_a_replay_of_a_topic_that_was_made_again_is_refused(entity: Writer) -> None:
    """It was asked for before: neither does it write rows, nor does it take any out, nor is it in the ledger."""
    entity.write(ROWS)
    write_context = begin(entity)
    assert fencing.check_topic_generation(entity.connection, write_context) is None
    since = met(entity, 2)
    before = entity.rows(), entity.groups()
    value = f"generation 1 after commit 0, now 2 after commit {since}"
    recreated = coded("TM-STORE-TOPIC-RECREATED", value=value, topic=entity.pipeline.source.topic)
    with pytest.raises(Fenced, check=recreated):
        again(entity, write_context, [(2, "red", 70, 11)], [1])
    where = (entity.settings, entity.pipeline, write_context, [Range(0, 0, 5)])
    with pytest.raises(Fenced, check=recreated):
        retract_outdated(entity.connection, *where, everything)
    assert (entity.rows(), entity.groups()) == before
    assert write_context.replay_id is not None
    assert replays.read(entity.connection, write_context.replay_id).retracted_rows == 0
    assert replays.committed(entity.connection, write_context.replay_id) == {}
    assert entity.verify() == []
    asked_again = replace(write_context, generation=2, since_commit=since)
    assert fencing.check_topic_generation(entity.connection, asked_again) == "id2"


def test_a_row_of_an_earlier_generation_is_never_taken_for_one_of_the_new_topic(event: Writer) -> None:
    """Verified, replaced and retracted are the rows of the new topic: its partitions hold no such record."""
    event.write([(1, "red", 1, 1)], rejected=tuple(Rejected(at, "wrong", 1, None, b"v") for at in range(1, 6)))
    since = met(event, 2)
    fresh = replace(event.write_context, generation=2, since_commit=since)
    beside = replace(fresh, epoch=0, replay_id=begin(event).replay_id)
    event.positions[0] = 5
    old = replace(event.batch([(2, "blue", 2, 2)]), batch_id=0)
    write_batch(event.settings, event.pipeline, replace(beside, generation=1, since_commit=NO_GENERATION), old)
    assert event.query(f"SELECT _partition, _offset FROM {event.table} WHERE id = 2") == [(NO_PARTITION, 5)]
    assert event.verify() == []
    event.positions[0] = 0
    write_batch(event.settings, event.pipeline, fresh, event.batch([(2, "new", 9, 9)]))
    assert event.rows() == [(1, "red", 1, 1), (2, "blue", 2, 2)]
    newer = replace(beside, pipeline_version=event.version + 1)
    everywhere = [Range(partition, 0, 99) for partition in range(4)]
    assert retract_outdated(event.connection, event.settings, event.pipeline, newer, everywhere, everything) == 0
    assert event.groups() == {"red": (1, 1), "blue": (1, 2)}
    assert event.verify() == []


@pytest.mark.parametrize("point", ["looked", "claimed"])
def test_an_older_record_does_not_come_back_while_its_key_is_being_deleted(
    mariadb: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The stream deletes a key after a replay has looked for deletions, or while it holds the key."""
    pipeline = make_pipeline(tmp_path, f"returning_{point}", (ENTITY,))
    with session(mariadb, Account.MIGRATE) as connection:
        migrate_control(connection, mariadb.root / "sql")
        version = apply_pipeline(connection, mariadb, pipeline)
    with session(mariadb, Account.STREAM) as connection:
        epoch = leases.acquire_lease(connection, pipeline.name, version, "a test")
        ledger.begin_at(connection, pipeline.name, pipeline.name, {0: 0})
    name = f"{pipeline.name}_{ENTITY}"
    stream = WriteContext(pipeline.name, epoch, version, pipeline.name)
    row = {"id": 1, "code": "a", "team": "t", "points": 1, "amount": Decimal(1), "seen": datetime(2026, 1, 1)}
    older = Batch(0, Range(0, 0, 1), rows={name: pa.Table.from_pylist([row | {"_offset": 0}])})
    nothing = older.rows[name].slice(0, 0)
    gone = pa.Table.from_pylist([{"id": 1, "_offset": 1}])
    deletion = Batch(1, Range(0, 1, 2), rows={name: nothing}, deleted={name: gone})
    # The older record had no row: it was filtered when the stream read it.
    write_batch(mariadb, pipeline, stream, replace(older, rows={name: nothing}, filtered=1))

    def delete() -> None:
        # Over a connection of its own, as each of Spark's workers has one.
        with session(mariadb, Account.STREAM) as connection:
            for _ in range(20):
                try:
                    transaction._Transaction(connection, mariadb, pipeline, stream, deletion).run()
                except Contention:
                    connection.rollback()
                else:
                    return

    deleting = threading.Thread(target=delete)
    wanted = {"looked": MariaDB.insert_or_lock, "claimed": MariaDB.deleted_concurrently}[point]

    def then_delete(*arguments: Any) -> str:
        # Only of the first attempt of the replay.
        if threading.current_thread() is not deleting and not deleting.ident:
            deleting.start()
            if point == "looked":
                deleting.join(60)
            else:
                wait_until(lambda: waiting(mariadb), 60, "the deletion waits for the key")
        return wanted(*arguments)

    monkeypatch.setattr(MariaDB, wanted.__name__, then_delete)
    with session(mariadb, Account.STREAM) as connection:
        replay_id = replays.request_replay(connection, pipeline.name, version, {}, "a test")
    write_batch(mariadb, pipeline, replace(stream, epoch=0, replay_id=replay_id), older)
    deleting.join(60)
    with session(mariadb, Account.READ) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {mariadb.db_data}.{name}")
        assert cursor.fetchone() == (0,)
        assert verify(connection, mariadb, pipeline) == []


def waiting(settings: Settings) -> bool:
    """Whether somebody locks rows that are to leave, of which another holds one: it would be over at once otherwise."""
    with session(settings, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW FULL PROCESSLIST")
        doing = [str(row[7]) for row in cursor.fetchall()]
        return any("FROM `operational`.`_tombstones_" in sql and sql.endswith("FOR UPDATE") for sql in doing)


def test_a_replay_is_worked_on_by_one_job_at_a_time(mariadb: Settings, event: Writer) -> None:
    """The second is refused, until the first has gone."""
    replay_id = begin(event).replay_id
    assert replay_id is not None
    with session(mariadb, Account.STREAM) as other:
        refused = pytest.raises(StreamError, check=coded("TM-STORE-REPLAY-LOCKED", value=replay_id))
        with replays.locked(event.connection, replay_id), refused, replays.locked(other, replay_id):
            pass
        with replays.locked(other, replay_id):
            pass


def test_a_finished_replay_does_not_fail_afterwards(event: Writer) -> None:
    """What is told of it last is what its job said."""
    replay_id = begin(event).replay_id
    assert replay_id is not None
    replays.begin(event.connection, replay_id)
    replays.fail(event.connection, replay_id, "the broker was away")
    failed = replays.read(event.connection, replay_id)
    assert (failed.state, failed.last_error) == ("failed", "the broker was away")
    replays.begin(event.connection, replay_id)
    replays.finish(event.connection, replay_id, {"written": 3})
    replays.fail(event.connection, replay_id, "too late")
    done = replays.read(event.connection, replay_id)
    assert (done.state, done.last_error, done.selection) == ("done", None, {"asked": {}, "result": {"written": 3}})
    with pytest.raises(StreamError, check=coded("TM-STORE-NO-REPLAY", value=0)):
        replays.read(event.connection, 0)


def test_the_quarantine_is_read_by_reason_id_and_place(event: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reasons by a part of their text as it stands, in any case; a value that was cut is known to be partial."""
    event.write(
        [],
        rejected=(
            Rejected(0, "100% wrong", 1_700_000_000_123_456, b"k", b"v", '[["h", "dg=="]]', 1),
            Rejected(1, "too long", 1, b"k", b"v" * 10, None, 500),
            Rejected(2, "refused by the database"),
            Rejected(3, "a tombstone", 1, b"k"),
        ),
    )
    stream, topic = event.pipeline.name, event.pipeline.source.topic
    monkeypatch.setattr(quarantine, "PAGE", 2)
    found = [*quarantine.records_in_order(event.connection, stream, topic, QuarantineFilter())]
    assert [(each.record_offset, each.cut, each.record_at is None) for each in found] == [
        (0, False, False), (1, True, False), (2, False, True), (3, False, False),
    ]  # fmt: skip
    named = quarantine.latest_records(event.connection, stream, QuarantineFilter("0% WRONG"), 9)
    assert [each.record_offset for each in named] == [0]
    assert quarantine.latest_records(event.connection, stream, QuarantineFilter("0_ wrong"), 9) == []
    ids = tuple(each.id for each in found[1:3])
    whole = quarantine.read_range(
        event.connection, (stream, topic, 1), Range(0, 0, 2), QuarantineFilter(ids=ids), ids[-1]
    )
    assert [(each.record_offset, each.partial) for each in whole] == [(1, True)]
    one = quarantine.read_one(event.connection, stream, found[0].id)
    assert one is not None
    assert (one.timestamp_us, one.key, one.value, one.partial) == (1_700_000_000_123_456, b"k", b"v", False)
    assert quarantine.read_one(event.connection, "another", found[0].id) is None
