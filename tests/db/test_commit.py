"""One transaction: rows, rollup, quarantine, ledger and position, wholly or not at all, exactly once."""

import threading
from dataclasses import replace

import pymysql
import pytest

from support.errors import coded
from support.writes import Writer
from tidemill.config import Account
from tidemill.errors import Fenced, StoreError
from tidemill.store.connection import session, worker_connection
from tidemill.store.control import ledger
from tidemill.store.write.context import Range
from tidemill.store.write.ledger_rows import resume
from tidemill.store.write.transaction import Rejected, write_batch


def test_a_new_key_is_written_and_counted(entity: Writer) -> None:
    """Rows, rollup and ledger move together."""
    counts = entity.write([(1, "red", 5, 10), (2, "red", 7, 10)])
    assert (counts.written, counts.stale) == (2, 0)
    assert entity.rows() == [(1, "red", 5, 10), (2, "red", 7, 10)]
    assert entity.groups() == {"red": (2, 12)}
    assert entity.verify() == []


def test_a_newer_version_replaces_and_moves_the_rollup(entity: Writer) -> None:
    """The rollup moves by new minus old, from one group to another too; an empty group is gone."""
    entity.write([(1, "red", 5, 10)])
    counts = entity.write([(1, "blue", 9, 11)])
    assert counts.written == 1
    assert entity.groups() == {"blue": (1, 9)}
    assert entity.verify() == []


def test_an_older_or_equal_version_is_stale(entity: Writer) -> None:
    """In the table and within one batch, in any order."""
    entity.write([(1, "red", 5, 10)])
    counts = entity.write([(1, "x", 1, 9), (1, "y", 2, 10), (2, "red", 3, 8), (2, "z", 4, 7), (2, "w", 4, 8)])
    assert (counts.written, counts.stale) == (1, 4)
    assert entity.rows() == [(1, "red", 5, 10), (2, "red", 3, 8)]
    assert entity.groups() == {"red": (2, 8)}


def test_the_first_event_of_a_key_stays(event: Writer) -> None:
    """The rest count as duplicates, and the rollup counts each key once, ever."""
    first = event.write([(1, "red", 5, 10), (1, "blue", 6, 11)])
    again = event.write([(1, "green", 7, 12), (2, "red", 1, 12)], partition=1)
    assert (first.written, first.duplicate, again.written, again.duplicate) == (1, 1, 1, 1)
    assert event.rows() == [(1, "red", 5, 10), (2, "red", 1, 12)]
    assert event.groups() == {"red": (2, 6)}
    assert event.verify() == []


def test_null_is_a_group_of_its_own(entity: Writer) -> None:
    """Rows without a team are counted under NULL, in one group, apart from the empty string."""
    entity.write([(1, None, 5, 10), (2, "", 7, 10)])
    entity.write([(3, None, None, 10)])
    assert entity.groups() == {None: (2, 5), "": (1, 7)}
    assert entity.verify() == []


def test_groups_differ_by_bytes(entity: Writer) -> None:
    """Case and accents tell groups apart, as they tell keys apart."""
    entity.write([(1, "jfk", 1, 10), (2, "JFK", 2, 10), (3, "é", 3, 10), (4, "e", 4, 10)])
    entity.write([(1, "JFK", 5, 11)])
    assert entity.groups() == {"JFK": (2, 7), "é": (1, 3), "e": (1, 4)}
    assert entity.verify() == []


@pytest.mark.parametrize("text", ["tab\there", "line\nend", "a\\b", "\\N", "😀é漢", "q'\"q", "nul\0z", "cr\r"])
def test_text_arrives_as_it_was_sent(entity: Writer, text: str) -> None:
    """Nothing that means something to the bulk load changes a value."""
    entity.write([(1, text, 1, 1)])
    assert entity.rows()[0][1] == text


def test_what_the_database_refuses_is_set_aside_row_by_row(entity: Writer) -> None:
    """A string too long and a number out of range go to quarantine with the reason; the rest is written."""
    counts = entity.write([(1, "red", 5, 10), (2, "far too long", 1, 10), (3, "red", 2**40, 10), (4, "red", 6, 10)])
    assert (counts.written, counts.quarantined) == (2, 2)
    assert [row[0] for row in entity.rows()] == [1, 4]
    reasons = entity.query(
        f"SELECT record_offset, reason FROM {entity.settings.db_control}.quarantine"
        f" WHERE stream = '{entity.pipeline.name}' ORDER BY record_offset"
    )
    assert [offset for offset, _ in reasons] == [1, 2]
    assert "team" in reasons[0][1]
    assert "points" in reasons[1][1]
    assert entity.verify() == []


def test_a_rejected_record_keeps_its_bytes(entity: Writer) -> None:
    """Raw key, value, coordinates, time and reason are in the quarantine."""
    entity.write([(1, "red", 5, 10)], rejected=(Rejected(1, "no JSON", 1_700_000_000_123_456, b"k", b"\xff{"),))
    found = entity.query(
        "SELECT partition_id, record_offset, record_at, record_key, record_value, reason FROM"
        f" {entity.settings.db_control}.quarantine WHERE stream = '{entity.pipeline.name}'"
    )
    assert [(*row[:2], row[2].isoformat(), *row[3:]) for row in found] == [
        (0, 1, "2023-11-14T22:13:20.123456", b"k", b"\xff{", "no JSON")
    ]


def test_the_ledger_adds_up(entity: Writer) -> None:
    """until - from = written + duplicate + stale + filtered + quarantined + gap."""
    entity.write([(1, "red", 5, 10), (1, "red", 5, 9)], filtered=3, rejected=(Rejected(7, "no"),), gap=4)
    with session(entity.settings, Account.READ) as connection:
        total = ledger.totals(connection, entity.pipeline.name)
    assert (total.records, total.written, total.stale, total.filtered, total.quarantined, total.gap) == (
        10,
        1,
        1,
        3,
        1,
        4,
    )


def test_a_ledger_row_that_does_not_add_up_is_refused(entity: Writer) -> None:
    """The database itself holds the equation; the batch leaves no trace."""
    batch = entity.batch([(1, "red", 5, 10)])
    wrong = replace(batch, range=replace(batch.range, until=batch.range.until + 1))
    with pytest.raises(StoreError, match="nothing_lost"):
        write_batch(entity.settings, entity.pipeline, entity.write_context, wrong)
    assert entity.rows() == []


def test_a_driver_without_the_lease_commits_nothing(entity: Writer) -> None:
    """The epoch is proven inside the transaction: rows, rollup, ledger and position stay as they were."""
    entity.write([(1, "red", 5, 10)])
    old = entity.write_context
    entity.acquire_lease()
    with pytest.raises(Fenced, check=coded("TM-STORE-LEASE-LOST", stream=entity.pipeline.name)):
        write_batch(entity.settings, entity.pipeline, old, entity.batch([(1, "blue", 6, 11)]))
    assert entity.rows() == [(1, "red", 5, 10)]
    assert entity.groups() == {"red": (1, 5)}
    entity.write([(1, "blue", 6, 11)])
    assert entity.groups() == {"blue": (1, 6)}
    assert entity.verify() == []


def test_of_two_writers_at_one_position_one_is_refused(entity: Writer) -> None:
    """The position moves by compare-and-set."""
    batch = entity.batch([(1, "red", 5, 10)])
    entity.write([(1, "red", 5, 10)])
    with pytest.raises(Fenced, check=coded("TM-STORE-POSITION-MOVED", partition=0)):
        write_batch(entity.settings, entity.pipeline, entity.write_context, replace(batch, batch_id=99))
    assert entity.groups() == {"red": (1, 5)}


def test_a_task_that_is_run_again_after_its_commit_does_nothing(entity: Writer) -> None:
    """Spark repeats a task whose answer was lost: the same batch is recognised, and its counts are told again."""
    batch = entity.batch([(1, "red", 5, 10)])
    first = write_batch(entity.settings, entity.pipeline, entity.write_context, batch)
    assert write_batch(entity.settings, entity.pipeline, entity.write_context, batch) == first
    assert entity.groups() == {"red": (1, 5)}


def test_a_connection_that_was_lost_is_opened_again(entity: Writer) -> None:
    """The database closed it meanwhile: the batch goes through over a new one."""
    entity.write([(1, "red", 5, 10)])
    held = worker_connection(entity.settings)
    with session(entity.settings, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute(f"KILL {held.thread_id()}")
    entity.write([(2, "red", 6, 10)])
    assert entity.groups() == {"red": (2, 11)}


def test_a_corrected_pipeline_rewrites_the_same_record(entity: Writer) -> None:
    """A replay by a newer pipeline version corrects row and rollup; by the same version it changes nothing."""
    batch = entity.batch([(1, "red", 5, 10)])
    entity.write([(1, "red", 5, 10)])

    def replay(version: int) -> int:
        with entity.connection.cursor() as cursor:
            cursor.execute("UPDATE offsets SET position = 0 WHERE stream = %s", (entity.pipeline.name,))
        entity.batch_id += 1
        corrected = entity.batch([(1, "red", 50, 10)]).rows[entity.table].slice(0, 1)
        corrected = corrected.set_column(4, "_offset", batch.rows[entity.table]["_offset"])
        again = replace(batch, batch_id=entity.batch_id, rows={entity.table: corrected})
        return write_batch(
            entity.settings, entity.pipeline, replace(entity.write_context, pipeline_version=version), again
        ).written

    assert replay(entity.version) == 0
    assert entity.groups() == {"red": (1, 5)}
    assert replay(entity.version + 1) == 1
    assert entity.groups() == {"red": (1, 50)}


def test_eight_writers_on_one_hot_group_stay_exact(entity: Writer) -> None:
    """Rows of one group from concurrent tasks: nobody starves, nothing is counted twice."""
    failures: list[BaseException] = []

    def work(partition: int) -> None:
        try:
            for round_number in range(5):
                rows = [(key, "hot", round_number + partition, round_number * 8 + partition) for key in range(40)]
                own = Writer(entity.settings, entity.pipeline, entity.connection, entity.version, entity.epoch)
                own.positions, own.batch_id = {partition: round_number * 40}, partition * 100 + round_number
                _write_apart(own, rows, partition)
        except (StoreError, Fenced, pymysql.Error, AssertionError) as error:
            failures.append(error)

    with entity.connection.cursor() as cursor:
        cursor.executemany(
            "INSERT IGNORE INTO offsets (stream, topic, partition_id, position) VALUES (%s, %s, %s, 0)",
            [(entity.pipeline.name, entity.pipeline.name, partition) for partition in range(8)],
        )
    threads = [threading.Thread(target=work, args=(partition,)) for partition in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert entity.verify() == []
    assert entity.groups() == {"hot": (40, 40 * (4 + 7))}


def _write_apart(writer: Writer, rows: list[tuple[object, ...]], partition: int) -> None:
    """Write over a connection of this thread's own, as each of Spark's workers has one."""
    from tidemill.errors import Contention  # noqa: PLC0415
    from tidemill.store.connection import connect  # noqa: PLC0415
    from tidemill.store.write import transaction  # noqa: PLC0415 -- its internals, for one process to act as eight

    batch = writer.batch(rows, partition)
    connection = connect(writer.settings, Account.STREAM)
    try:
        for _ in range(50):
            try:
                transaction._Transaction(
                    connection, writer.settings, writer.pipeline, writer.write_context, batch
                ).run()
            except Contention:
                connection.rollback()
            else:
                return
        raise AssertionError("fifty deadlocks in a row")
    finally:
        connection.close()


def test_a_commit_of_the_topic_before_is_not_taken_for_the_batchs_own(entity: Writer) -> None:
    """A driver counts its batches on when its topic is made again: number and offsets may be those of an old commit."""
    entity.write([(1, "red", 5, 10), (2, "red", 7, 10)])
    entity.write([(3, "red", 5, 10)])
    connection = worker_connection(entity.settings)
    span = Range(0, 0, 5)
    position, counts = resume(connection, entity.write_context, 0, span)
    assert (position, counts and counts.written) == (2, 2)
    assert resume(connection, replace(entity.write_context, generation=2), 0, span) == (0, None)
