"""A writer that commits batches of a small made-up stream, as a task of its driver would."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pymysql.connections import Connection

from tidemill.config import Account, Settings
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import connect, session
from tidemill.store.control import leases, ledger, streams
from tidemill.store.maintenance.verify import verify
from tidemill.store.migrations import apply_pipeline, migrate_control
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.ledger_rows import Counts
from tidemill.store.write.transaction import Batch, write_batch

_number = itertools.count(1)
EPOCH = dt.datetime(2026, 1, 1)


@dataclass
class Writer:
    """Writes batches of one made-up stream as a task of its driver would."""

    settings: Settings
    pipeline: Pipeline
    connection: Connection[Any]
    version: int
    epoch: int = 0
    positions: dict[int, int] = field(default_factory=dict)
    batch_id: int = 0

    @property
    def table(self) -> str:
        return next(iter(self.pipeline.tables))

    @property
    def rollup(self) -> str:
        return next(iter(self.pipeline.rollups))

    @property
    def write_context(self) -> WriteContext:
        return WriteContext(self.pipeline.name, self.epoch, self.version, self.pipeline.source.topic)

    def batch(self, rows: list[tuple[Any, ...]], partition: int = 0, **other: Any) -> Batch:
        """A batch of rows ``(id, team, points, seen)``; ``seen`` counts seconds. Offsets follow the position."""
        start = self.positions.get(partition, 0)
        until = start + len(rows) + other.get("filtered", 0) + len(other.get("rejected", ())) + other.get("gap", 0)
        columns = list(zip(*rows, strict=True)) or [[], [], [], []]
        table = pa.table(
            {
                "id": pa.array(columns[0], pa.int64()),
                "team": pa.array(columns[1], pa.string()),
                "points": pa.array(columns[2], pa.int64()),
                "seen": pa.array([EPOCH + dt.timedelta(seconds=s) for s in columns[3]], pa.timestamp("us", "UTC")),
                "_offset": pa.array(range(start, start + len(rows)), pa.int64()),
            }
        )
        return Batch(self.batch_id, Range(partition, start, until), rows={self.table: table}, **other)

    def write(self, rows: list[tuple[Any, ...]], partition: int = 0, **other: Any) -> Counts:
        """Commit the next batch of a partition."""
        batch = self.batch(rows, partition, **other)
        counts = write_batch(self.settings, self.pipeline, self.write_context, batch)
        self.positions[partition] = batch.range.until
        self.batch_id += 1
        return counts

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query in the operational schema."""
        with (
            session(self.settings, Account.READ, schema=self.settings.db_data) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return list(cursor.fetchall())

    def rows(self) -> list[tuple[Any, ...]]:
        """The table as ``(id, team, points, seconds)``."""
        found = self.query(f"SELECT id, team, points, seen FROM {self.table} ORDER BY id")
        return [(i, team, points, (seen - EPOCH).total_seconds()) for i, team, points, seen in found]

    def groups(self) -> dict[Any, tuple[int, int]]:
        """The rollup as team -> (count, sum of points)."""
        return {team: (int(n), int(s)) for team, n, s in self.query(f"SELECT team, n, points FROM {self.rollup}")}

    def verify(self) -> list[str]:
        """What does not agree."""
        with session(self.settings, Account.READ) as connection:
            return verify(connection, self.settings, self.pipeline)

    def acquire_lease(self) -> None:
        """Become the stream's newest driver."""
        self.epoch = leases.acquire_lease(self.connection, self.pipeline.name, self.version, "a test")


def make_writer(settings: Settings, folder: Path, kind: str) -> Writer:
    """A new pipeline with a table and a rollup by team, applied, with four partitions at 0."""
    name = f"{kind}{next(_number)}"
    place = folder / name
    place.mkdir()
    entity = kind == "entity"
    columns = {"id": "BIGINT NOT NULL", "team": "VARCHAR(8)", "points": "INT", "seen": "DATETIME(6) NOT NULL"}
    table = {"from": "transform.sql", "kind": kind, "key": ["id"], "columns": columns}
    content = {
        "name": name,
        "owner": "tests",
        "source": {"topic": name, "schema": "id BIGINT, team STRING, points BIGINT, seen TIMESTAMP"},
        "tables": {f"t_{name}": table | ({"version": "seen"} if entity else {})},
        "rollups": {
            f"r_{name}": {
                "of": f"t_{name}",
                "by": {"team": {"expr": "team", "type": "VARCHAR(8)"}},
                "measures": {"n": "count(*)", "points": "sum(points)"},
            }
        },
    }
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content))
    (place / "transform.sql").write_text("SELECT id, team, points, seen FROM records")
    pipeline = load_pipeline(place)
    with session(settings, Account.MIGRATE) as connection:
        migrate_control(connection, settings.root / "sql")
        version = apply_pipeline(connection, settings, pipeline)
    connection = connect(settings, Account.STREAM)
    streams.request_state(connection, name, "running", "a test")
    ledger.begin_at(connection, name, name, dict.fromkeys(range(4), 0))
    writer = Writer(settings, pipeline, connection, version)
    writer.acquire_lease()
    return writer
