"""Each kind of damage, done by hand, and the sentence that names it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from support.shop import make_shop
from support.writes import Writer
from tidemill.config import Account, Settings
from tidemill.store.connection import session
from tidemill.store.maintenance.compaction import compact
from tidemill.store.maintenance.verify import Offsets, record_verified, verify_snapshot
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.ledger_rows import Rejected
from tidemill.store.write.transaction import write_batch


def damage(settings: Settings, *statements: str) -> None:
    """Change the control plane behind the platform's back."""
    with session(settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
        for statement in statements:
            assert cursor.execute(statement), statement


def unchecked(settings: Settings, statement: str) -> None:
    """The same where the database itself would refuse."""
    with session(settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
        cursor.execute("SET check_constraint_checks = 0")
        assert cursor.execute(statement), statement


@pytest.fixture
def filled(entity: Writer) -> Writer:
    """A stream of two partitions with four commits, two quarantined records and a rollup of three groups."""
    entity.write([(1, "red", 5, 10), (2, None, 7, 10)])
    entity.write([(3, "blue", 1, 10)], rejected=(Rejected(3, "bad"),))
    entity.write([(4, "blue", 2, 10)], rejected=(Rejected(5, "worse"),))
    entity.write([(5, "red", 3, 10)], partition=1)
    assert entity.verify() == []
    return entity


def own(writer: Writer, where: str = "") -> str:
    """A condition on the stream's own rows of the control plane."""
    return f" WHERE stream = '{writer.pipeline.name}'" + (f" AND {where}" if where else "")


def test_a_commit_that_is_gone_leaves_a_hole(filled: Writer, mariadb: Settings) -> None:
    """The offsets are named that no commit accounts for, and the quarantined record without its commit."""
    damage(mariadb, "DELETE FROM commits" + own(filled, "partition_id = 0 AND from_offset = 2"))
    hole, stray = filled.verify()
    assert hole == "partition 0: offsets 2 to 4 are in no commit"
    assert "offset 3, is not of the commit that it names" in stray


def test_the_first_commit_is_missed_by_its_rows(filled: Writer, mariadb: Settings) -> None:
    """No chain shows it, but rows come from offsets that the ledger does not cover."""
    damage(mariadb, "DELETE FROM commits" + own(filled, "partition_id = 0 AND from_offset = 0"))
    [found] = filled.verify()
    assert found.endswith("a row of partition 0 has offset 0, the ledger begins at 2")


def test_the_last_commit_is_missed_by_the_position(filled: Writer, mariadb: Settings) -> None:
    """Where it was the only one of its partition, by its rows and their commit."""
    damage(mariadb, "DELETE FROM commits" + own(filled, "partition_id = 0 AND from_offset = 4"))
    assert filled.verify()[0] == "partition 0: the position is 6, the ledger ends at 4"
    damage(mariadb, "DELETE FROM commits" + own(filled, "partition_id = 1"))
    assert any("the ledger's newest is" in found for found in filled.verify())
    assert any("offset 0, the ledger has no commit of it" in found for found in filled.verify())


def test_a_commit_that_is_there_twice_overlaps(filled: Writer, mariadb: Settings) -> None:
    """And so does one that begins too early."""
    damage(
        mariadb,
        "INSERT INTO commits (stream, epoch, pipeline_version, batch_id, topic, partition_id, from_offset,"
        " until_offset, written_rows) SELECT stream, epoch, pipeline_version, batch_id, topic, partition_id, 1, 2, 1"
        " FROM commits" + own(filled, "from_offset = 2"),
    )
    assert filled.verify()[0] == "partition 0: offsets 1 to 2 are in two commits"


def test_a_commit_that_does_not_add_up(filled: Writer, mariadb: Settings) -> None:
    """The database refuses it; one that came past it is found."""
    unchecked(mariadb, "UPDATE commits SET written_rows = 9" + own(filled, "from_offset = 4"))
    assert "does not add up" in filled.verify()[0]


def test_a_position_that_was_moved(filled: Writer, mariadb: Settings) -> None:
    """Back or forth, and one that was taken away."""
    damage(mariadb, "UPDATE offsets SET position = 3" + own(filled, "partition_id = 1"))
    assert filled.verify() == ["partition 1: the position is 3, the ledger ends at 1"]
    damage(mariadb, "UPDATE offsets SET position = 1" + own(filled, "partition_id = 1"))
    damage(mariadb, "UPDATE offsets SET position = 4" + own(filled, "partition_id = 0"))
    first, *others = filled.verify()
    assert first == "partition 0: the position is 4, the ledger ends at 6"
    assert others[0].endswith("a row of partition 0 has offset 4, the stream's position is 4")
    damage(mariadb, "DELETE FROM offsets" + own(filled, "partition_id = 0"))
    assert filled.verify()[0] == "partition 0: the ledger ends at 6, and the stream has no position"


def test_a_quarantined_record_that_is_missing(filled: Writer, mariadb: Settings) -> None:
    """The commit is named that counted it, though another one has one too many."""
    damage(mariadb, "DELETE FROM quarantine" + own(filled, "record_offset = 5"))
    [found] = filled.verify()
    assert found.endswith("of offsets 4 to 6 counts 1 quarantined records, the quarantine has 0")
    damage(
        mariadb,
        "INSERT INTO quarantine (stream, topic, partition_id, record_offset, reason, pipeline_version, commit_id)"
        " SELECT stream, topic, partition_id, 2, reason, pipeline_version, commit_id FROM quarantine" + own(filled),
    )
    assert [found.rsplit("counts")[-1] for found in filled.verify()] == [
        " 1 quarantined records, the quarantine has 2",
        " 1 quarantined records, the quarantine has 0",
    ]


def test_a_rollup_that_was_changed_is_named_with_both_values(filled: Writer, mariadb: Settings) -> None:
    """The first group by its keys, NULL among them; a group too many and one too few."""
    rollup, schema = filled.rollup, mariadb.db_data
    damage(mariadb, f"UPDATE {schema}.{rollup} SET points = points + 1 WHERE team = 'red'")
    assert filled.verify() == [
        f"rollup {rollup}: group team = 'red' has points = 9, {filled.table} gives 8",
    ]
    damage(mariadb, f"UPDATE {schema}.{rollup} SET n = 4 WHERE team IS NULL")
    assert filled.verify() == [
        f"rollup {rollup}: group team = NULL has n = 4, {filled.table} gives 1; 2 groups differ",
    ]
    damage(mariadb, f"DELETE FROM {schema}.{rollup} WHERE team IS NULL")
    assert f"group team = NULL is missing, {filled.table} gives n = 1; 2 groups differ" in filled.verify()[0]
    damage(
        mariadb,
        f"DELETE FROM {schema}.{filled.table} WHERE team = 'blue'",
        f"DELETE FROM {schema}.{filled.table} WHERE team IS NULL",
    )
    assert f"group team = 'blue' has n = 2, {filled.table} has no row of it; 2 groups differ" in filled.verify()[0]


def test_a_rollup_under_construction_is_no_difference(filled: Writer, mariadb: Settings) -> None:
    """It is said, and compared once it is ready."""
    damage(
        mariadb,
        f"UPDATE {mariadb.db_data}.{filled.rollup} SET n = 9 WHERE team = 'red'",
        f"UPDATE rollups SET state = 'building', rows_built = 3 WHERE rollup = '{filled.rollup}'",
    )
    with session(mariadb, Account.READ) as connection:
        found = verify_snapshot(connection, mariadb, filled.pipeline)
    assert found.differences == ()
    assert found.notes == (
        f"rollup {filled.rollup} is being backfilled, 3 rows of {filled.table} are counted: not compared",
    )


def test_rows_that_no_commit_can_have_written(filled: Writer, mariadb: Settings) -> None:
    """Of a commit or an offset that is yet to come."""
    damage(mariadb, f"UPDATE {mariadb.db_data}.{filled.table} SET _commit = 4000000000, _offset = 77 WHERE id = 5")
    first, second = filled.verify()
    assert "has commit 4000000000, the ledger's newest is" in first
    assert second.endswith("has offset 77, the stream's position is 1")


def test_a_count_of_one_of_several_tables_that_is_wrong_or_missing(mariadb: Settings, tmp_path: Path) -> None:
    """The commit and the table are named; counts of a commit that is gone are, too."""
    shop = make_shop(mariadb, tmp_path)
    shop.write(("DE", 1, 5, 1), ("DE", 2, 0, 1))
    second = shop.write(("DE", 1, 6, 2))
    assert shop.verify() == []
    name = shop.pipeline.name
    this = f" WHERE commit_id = {second.commit_id} AND table_name = 'moves_{name}'"
    damage(mariadb, "UPDATE commit_tables SET stale_rows = 3" + this)
    assert shop.verify() == [
        f"partition 0: commit {second.commit_id} does not add up for table moves_{name}",
    ]
    damage(mariadb, "DELETE FROM commit_tables" + this)
    assert shop.verify() == [
        f"partition 0: commit {second.commit_id} has no counts of table moves_{name}",
    ]
    damage(mariadb, f"DELETE FROM commits WHERE id = {second.commit_id}")
    assert any(
        found == f"table stock_{name}: counts of commit {second.commit_id}, which the ledger does not know"
        for found in shop.verify()
    )


@pytest.mark.parametrize(
    ("starts", "ends", "sentence"),
    [
        ({0: 0, 1: 0, 2: 0, 3: 0}, {0: 6, 1: 1, 2: 0, 3: 0}, None),
        ({0: 0, 1: 0, 2: 0, 3: 0}, {0: 5, 1: 1, 2: 0, 3: 0}, "partition 0: the position is 6, Kafka ends at 5"),
        ({0: 0}, {0: 6, 1: 1, 2: 0}, "partition 3: the stream has a position, Kafka has no such partition"),
        (
            {0: 9, 1: 0, 2: 0, 3: 0},
            {0: 12, 1: 1, 2: 0, 3: 0},
            "partition 0: Kafka's retention removed offsets that the stream had not read: the position is 6, Kafka"
            " begins at 9, 3 offsets can no longer be read",
        ),
    ],
)
def test_the_position_lies_within_what_kafka_has(
    filled: Writer, starts: dict[int, int], ends: dict[int, int], sentence: str | None
) -> None:
    """Neither beyond its end nor before its beginning."""
    known = {"earliest": starts, "latest": ends}
    offsets: Offsets = known.__getitem__
    with session(filled.settings, Account.READ) as connection:
        found = verify_snapshot(connection, filled.settings, filled.pipeline, offsets)
    assert found.differences == ((sentence,) if sentence else ())


def test_kafka_s_end_is_asked_after_the_snapshot(filled: Writer) -> None:
    """A stream that goes on meanwhile is no difference."""

    def offsets(where: str) -> dict[int, int]:
        if where == "earliest":
            filled.write([(9, "red", 1, 11)])
        return {0: 7, 1: 1, 2: 0, 3: 0} if where == "latest" else {}

    with session(filled.settings, Account.READ) as connection:
        assert verify_snapshot(connection, filled.settings, filled.pipeline, offsets).differences == ()


def test_a_topic_that_was_made_again_begins_a_chain_of_its_own(filled: Writer, mariadb: Settings) -> None:
    """Offsets count from 0 again: rows of the topic before are not measured by its positions."""
    name, topic = filled.pipeline.name, filled.pipeline.source.topic
    [(newest,)] = filled.query(f"SELECT MAX(id) FROM {mariadb.db_control}.commits WHERE stream = '{name}'")
    damage(
        mariadb,
        f"INSERT INTO topics (stream, topic, topic_id, generation, since_commit)"
        f" VALUES ('{name}', '{topic}', 'b', 2, {newest})",
        "UPDATE offsets SET position = 0" + own(filled, "partition_id < 2"),
    )
    write_context = WriteContext(name, filled.epoch, filled.version, topic, generation=2, since_commit=int(newest))
    filled.positions.clear()
    batch = filled.batch([(7, "red", 1, 20)], rejected=(Rejected(1, "bad again"),))
    assert batch.range == Range(0, 0, 2)
    write_batch(mariadb, filled.pipeline, write_context, batch)
    assert filled.verify() == []
    damage(mariadb, "UPDATE commits SET from_offset = 1, written_rows = 0" + own(filled, "generation = 2"))
    assert any(found.endswith("has offset 0, the ledger begins at 1") for found in filled.verify())


def newer_differences(writer: Writer) -> list[str]:
    """What a verification finds that begins where the last one ended, as a command or a task runs it."""
    with session(writer.settings, Account.READ) as reading:
        findings = verify_snapshot(reading, writer.settings, writer.pipeline, whole=False)
    record_verified(writer.connection, writer.pipeline.name, findings)
    return list(findings.differences)


def test_a_verification_begins_where_the_last_one_ended(filled: Writer, mariadb: Settings) -> None:
    """It finds what is wrong since then, before and after compaction; --deep finds what is wrong before it, too."""
    assert newer_differences(filled) == []
    filled.write([(6, "red", 1, 20)], rejected=(Rejected(7, "bad"),))
    filled.write([(7, "red", 1, 20)])
    filled.write([(8, "red", 1, 20)])
    assert filled.verify() == newer_differences(filled) == []
    filled.write([(9, "red", 1, 20)], rejected=(Rejected(11, "bad"),))
    filled.write([(10, "red", 1, 20)])
    assert compact(filled.connection, filled.pipeline.name, dt.datetime(2100, 1, 1)) > 0
    assert newer_differences(filled) == []
    for _ in range(3):
        filled.write([(11, "red", 1, 20)], rejected=(Rejected(filled.positions[0] + 1, "bad"),))
    damage(mariadb, "DELETE FROM quarantine" + own(filled, "record_offset = 14"))
    [missing] = newer_differences(filled)
    assert missing.endswith("counts 1 quarantined records, the quarantine has 0")
    damage(mariadb, "DELETE FROM commits" + own(filled, "from_offset = 15"))
    assert "partition 0: offsets 15 to 17 are in no commit" in newer_differences(filled)
    damage(mariadb, "DELETE FROM commits" + own(filled, "from_offset = 13"))
    assert "partition 0: offsets 13 to 17 are in no commit" in newer_differences(filled)


def test_a_difference_before_the_last_verification_is_found_by_a_whole_one(filled: Writer, mariadb: Settings) -> None:
    """And not by one that begins after it; sums that are not those of the commits are such a difference."""
    assert newer_differences(filled) == []
    damage(mariadb, "UPDATE ledger_sums SET written_rows = written_rows + 1" + own(filled, "partition_id = 1"))
    assert newer_differences(filled) == []
    assert filled.verify() == [
        "partition 1: the sums of the ledger, 1 offsets, are not those of its commits, 1 offsets"
    ]
    damage(mariadb, "DELETE FROM commits" + own(filled, "from_offset = 2"))
    assert newer_differences(filled) == []
    assert "partition 0: offsets 2 to 4 are in no commit" in filled.verify()
