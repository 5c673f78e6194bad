"""What is asked of a ledger costs the same however long it is: counted by the rows that the server reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from support.writes import Writer
from tidemill.airflow.triggers.commit_events import count_new_commits
from tidemill.config import Account, Settings
from tidemill.console.ledgers import read_ledgers
from tidemill.console.queries import read_status
from tidemill.ml import refresh
from tidemill.resources import resource_folder
from tidemill.store.connection import session
from tidemill.store.control import ledger
from tidemill.store.maintenance import compaction
from tidemill.store.maintenance.run import maintain
from tidemill.store.maintenance.verify import record_verified, verify_snapshot
from tidemill.store.write import ledger_rows
from tidemill.store.write.context import Range
from tidemill.store.write.transaction import write_batch

PARTITIONS = 4


def extend(writer: Writer, first: int, until: int) -> None:
    """Let each partition have commits of one offset from ``first`` to ``until``, as if it had committed them."""
    name = writer.pipeline.name
    with session(writer.settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO commits (stream, epoch, pipeline_version, batch_id, topic, partition_id, from_offset,"
            f" until_offset, gap_rows) SELECT %s, 1, 1, n.seq, %s, p.seq, n.seq, n.seq + 1, 1"
            f" FROM seq_{first}_to_{until - 1} AS n, seq_0_to_{PARTITIONS - 1} AS p ORDER BY n.seq, p.seq",
            (name, name),
        )
        cursor.execute("UPDATE offsets SET position = %s WHERE stream = %s", (until, name))
        cursor.execute((resource_folder("sql") / "upgrades" / "0002_fill_ledger_sums.sql").read_text(encoding="utf-8"))
        cursor.execute("ANALYZE TABLE commits")
        cursor.fetchall()


def rows_read(settings: Settings, work: Callable[[], object]) -> int:
    """How many rows the server reads for it, in all its sessions."""
    with session(settings, Account.MIGRATE) as connection, connection.cursor() as cursor:

        def count() -> int:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Handler_read%'")
            return sum(int(number) for _, number in cursor.fetchall())

        before = count()
        work()
        return count() - before


def questions(writer: Writer) -> dict[str, Callable[[], object]]:
    """Whatever the console, commands, maintenance, DAGs and the driver ask of a ledger."""
    settings, connection, pipeline = writer.settings, writer.connection, writer.pipeline
    name, topic = pipeline.name, pipeline.source.topic

    def verify() -> None:
        with session(settings, Account.READ) as reading:
            findings = verify_snapshot(reading, settings, pipeline, whole=False)
        assert findings.differences == ()

    def resume() -> None:
        end = ledger.positions(connection, name, topic)[0]
        span = Range(0, end - 1, end)
        ledger_rows.resume(connection, writer.write_context, 1, span)
        ledger_rows.committed(connection, writer.write_context, 1, span)

    return {
        "the console": lambda: read_status(settings),
        "totals": lambda: ledger.totals(connection, name),
        "positions": lambda: ledger.positions(connection, name, topic),
        "the newest commit": lambda: ledger.last_commit(connection, name),
        "the newest complete commit": lambda: refresh.last_complete_commit(connection, name),
        "new commits": lambda: count_new_commits(connection, {(name, 1): ledger.last_commit(connection, name) - 9}),
        "a driver that resumes": resume,
        "a verification after another": verify,
        "maintenance": lambda: maintain(connection, settings, pipeline),
    }


def measured(writer: Writer) -> dict[str, int]:
    """The rows that each question reads, some commits after a verification."""
    with session(writer.settings, Account.READ) as reading:
        record_verified(
            writer.connection, writer.pipeline.name, verify_snapshot(reading, writer.settings, writer.pipeline)
        )
    end = ledger.positions(writer.connection, writer.pipeline.name, writer.pipeline.source.topic)[0]
    extend(writer, end, end + 5)
    return {name: rows_read(writer.settings, ask) for name, ask in questions(writer).items()}


@pytest.mark.parametrize("commits", [10_000, pytest.param(400_000, marks=pytest.mark.full)])
def test_no_question_reads_more_of_a_longer_ledger(
    event: Writer, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """Of one with tens or hundreds of times the commits, at most 1.5 times the rows."""
    monkeypatch.setattr(refresh, "_OPEN_COMMIT_IDS", 100)
    monkeypatch.setattr(compaction, "_PAGE", 50)
    extend(event, 0, 100)
    short = measured(event)
    extend(event, 105, commits // PARTITIONS)
    long = measured(event)
    assert {name: (short[name], rows) for name, rows in long.items() if rows > 1.5 * short[name]} == {}
    assert ledger.totals(event.connection, event.pipeline.name).commits == commits + 5 * PARTITIONS


def test_the_sums_of_the_ledger_are_those_of_its_commits(mariadb: Settings, event: Writer) -> None:
    """While it grows, and after its commits are merged; replays do not count."""
    stream, connection = event.pipeline.name, event.connection

    def sums() -> tuple[int, int, int]:
        found, totals = read_ledgers(connection)[stream], ledger.totals(connection, stream)
        assert (found.commits, found.records, found.written_rows) == (totals.commits, totals.records, totals.written)
        assert event.verify() == []
        return found.commits, found.records, found.written_rows

    for number in range(4):
        event.write([(number, "red", 1, number), (number, "red", 1, number)], newest_us=(9 - number) * 1_000_000)
    assert sums() == (4, 8, 4)
    assert read_ledgers(connection)[stream].newest_at == datetime(1970, 1, 1, 0, 0, 9, tzinfo=UTC)
    event.write([(9, "blue", 1, 9)], 1, filtered=3)
    assert sums() == (5, 12, 5)
    assert compaction.compact(connection, stream, datetime(2100, 1, 1)) > 0
    assert sums() == (5, 12, 5)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO replays (stream, pipeline_version, selection, requested_by) VALUES (%s, 1, '{}', 'tests')",
            (stream,),
        )
        replay = replace(event.write_context, replay_id=int(cursor.lastrowid))
    batch = replace(event.batch([(0, "red", 1, 0)]), range=Range(0, 0, 1), delivered=frozenset({0}))
    write_batch(mariadb, event.pipeline, replay, batch)
    assert sums() == (5, 12, 5)
