"""A made-up stream that fills two tables, and whose tombstones delete from one of them."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from tidemill.config import Account, Settings
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import leases, ledger, streams
from tidemill.store.maintenance.verify import verify
from tidemill.store.migrations import apply_pipeline, migrate_control
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.ledger_rows import Counts
from tidemill.store.write.transaction import Batch, write_batch

_number = itertools.count(1)
EPOCH = dt.datetime(2026, 1, 1)
KEY = {"country": "VARCHAR(2) NOT NULL", "code": "INT NOT NULL"}


@dataclass
class Shop:
    """A stream of stock changes: ``stock`` holds the latest of each article, ``moves`` each change that moved goods."""

    settings: Settings
    pipeline: Pipeline
    write_context: WriteContext
    position: dict[int, int] = field(default_factory=dict)
    batch_id: int = 0

    def write(self, *records: Any, partition: int = 0, **other: Any) -> Counts:
        """Commit records ``(country, code, moved, second)``, or ``(country, code)`` for a tombstone."""
        start = self.position.get(partition, 0)
        batch = self.batch(start, records, partition, **other)
        counts = write_batch(self.settings, self.pipeline, self.write_context, batch)
        self.position[partition] = batch.range.until
        self.batch_id += 1
        return counts

    def batch(self, start: int, records: Any, partition: int = 0, **other: Any) -> Batch:
        """The batch of these records, the first at offset ``start``."""
        given = list(enumerate(records, start))
        stock = [(o, r[0], r[1], r[2], EPOCH + dt.timedelta(seconds=r[3])) for o, r in given if len(r) > 2]
        moves = [row for row in stock if row[3]]
        gone = [(o, r[0], r[1]) for o, r in given if len(r) == 2]
        types = {"_offset": pa.int64(), "country": pa.string(), "code": pa.int32(), "moved": pa.int64(),
                 "seen": pa.timestamp("us", "UTC")}  # fmt: skip

        def table(rows: list[tuple[Any, ...]]) -> pa.Table:
            names = list(types)[: len(rows[0])] if rows else list(types)
            return pa.table({n: pa.array([row[i] for row in rows], types[n]) for i, n in enumerate(names)})

        own = self.pipeline.name
        rows = {f"stock_{own}": table(stock), f"moves_{own}": table(moves)}
        deleted = {f"stock_{own}": table(gone)} if gone else {}
        return Batch(self.batch_id, Range(partition, start, start + len(given)), rows, deleted, **other)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Read the operational schema; ``{}`` is the stream's name."""
        with session(self.settings, Account.READ, schema=self.settings.db_data) as connection:
            cursor = connection.cursor()
            cursor.execute(sql.format(self.pipeline.name, control=self.settings.db_control))
            return list(cursor.fetchall())

    def stock(self) -> list[tuple[Any, ...]]:
        """``(country, code, moved)`` of the latest rows."""
        return self.query("SELECT country, code, moved FROM stock_{} ORDER BY country, code")

    def verify(self) -> list[str]:
        """What does not agree."""
        with session(self.settings, Account.READ) as connection:
            return verify(connection, self.settings, self.pipeline)


def make_shop(settings: Settings, folder: Path, **moves: Any) -> Shop:
    """An empty shop; more keys of the table ``moves`` may be given."""
    name = f"store{next(_number)}"
    place = folder / name
    place.mkdir()
    columns = KEY | {"moved": "BIGINT", "seen": "DATETIME(6) NOT NULL"}
    rollup = {"by": {"country": {"expr": "country", "type": "VARCHAR(2)"}}, "measures": {"moved": "sum(moved)"}}
    content = {
        "name": name,
        "owner": "tests",
        "source": {
            "topic": name,
            "schema": "country STRING, code INT, moved BIGINT, seen TIMESTAMP",
            "key": "country STRING, code INT",
        },
        "tables": {
            f"stock_{name}": {
                "from": "all.sql",
                "kind": "entity",
                "key": ["country", "code"],
                "version": "seen",
                "columns": columns,
            },
            f"moves_{name}": {
                "from": "all.sql",
                "kind": "event",
                "key": ["country", "code", "seen"],
                "columns": columns,
            }
            | moves,
        },
        "rollups": {
            f"r_stock_{name}": {"of": f"stock_{name}"} | rollup,
            f"r_moves_{name}": {"of": f"moves_{name}"} | rollup,
        },
    }
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content))
    (place / "all.sql").write_text("SELECT country, code, moved, seen FROM records")
    pipeline = load_pipeline(place)
    with session(settings, Account.MIGRATE) as connection:
        migrate_control(connection, settings.root / "sql")
        version = apply_pipeline(connection, settings, pipeline)
    with session(settings, Account.STREAM) as connection:
        streams.request_state(connection, name, "running", "a test")
        ledger.begin_at(connection, name, name, dict.fromkeys(range(4), 0))
        epoch = leases.acquire_lease(connection, name, version, "a test")
    return Shop(settings, pipeline, WriteContext(name, epoch, version, name))
