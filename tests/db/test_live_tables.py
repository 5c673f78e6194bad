"""A table that somebody has altered is found at the driver's start, by ``plan``, ``apply`` and ``verify``."""

from __future__ import annotations

import pytest

from support.databases import root
from support.errors import coded
from support.writes import Writer
from tidemill.config import Account
from tidemill.errors import StructureError
from tidemill.store.connection import drop_worker_connection, session
from tidemill.store.live_tables import check_tables, differences
from tidemill.store.migrations import apply_pipeline

TABLE, ROLLUP = "{data}.t_{name}", "{data}.r_{name}"
ALTERED = {
    "unique index": (TABLE, "ADD UNIQUE INDEX one_each (points)", "has UNIQUE KEY `one_each`"),
    "another key": (TABLE, "DROP PRIMARY KEY, ADD PRIMARY KEY (id, seen)", "lacks PRIMARY KEY (`id`)"),
    "no key": (TABLE, "DROP PRIMARY KEY", "lacks PRIMARY KEY (`id`)"),
    "type": (TABLE, "MODIFY points BIGINT", "has `points` bigint"),
    "sign": (TABLE, "MODIFY points INT UNSIGNED", "has `points` int(10) unsigned"),
    "length": (TABLE, "MODIFY team VARCHAR(4)", "has `team` varchar(4)"),
    "precision": (TABLE, "MODIFY seen DATETIME NOT NULL", "has `seen` datetime"),
    "collation of a column": (TABLE, "MODIFY team VARCHAR(8) COLLATE utf8mb4_general_ci", "COLLATE utf8mb4_general_ci"),
    "collation of the table": (TABLE, "CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", "general_ci"),
    "character set": (TABLE, "MODIFY team VARCHAR(8) CHARACTER SET latin1", "CHARACTER SET latin1"),
    "NOT NULL": (TABLE, "MODIFY points INT NOT NULL", "has `points` int(11) NOT NULL"),
    "default": (TABLE, "ALTER COLUMN points SET DEFAULT 7", "DEFAULT 7"),
    "on update": (TABLE, "MODIFY seen DATETIME(6) NOT NULL ON UPDATE CURRENT_TIMESTAMP(6)", "ON UPDATE"),
    "generated column": (TABLE, "MODIFY points INT AS (id * 2) STORED", "GENERATED ALWAYS AS"),
    "extra column": (TABLE, "ADD COLUMN more INT NULL", "has `more` int(11)"),
    "missing column": (TABLE, "DROP COLUMN points", "lacks `points` int(11)"),
    "CHECK": (TABLE, "ADD CONSTRAINT few CHECK (points < 1000)", "has CONSTRAINT `few` CHECK"),
    "engine": (TABLE, "ENGINE = Aria", "ENGINE=Aria"),
    "partitions": (TABLE, "PARTITION BY HASH (id) PARTITIONS 2", "PARTITION BY HASH"),
    "comment": (TABLE, "COMMENT = ''", "lacks ) ENGINE=InnoDB"),
    "measure": (ROLLUP, "MODIFY n INT NOT NULL", "has `n` int(11) NOT NULL"),
    "group key": (ROLLUP, "MODIFY team VARCHAR(2)", "has `team` varchar(2)"),
    "unique index of a rollup": (ROLLUP, "ADD UNIQUE INDEX one_each (n)", "has UNIQUE KEY `one_each`"),
    "generation": (ROLLUP, "ADD COLUMN more INT AS (n + 1) VIRTUAL", "GENERATED ALWAYS AS"),
}


@pytest.mark.parametrize(("table", "change", "shown"), ALTERED.values(), ids=ALTERED)
def test_an_altered_table_is_found_everywhere(entity: Writer, table: str, change: str, shown: str) -> None:
    """The sentence names the table and what it has or lacks. ``verify`` and ``plan`` read as the account that may only
    read, a driver's start as that of the stream, and ``apply`` refuses."""
    place = table.format(data=entity.settings.db_data, name=entity.pipeline.name)
    with root(entity.settings) as run:
        run(f"ALTER TABLE {place} {change}")
    with session(entity.settings, Account.READ) as connection:
        (difference,) = differences(connection, entity.settings, entity.pipeline)
    assert difference.startswith(f"table {place.partition('.')[2]} differs from its declaration")
    assert shown in difference
    with session(entity.settings, Account.STREAM) as connection, pytest.raises(StructureError) as raised:
        check_tables(connection, entity.settings, entity.pipeline)
    assert raised.value.value == difference
    with session(entity.settings, Account.MIGRATE) as connection, pytest.raises(Exception, match="TM-STORE"):
        apply_pipeline(connection, entity.settings, entity.pipeline)


def test_verify_names_an_altered_table_first(entity: Writer) -> None:
    """Before anything else it finds; a table that is as declared has no difference."""
    entity.write([(1, "red", 10, 1)])
    assert entity.verify() == []
    with root(entity.settings) as run:
        run(f"ALTER TABLE {entity.settings.db_data}.{entity.table} ADD UNIQUE INDEX one_each (points)")
    assert [each.partition(":")[0] for each in entity.verify()] == [
        f"table {entity.table} differs from its declaration"
    ]


def test_a_trigger_is_found_by_apply(entity: Writer) -> None:
    """Only its account may see triggers."""
    place = f"{entity.settings.db_data}.{entity.table}"
    with root(entity.settings) as run:
        run(f"CREATE TRIGGER {place}_doubles BEFORE INSERT ON {place} FOR EACH ROW SET NEW.points = NEW.points * 2")
    with session(entity.settings, Account.MIGRATE) as connection:
        differs = coded("TM-STORE-TABLE-DIFFERS")
        with pytest.raises(StructureError, match="has the trigger", check=differs):
            apply_pipeline(connection, entity.settings, entity.pipeline)


def test_an_index_that_is_not_unique_is_no_difference(entity: Writer) -> None:
    """It decides nothing about a row."""
    with root(entity.settings) as run:
        run(f"ALTER TABLE {entity.settings.db_data}.{entity.table} ADD INDEX by_points (points)")
    assert entity.verify() == []


@pytest.mark.parametrize("kind", ["entity", "event"])
@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("ADD UNIQUE INDEX one_each (points)", "DROP INDEX one_each"),
        ("ADD CONSTRAINT few CHECK (points < 20)", "DROP CONSTRAINT few"),
        ("MODIFY points TINYINT", "MODIFY points INT"),
    ],
)
def test_a_table_that_is_altered_under_a_running_stream_loses_no_row(
    request: pytest.FixtureRequest, kind: str, change: str, back: str
) -> None:
    """The commit is refused with the table's name, nothing is quarantined, and altered back, every row is written."""
    writer: Writer = request.getfixturevalue(kind)
    place = f"{writer.settings.db_data}.{writer.table}"
    rows = [(1, "red", 10, 1), (2, "red", 200, 1), (3, "blue", 10, 1)]
    writer.write(rows[:1])
    with root(writer.settings) as run:
        run(f"ALTER TABLE {place} {change}")
        drop_worker_connection(writer.settings)
        with pytest.raises(StructureError, match=f"table {writer.table}"):
            writer.write(rows[1:])
        run(f"ALTER TABLE {place} {back}")
    drop_worker_connection(writer.settings)
    assert writer.write(rows[1:]).written == 2
    assert writer.rows() == rows
    assert writer.groups() == {"red": (2, 210), "blue": (1, 10)}
    assert writer.verify() == []
