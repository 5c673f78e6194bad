"""Upkeep beside running writers: what it shortens keeps its sums, and what it removes leaves no trace in them."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.shop import Shop, make_shop
from support.writes import EPOCH, Writer
from tidemill.config import Account, Settings
from tidemill.spec import load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import ledger
from tidemill.store.maintenance import compaction, retention
from tidemill.store.maintenance.compaction import compact as put_together
from tidemill.store.maintenance.retention import MaintainedTable, remove_old_rows
from tidemill.store.maintenance.rollup_backfill import backfill_all
from tidemill.store.maintenance.run import MaintenanceResult, maintain
from tidemill.store.migrations import apply_pipeline
from tidemill.store.write.ledger_rows import Rejected
from tidemill.store.write.transaction import write_batch

DAY = 86_400
LATER = dt.datetime(2100, 1, 1)
"""A day by which everything is old."""


def control(settings: Settings, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read or change the control plane."""
    with session(settings, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def age(writer: Writer | Shop, days: int, table: str = "commits", column: str = "committed_at") -> None:
    """Let all that a stream has done up to now be some days old."""
    control(
        writer.settings,
        f"UPDATE {table} SET {column} = {column} - INTERVAL %s DAY WHERE stream = %s",
        days,
        writer.pipeline.name,
    )


def keep_all(writer: Writer | Shop, **options: bool) -> MaintenanceResult:
    """Do a stream's maintenance."""
    with session(writer.settings, Account.STREAM) as connection:
        return maintain(connection, writer.settings, writer.pipeline, **options)


def totals(writer: Writer | Shop) -> ledger.Totals:
    """The stream's ledger, added up."""
    with session(writer.settings, Account.READ) as connection:
        return ledger.totals(connection, writer.pipeline.name)


def commits(writer: Writer | Shop) -> list[tuple[Any, ...]]:
    """The ledger's rows as ``(partition, from, until, merged, replay)``."""
    return control(
        writer.settings,
        "SELECT partition_id, from_offset, until_offset, merged_commits, replay_id FROM commits WHERE stream = %s"
        " ORDER BY replay_id, partition_id, generation, from_offset",
        writer.pipeline.name,
    )


def with_retention(writer: Writer, days: int) -> None:
    """Give the writer's table a retention by ``seen`` that ends so many days after the tests' epoch, as of now."""
    path = writer.pipeline.folder / "pipeline.yaml"
    content = yaml.safe_load(path.read_text())
    since = (dt.datetime.now(dt.UTC).replace(tzinfo=None) - EPOCH).days - days
    content["tables"][writer.table]["retention"] = {"column": "seen", "days": since}
    path.write_text(yaml.safe_dump(content))
    writer.pipeline = load_pipeline(writer.pipeline.folder)
    with session(writer.settings, Account.MIGRATE) as connection:
        writer.version = apply_pipeline(connection, writer.settings, writer.pipeline)
    writer.acquire_lease()


@contextmanager
def writing(writer: Writer) -> Iterator[None]:
    """Meanwhile the stream writes to partition 3, at least five commits: new rows, newer, stale and bad ones."""
    stop, failed, made = threading.Event(), list[BaseException](), itertools.count()

    def write() -> None:
        try:
            while not stop.is_set() or next(made) < 5:
                second = 100 * DAY + next(made)
                rows = [(key, "blue", second % 5, second - key % 3) for key in range(second % 7, 400, 4)]
                bad = (Rejected(writer.positions.get(3, 0) + len(rows), "bad"),)
                writer.write(rows, 3, rejected=bad)
        except BaseException as error:  # told in the test's own thread
            failed.append(error)
            raise

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed


def many_commits(writer: Writer, number: int = 20) -> None:
    """Commits to two partitions, with all sorts of outcome in them."""
    for turn in range(number):
        rows = [(turn, "red", turn, 10), (turn + 1, None, 1, 9), (1_000 + turn, "green", 2, 10)]
        bad = Rejected(writer.positions.get(turn % 2, 0) + 3, "bad")
        writer.write(rows, turn % 2, rejected=(bad,), filtered=2, gap=turn % 3, newest_us=turn * 1_000_000)


def test_old_commits_are_put_together_beside_the_stream(
    entity: Writer, mariadb: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row a partition and its newest commit; all sums stay, and verification agrees at every instant."""
    monkeypatch.setattr(compaction, "STEP_COMMITS", 4)
    many_commits(entity)
    age(entity, 31)
    before = totals(entity)
    assert keep_all(entity, dry_run=True).merged_commits == 16
    assert totals(entity) == before
    with writing(entity):
        assert keep_all(entity).merged_commits == 16
        assert entity.verify() == []
    found = [row for row in commits(entity) if row[0] < 2]
    ends = [entity.positions[0], entity.positions[1]]
    assert [(p, start, merged) for p, start, _, merged, _ in found if start == 0] == [(0, 0, 9), (1, 0, 9)]
    assert [(p, until, merged) for p, start, until, merged, _ in found if start] == [(0, ends[0], 1), (1, ends[1], 1)]
    assert entity.verify() == []
    control(mariadb, "DELETE FROM quarantine WHERE stream = %s AND partition_id = 3", entity.pipeline.name)
    control(mariadb, "DELETE FROM commits WHERE stream = %s AND partition_id = 3", entity.pipeline.name)
    control(mariadb, "DELETE FROM ledger_sums WHERE stream = %s AND partition_id = 3", entity.pipeline.name)
    assert totals(entity) == before
    assert keep_all(entity).merged_commits == 0


def test_what_a_driver_or_a_reader_may_ask_for_is_not_put_together(entity: Writer, mariadb: Settings) -> None:
    """Young commits, another pipeline version, another generation of the topic, what does not adjoin."""
    name = entity.pipeline.name
    for _ in range(3):
        entity.write([(1, "red", 5, 10)])
    control(
        mariadb, "UPDATE commits SET pipeline_version = 9 WHERE stream = %s AND from_offset = 1", entity.pipeline.name
    )
    age(entity, 31)
    for _ in range(3):
        entity.write([(1, "red", 5, 10)])
    assert keep_all(entity).merged_commits == 0
    age(entity, 31)
    control(mariadb, "UPDATE commits SET generation = 2 WHERE stream = %s AND from_offset = 4", name)
    assert keep_all(entity).merged_commits == 1
    assert [(start, until) for _, start, until, _, _ in commits(entity)] == [(0, 1), (1, 2), (2, 4), (5, 6), (4, 5)]


def test_upkeep_that_dies_between_two_steps_is_gone_on_with(
    entity: Writer, mariadb: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done stays done, the step under way is undone, and the next run finishes."""
    monkeypatch.setattr(compaction, "STEP_COMMITS", 3)
    many_commits(entity)
    age(entity, 31)
    before, real, steps = totals(entity), compaction._move_details, itertools.count(1)

    def die(*arguments: Any) -> None:
        real(*arguments)
        if next(steps) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "_move_details", die)
        with pytest.raises(KeyboardInterrupt), session(mariadb, Account.STREAM) as connection:
            put_together(connection, entity.pipeline.name, LATER)
    assert len(commits(entity)) == 16
    assert entity.verify() == []
    assert totals(entity) == before
    assert keep_all(entity).merged_commits == 12
    assert entity.verify() == []
    assert totals(entity) == before


def test_two_at_once_do_not_add_up_twice(entity: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command beside the DAG: each row is put together by one of them."""
    monkeypatch.setattr(compaction, "STEP_COMMITS", 3)
    many_commits(entity, 40)
    age(entity, 31)
    before, done = totals(entity), list[int]()
    both = [threading.Thread(target=lambda: done.append(keep_all(entity).merged_commits)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    keep_all(entity)
    assert len(done) == 2
    assert len(commits(entity)) == 4
    assert totals(entity) == before
    assert entity.verify() == []


def test_a_replay_is_put_together_once_it_is_done(entity: Writer, mariadb: Settings) -> None:
    """One that may be run again recognises its commits, and a quarantined record its commit."""
    entity.write([(1, "red", 5, 10)], rejected=(Rejected(1, "bad"),))
    entity.write([(2, "red", 5, 10)], rejected=(Rejected(3, "bad"),))
    name = entity.pipeline.name
    for state in ("failed", "done"):
        control(
            mariadb,
            "INSERT INTO replays (stream, pipeline_version, selection, requested_by, state)"
            " VALUES (%s, 1, '{}', 'x', %s)",
            name,
            state,
        )
        [(replay,)] = control(mariadb, "SELECT MAX(id) FROM replays WHERE stream = %s", name)
        write_context = replace(entity.write_context, replay_id=int(replay))
        entity.positions[0] = 0
        for row in ((1, "red", 5, 10), (2, "red", 5, 10)):
            batch = replace(entity.batch([row, (50, "red", 1, 9)]), delivered=frozenset(range(4)))
            write_batch(mariadb, entity.pipeline, write_context, batch)
            entity.positions[0] = batch.range.until
    age(entity, 31)
    assert keep_all(entity).merged_commits == 1
    merged = {replay: sum(1 for row in commits(entity) if row[4] == replay) for *_, replay in commits(entity)}
    assert sorted(merged.values()) == [1, 2, 2]
    assert entity.verify() == []
    [(resolved,)] = control(
        mariadb,
        "SELECT COUNT(*) FROM quarantine AS q JOIN commits AS c ON c.id = q.resolved_commit WHERE q.stream = %s",
        name,
    )
    assert resolved == 2


def test_counts_of_several_tables_are_put_together_too(mariadb: Settings, tmp_path: Path) -> None:
    """Each table's counts add up to those of the commits that became one."""
    shop = make_shop(mariadb, tmp_path)
    for second in range(6):
        shop.write(("DE", second % 2, second % 3, second), ("FR", 1, 1, 1), ("DE", 7))
    statement = (
        "SELECT t.table_name, SUM(t.written_rows), SUM(t.duplicate_rows), SUM(t.stale_rows), SUM(t.filtered_rows)"
        " FROM commit_tables AS t JOIN commits AS c ON c.id = t.commit_id WHERE c.stream = %s GROUP BY t.table_name"
    )
    before = control(mariadb, statement, shop.pipeline.name)
    age(shop, 31)
    assert keep_all(shop).merged_commits == 4
    assert control(mariadb, statement, shop.pipeline.name) == before
    assert shop.verify() == []


def test_deletion_markers_stay_as_long_as_the_quarantine(mariadb: Settings, tmp_path: Path) -> None:
    """A quarantined record that is replayed must not bring a deleted row back; after that the marker may go."""
    shop = make_shop(mariadb, tmp_path)
    shop.write(("DE", 1, 5, 1), ("DE", 1), ("DE", 2))
    age(shop, 60)
    shop.write(("DE", 3, 5, 1), ("DE", 3))
    markers = "SELECT country, code FROM _deleted_stock_{} ORDER BY country, code"
    assert keep_all(shop).removed_markers == {f"stock_{shop.pipeline.name}": 0}
    age(shop, 31)
    assert len(shop.query(markers)) == 3
    assert keep_all(shop, dry_run=True).removed_markers == {f"stock_{shop.pipeline.name}": 2}
    assert keep_all(shop).removed_markers == {f"stock_{shop.pipeline.name}": 2}
    assert shop.query(markers) == [("DE", 3)]
    assert shop.verify() == []


def test_rows_leave_when_their_retention_ends_and_take_their_part_in_the_rollups(
    entity: Writer, mariadb: Settings
) -> None:
    """Beside a stream that rewrites some of them meanwhile: those stay."""
    entity.write([(key, "red", 1, key // 10 * DAY + DAY - 1) for key in range(1_000)])
    with_retention(entity, 50)
    cutoff = EPOCH + dt.timedelta(days=50)
    assert keep_all(entity, dry_run=True).removed_rows == {entity.table: 500}
    with session(mariadb, Account.STREAM) as connection, writing(entity):
        place = MaintainedTable(connection, mariadb.db_data, entity.pipeline, entity.table, entity.version)
        removed = remove_old_rows(place, cutoff, rows=7)
        assert entity.verify() == []
        assert remove_old_rows(place, cutoff) == 0
    assert 100 <= removed <= 500
    assert entity.query(f"SELECT COUNT(*) FROM {entity.table} WHERE seen < '{cutoff}'") == [(0,)]
    assert entity.query(f"SELECT COUNT(*) FROM {entity.table} WHERE seen >= '{cutoff}' AND team = 'red'")[0][0] <= 500
    assert entity.verify() == []


def test_a_retention_goes_through_keys_of_several_columns(mariadb: Settings, tmp_path: Path) -> None:
    """In steps, each of which goes on after the key that the last one reached."""
    shop = make_shop(mariadb, tmp_path, retention={"column": "seen", "days": 30})
    shop.write(*((country, code, code + 1, code * DAY) for country in ("DE", "FR") for code in range(20)))
    name = f"moves_{shop.pipeline.name}"
    with session(mariadb, Account.STREAM) as connection:
        place = MaintainedTable(connection, mariadb.db_data, shop.pipeline, name, shop.write_context.pipeline_version)
        assert remove_old_rows(place, EPOCH + dt.timedelta(days=15), rows=4) == 30
    assert shop.query("SELECT country, MIN(code), COUNT(*) FROM moves_{} GROUP BY country") == [
        ("DE", 15, 5),
        ("FR", 15, 5),
    ]
    assert shop.query("SELECT country, moved FROM r_moves_{} ORDER BY country") == [("DE", 90), ("FR", 90)]
    assert shop.query("SELECT COUNT(*) FROM stock_{}") == [(40,)]
    assert shop.verify() == []


def test_a_retention_beside_a_rollup_under_construction(entity: Writer, mariadb: Settings) -> None:
    """Rows that construction has counted leave it, others never come to be counted."""
    entity.write([(key, "red", 1, key % 100 * DAY) for key in range(600)])
    path = entity.pipeline.folder / "pipeline.yaml"
    content = yaml.safe_load(path.read_text())
    late = f"late_{entity.pipeline.name}"
    content["rollups"][late] = content["rollups"][entity.rollup]
    path.write_text(yaml.safe_dump(content))
    with_retention(entity, 50)
    steps = itertools.count()
    assert backfill_all(mariadb, entity.pipeline, entity.epoch, lambda: next(steps) < 3, rows=60) == []
    with session(mariadb, Account.STREAM) as connection:
        place = MaintainedTable(connection, mariadb.db_data, entity.pipeline, entity.table, entity.version)
        assert remove_old_rows(place, EPOCH + dt.timedelta(days=50), rows=100) == 300
    assert backfill_all(mariadb, entity.pipeline, entity.epoch, lambda: True, rows=60) == [late]
    assert entity.query(f"SELECT team, n FROM {late}") == [("red", 300)]
    assert entity.verify() == []


def test_a_folder_that_is_not_applied_removes_no_rows(entity: Writer, mariadb: Settings) -> None:
    """Nor does one that was applied before the last: it may not know all rollups."""
    entity.write([(1, "red", 1, 0)])
    with_retention(entity, 50)
    old = entity.pipeline
    with_retention(entity, 51)
    entity.pipeline, newer = old, entity.pipeline
    assert "has unapplied changes" in keep_all(entity).notes[0]
    entity.pipeline = newer.model_copy(update={"digest": "0" * 64})
    assert "has unapplied changes" in keep_all(entity).notes[0]
    assert len(entity.rows()) == 1
    entity.pipeline = newer
    assert keep_all(entity).removed_rows == {entity.table: 1}


def test_the_quarantine_forgets_what_is_old(entity: Writer, mariadb: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the stream; the commits remember how many it was. Not while a replay may want them."""
    monkeypatch.setattr(retention, "BATCH_RECORDS", 3)
    many_commits(entity)
    age(entity, 91, "quarantine", "quarantined_at")
    name = entity.pipeline.name
    control(
        mariadb,
        "INSERT INTO replays (stream, pipeline_version, selection, requested_by) VALUES (%s, 1, '{}', 'x')",
        name,
    )
    assert "a replay is running" in keep_all(entity).notes[0]
    control(mariadb, "UPDATE replays SET state = 'done' WHERE stream = %s", name)
    assert keep_all(entity, dry_run=True).purged_records == 20
    with writing(entity):
        assert keep_all(entity).purged_records == 20
    assert entity.verify() == []
    found = control(
        mariadb,
        "SELECT SUM(quarantined_rows), SUM(purged_rows) FROM commits WHERE stream = %s AND partition_id < 2",
        name,
    )
    assert found == [(20, 20)]
    age(entity, 31)
    assert keep_all(entity).merged_commits > 16
    assert entity.verify() == []
