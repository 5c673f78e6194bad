"""Rows that their table takes and a rollup cannot count, or that cannot even be sent, are set aside by themselves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from tidemill.config import Account, Settings
from tidemill.errors import StoreError
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import drop_worker_connection, session, worker_connection
from tidemill.store.control import leases, ledger, streams
from tidemill.store.maintenance.verify import verify
from tidemill.store.migrations import apply_pipeline, migrate_control
from tidemill.store.write import bulk_load
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.transaction import Batch, Counts, Rejected, write_batch

LARGEST = 2**63 - 1
COLUMNS = {"id": "BIGINT NOT NULL", "at": "BIGINT NOT NULL", "n": "BIGINT", "o": "VARCHAR(8)"}
ARROW = {"id": pa.int64(), "at": pa.int64(), "n": pa.int64(), "o": pa.string()}


@dataclass
class Counted:
    """Tables of rows ``(id, at, n, o)``, with a rollup over the first."""

    settings: Settings
    pipeline: Pipeline
    write_context: WriteContext
    types: dict[str, pa.DataType] = field(default_factory=lambda: dict(ARROW))
    position: int = 0

    def write(self, *rows: tuple[Any, ...], **other: Any) -> Counts:
        """Commit rows to all tables."""
        until = self.position + len(rows)
        columns = {name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(self.types.items())}
        table = pa.table(columns | {"_offset": pa.array(range(self.position, until), pa.int64())})
        batch = Batch(self.position, Range(0, self.position, until), rows=dict.fromkeys(self.pipeline.tables, table))
        counts = write_batch(self.settings, self.pipeline, self.write_context, batch, **other)
        self.position = until
        return counts

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query; ``{}`` is the stream's name."""
        place = self.settings.db_data
        with session(self.settings, Account.READ, schema=place) as connection, connection.cursor() as cursor:
            cursor.execute(sql.format(self.pipeline.name, control=self.settings.db_control))
            return list(cursor.fetchall())

    def reasons(self) -> dict[int, str]:
        """Offset -> why it was set aside."""
        return dict(self.query("SELECT record_offset, reason FROM {control}.quarantine WHERE stream = '{}'"))

    def ids(self, table: str = "t_{}") -> list[int]:
        """The keys in a table."""
        return [row[0] for row in self.query(f"SELECT id FROM {table} ORDER BY id")]

    def verify(self) -> list[str]:
        """What does not agree."""
        with session(self.settings, Account.READ) as connection:
            return verify(connection, self.settings, self.pipeline)


Maker = Callable[..., Counted]


@pytest.fixture
def counted(mariadb: Settings, tmp_path: Path) -> Maker:
    """A function that makes an entity with a rollup of given keys and measures."""

    def make(
        measures: dict[str, str], by: tuple[str, str] = ("o", "VARCHAR(8)"), *, other: bool = False, **columns: str
    ) -> Counted:
        name = f"unfit{random.randrange(10**9)}"
        table = {"from": "t.sql", "kind": "entity", "key": ["id"], "version": "at", "columns": COLUMNS | columns}
        content = {
            "name": name,
            "owner": "tests",
            "source": {"topic": name, "schema": ", ".join(f"{column} STRING" for column in table["columns"])},
            "tables": {f"t_{name}": table} | ({f"u_{name}": table} if other else {}),
            "rollups": {
                f"r_{name}": {"of": f"t_{name}", "by": {"k": {"expr": by[0], "type": by[1]}}, "measures": measures}
            },
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / "pipeline.yaml").write_text(yaml.safe_dump(content))
        (tmp_path / name / "t.sql").write_text(f"SELECT {', '.join(table['columns'])} FROM records")
        pipeline = load_pipeline(tmp_path / name)
        with session(mariadb, Account.MIGRATE) as connection:
            migrate_control(connection, mariadb.root / "sql")
            version = apply_pipeline(connection, mariadb, pipeline)
        with session(mariadb, Account.STREAM) as connection:
            streams.request_state(connection, name, "running", "a test")
            ledger.begin_at(connection, name, name, {0: 0})
            epoch = leases.acquire_lease(connection, name, version, "a test")
        return Counted(mariadb, pipeline, WriteContext(name, epoch, version, name))

    return make


def test_sums_outgrow_no_column(counted: Maker) -> None:
    """The largest numbers of a BIGINT add up, leave their group again, and come back."""
    table = counted({"c": "count(*)", "m": "sum(n)"})
    table.write((1, 1, LARGEST, "a"), (2, 1, LARGEST, "a"), (3, 1, -LARGEST - 1, "b"), (4, 1, -LARGEST - 1, "b"))
    assert table.query("SELECT k, c, m FROM r_{} ORDER BY k") == [("a", 2, 2 * LARGEST), ("b", 2, -2 * LARGEST - 2)]
    counts = table.write((1, 2, 1, "a"), (3, 2, LARGEST, "b"))
    assert counts.written == 2
    assert table.query("SELECT k, m FROM r_{} ORDER BY k") == [("a", LARGEST + 1), ("b", -1)]
    assert table.verify() == []


def test_an_unsigned_number_leaves_its_group(counted: Maker) -> None:
    """The opposite of a large UNSIGNED number is no BIGINT, and is taken away all the same."""
    table = counted({"m": "sum(n)"}, n="BIGINT UNSIGNED")
    table.types["n"] = pa.uint64()
    table.write((1, 1, 2**64 - 1, "a"), (2, 1, 2**64 - 1, "a"))
    table.write((1, 2, 1, "a"))
    assert table.query("SELECT m FROM r_{}") == [(2**64,)]
    assert table.verify() == []


def test_decimals_keep_all_their_digits(counted: Maker) -> None:
    """Commit by commit, a sum equals that of its query to the last digit."""
    table = counted({"m": "sum(d)", "q": "sum(d * d)"}, d="DECIMAL(20,12)")
    table.types["d"] = pa.string()
    for number in range(3):
        table.write((number, 1, 0, "a", "0.000000000001"))
    [found] = table.query("SELECT m, q FROM r_{}")
    assert [f"{value:f}" for value in found] == ["0.000000000003", "0.000000000000000000000003"]
    assert table.verify() == []


CASES: list[tuple[dict[str, str], tuple[str, str], tuple[Any, ...], str]] = [
    ({"m": "sum(n * n)"}, ("o", "VARCHAR(8)"), (LARGEST, "5"), "BIGINT value is out of range"),
    ({"m": "count(*)"}, ("10 DIV n", "INT"), (0, "5"), "Division by 0"),
    ({"m": "sum(o > 15)"}, ("n", "BIGINT"), (7, "abc"), "Truncated incorrect"),
    ({"m": "count(*)"}, ("n", "INT"), (LARGEST, "5"), "Out of range value for column 'k'"),
    ({"m": "count(*)"}, ("n", "MEDIUMINT UNSIGNED"), (-1, "5"), "Out of range value for column 'k'"),
    ({"m": "count(*)"}, ("n", "BIGINT UNSIGNED"), (-1, "5"), "Out of range value for column 'k'"),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]['m']} by {c[1]}" for c in CASES])
def test_a_row_that_no_rollup_can_count_is_set_aside(
    counted: Maker, case: tuple[dict[str, str], tuple[str, str], tuple[Any, ...], str]
) -> None:
    """It alone goes to quarantine, with the rollup's name and the database's reason; the stream goes on."""
    measures, by, bad, reason = case
    table = counted(measures, by)
    fits = [(i, 1, 2, "20") for i in range(6)]
    # The row with id 1 would be an update; that with id 2 is stale, and stays so.
    assert table.write(*fits[:3]).written == 3
    counts = table.write(*fits[3:5], (7, 1, *bad), fits[5], (1, 2, *bad), (2, 0, *bad), (8, 1, 3, "20"))
    assert (counts.written, counts.stale, counts.quarantined) == (4, 1, 2)
    assert table.ids() == [0, 1, 2, 3, 4, 5, 8]
    assert table.query("SELECT at FROM t_{} WHERE id = 1") == [(1,)]
    assert table.reasons().keys() == {5, 7}
    rollup = f"rollup r_{table.pipeline.name}: "
    assert all(said.startswith(rollup) and reason in said for said in table.reasons().values()), table.reasons()
    assert all("at row" not in said for said in table.reasons().values())
    assert table.verify() == []


def test_an_older_row_that_fits_is_not_lost_with_a_newer_one_that_does_not(counted: Maker) -> None:
    """Of each key the newest row that fits is written; what is behind it is stale whether it would fit or not."""
    table = counted({"m": "count(*)"}, ("10 DIV n", "INT"))
    counts = table.write(
        (1, 1, 0, "a"), (1, 2, 5, "fits"), (1, 3, 0, "c"), (1, 4, 0, "d"), (2, 1, 0, "e"), (2, 2, 2, "too long for it")
    )
    assert (counts.written, counts.stale, counts.quarantined) == (1, 1, 4)
    assert table.query("SELECT id, o FROM t_{}") == [(1, "fits")]
    reasons = table.reasons()
    assert reasons.keys() == {2, 3, 4, 5}
    assert "column 'o'" in reasons[5]
    assert table.verify() == []


def test_it_goes_to_none_of_several_tables_and_its_bytes_are_kept(counted: Maker) -> None:
    """A record is in all of its tables or in the quarantine, as Kafka holds it."""
    table = counted({"m": "count(*)"}, ("10 DIV n", "INT"), other=True)

    def raw(offsets: Iterable[int]) -> Iterator[Rejected]:
        return (Rejected(offset, "", value=b"as it was") for offset in offsets)

    counts = table.write((1, 1, 1, "a"), (2, 1, 0, "b"), (3, 1, 2, "c"), read_raw=raw)
    assert (counts.written, counts.quarantined) == (2, 1)
    assert table.ids("t_{}") == table.ids("u_{}") == [1, 3]
    assert table.query("SELECT record_value FROM {control}.quarantine WHERE stream = '{}'") == [(b"as it was",)]
    assert table.verify() == []


def test_many_among_many(counted: Maker) -> None:
    """Every tenth of 2,500 rows is found."""
    table = counted({"m": "count(*)"}, ("10 DIV n", "INT"))
    counts = table.write(*((i, 1, i % 10 if i % 100 else 0, "a") for i in range(2_500) if i % 10 or not i % 100))
    assert (counts.written, counts.quarantined) == (2_250, 25)
    assert table.verify() == []


def test_what_is_no_rows_fault_stops_the_stream(counted: Maker) -> None:
    """Where no row is to blame the database's own error is raised, and nothing is written."""
    table = counted({"m": "count(*)"})
    with session(table.settings, Account.MIGRATE, schema=table.settings.db_data) as connection:
        connection.cursor().execute(f"ALTER TABLE t_{table.pipeline.name} ADD COLUMN more INT NOT NULL")
    with pytest.raises(StoreError, match="more"):
        table.write((1, 1, 1, "a"))
    assert table.ids() == []


@pytest.mark.parametrize("files", [True, False])
def test_a_value_that_cannot_be_written_is_set_aside(counted: Maker, files: bool) -> None:
    """A time beyond the year 9999 inside a struct has no JSON: its row goes, whichever way rows go."""
    table = counted({"m": "count(*)"}, v="JSON")
    table.types["v"] = pa.struct({"at": pa.list_(pa.timestamp("us", "UTC"))})
    drop_worker_connection(table.settings)
    if not files:
        bulk_load._without_files.add(worker_connection(table.settings))
    far = {"at": [400_000_000_000_000_000]}
    near = {"at": [0]}
    counts = table.write(
        (1, 1, 1, "a", near), (2, 1, 1, "a", far), (3, 1, 1, "a", None), (4, 1, 1, "too long, it is", near)
    )
    drop_worker_connection(table.settings)
    assert (counts.written, counts.quarantined) == (2, 2)
    assert table.ids() == [1, 3]
    reasons = table.reasons()
    assert reasons[1].startswith("a value cannot be written as text: v: ")
    assert "column 'o'" in reasons[3]
    assert table.verify() == []
