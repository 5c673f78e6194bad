"""Several tables from one stream in one transaction; tombstones; rows that are taken out again."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from support.shop import Shop, make_shop
from tidemill.config import Account, Settings
from tidemill.store.connection import connect
from tidemill.store.write import merge, transaction
from tidemill.store.write.ledger_rows import Counts, Rejected
from tidemill.store.write.merge import TableTarget
from tidemill.store.write.transaction import write_batch


@pytest.fixture
def shop(mariadb: Settings, tmp_path: Path) -> Shop:
    """An empty shop."""
    return make_shop(mariadb, tmp_path)


def test_a_record_counts_once_and_once_for_each_table(shop: Shop) -> None:
    """By the best that became of it: here one is written to the history though stale for the latest rows."""
    shop.write(("DE", 1, 5, 100))
    counts = shop.write(("DE", 1, 3, 50), ("DE", 1, 0, 40), ("DE", 1, 5, 100), ("DE", 2, 0, 1), filtered=0)
    assert (counts.written, counts.stale, counts.duplicate, counts.filtered) == (2, 2, 0, 0)
    found = shop.query(
        "SELECT table_name, written_rows, duplicate_rows, stale_rows, filtered_rows FROM {control}.commit_tables"
        f" WHERE commit_id = {counts.commit_id} ORDER BY table_name"
    )
    own = shop.pipeline.name
    assert found == [(f"moves_{own}", 1, 1, 0, 2), (f"stock_{own}", 1, 0, 3, 0)]
    assert shop.verify() == []


def test_a_record_that_the_database_refuses_for_one_table_is_in_none(shop: Shop) -> None:
    """It is quarantined once, and the others of its batch are written."""
    counts = shop.write(("DE", 1, 5, 1), ("too long", 2, 6, 1), ("DE", 3, 0, 1))
    assert (counts.written, counts.quarantined) == (2, 1)
    assert shop.stock() == [("DE", 1, 5), ("DE", 3, 0)]
    assert shop.verify() == []


def test_a_tombstone_deletes_and_moves_the_rollup(shop: Shop) -> None:
    """The row is gone, its group too; the history stays."""
    shop.write(("DE", 1, 5, 1), ("FR", 1, 7, 1))
    counts = shop.write(("DE", 1))
    assert (counts.written, counts.stale) == (1, 0)
    assert shop.stock() == [("FR", 1, 7)]
    assert shop.query("SELECT country, moved FROM r_stock_{}") == [("FR", 7)]
    assert shop.query("SELECT COUNT(*) FROM moves_{}") == [(2,)]
    assert shop.verify() == []


def test_before_and_after_a_tombstone_in_one_batch(shop: Shop) -> None:
    """What comes before it is stale whatever its version; what comes after it is a new row whatever its version."""
    counts = shop.write(("DE", 1, 0, 90), ("DE", 1), ("DE", 1, 0, 5), ("DE", 2, 0, 1), ("DE", 2))
    assert (counts.written, counts.stale) == (3, 2)
    assert shop.stock() == [("DE", 1, 0)]
    assert shop.verify() == []


def test_an_older_record_does_not_bring_a_deleted_row_back(shop: Shop) -> None:
    """Seen again by a replay: the record from before the tombstone is stale, and so is the tombstone itself."""
    shop.write(("DE", 1, 5, 1), ("DE", 1), ("DE", 2, 1, 1))
    again = replace(shop.write_context, replay_id=7)
    records = (("DE", 1, 5, 1), ("DE", 1), ("DE", 2, 1, 1))
    counts = write_batch(shop.settings, shop.pipeline, again, shop.batch(0, records))
    assert (counts.written, counts.stale) == (0, 3)
    assert shop.stock() == [("DE", 2, 1)]
    shop.write(("DE", 1, 8, 0))
    assert shop.stock() == [("DE", 1, 8), ("DE", 2, 1)]
    counts = write_batch(shop.settings, shop.pipeline, replace(again, replay_id=8), shop.batch(0, records))
    assert counts.written == 0
    assert shop.stock() == [("DE", 1, 8), ("DE", 2, 1)]
    assert shop.verify() == []


def test_a_dry_run_changes_nothing_and_says_what_it_would_change(shop: Shop) -> None:
    """It goes the whole way of a commit and is rolled back."""
    shop.write(("DE", 1, 5, 1))
    batch = shop.batch(1, (("DE", 1, 6, 2), ("FR", 1, 7, 1)))
    counts = write_batch(shop.settings, shop.pipeline, shop.write_context, batch, dry_run=True)
    assert counts.written == 2
    assert shop.stock() == [("DE", 1, 5)]
    assert shop.write(("DE", 1, 6, 2)).written == 1
    assert shop.verify() == []


def test_a_tombstone_whose_key_fits_no_row_is_set_aside(shop: Shop) -> None:
    """It can delete nothing; the rest of its batch is written, and counts as ever."""
    counts = shop.write(("DE", 1, 5, 1), ("too long", 7), ("FR", 1, 0, 1), ("DE", 1))
    assert (counts.written, counts.stale, counts.quarantined) == (3, 0, 1)
    assert shop.stock() == [("FR", 1, 0)]
    assert shop.verify() == []


def test_a_buried_record_hides_no_living_one_from_a_replay(shop: Shop) -> None:
    """Of a deleted key the replay of single records brings one from before the tombstone, and a later, lower one."""
    before, after = ("DE", 1, 0, 100), ("DE", 1, 0, 5)
    batch = shop.batch(0, (before, ("DE", 1)))
    batch = replace(batch, range=replace(batch.range, until=3), rejected=(Rejected(2, "not yet"),))
    write_batch(shop.settings, shop.pipeline, shop.write_context, batch)
    assert shop.stock() == []
    found = shop.batch(0, (before, after))
    rows = {
        name: table.set_column(0, "_offset", pa.array([0, 2][: table.num_rows], pa.int64()))
        for name, table in found.rows.items()
    }
    sparse = replace(found, range=replace(found.range, until=3), rows=rows, unselected=1, delivered=frozenset({0, 2}))
    counts = write_batch(shop.settings, shop.pipeline, replace(shop.write_context, replay_id=99), sparse)
    assert (counts.written, counts.stale, counts.unselected) == (1, 1, 1)
    assert shop.query("SELECT country, code, _offset FROM stock_{}") == [("DE", 1, 2)]
    assert shop.verify() == []


def test_a_row_that_comes_while_its_key_is_deleted_stays_in_table_and_rollup(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another partition claims the key after the rows to leave were locked and before they are deleted."""
    real, came = merge._lock_rows, []

    def slowly(target: TableTarget, condition: str, values: dict[str, Any]) -> None:
        real(target, condition, values)
        if not came:
            came.append(True)
            thread = threading.Thread(target=lambda: came.append(_write_apart(shop, ("DE", 1, 5, 9), 1)))
            thread.start()
            thread.join(60)

    monkeypatch.setattr(merge, "_lock_rows", slowly)
    assert shop.write(("DE", 1)).written == 1
    assert [type(found) for found in came] == [bool, Counts]
    assert shop.stock() == [("DE", 1, 5)]
    assert shop.verify() == []


def _write_apart(shop: Shop, record: tuple[Any, ...], partition: int) -> Counts:
    """Commit over a connection of this thread's own, as each of Spark's workers has one."""
    connection = connect(shop.settings, Account.STREAM)
    try:
        batch = shop.batch(0, (record,), partition)
        return transaction._Transaction(connection, shop.settings, shop.pipeline, shop.write_context, batch).run()
    finally:
        connection.close()
