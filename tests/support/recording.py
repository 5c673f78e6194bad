"""The pipeline on which histories are played, and how its tables are compared with the model of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pymysql.connections import Connection

from support.merges import ENTITY, EVENT, LARGEST, LONGEST, POISON, TOMBSTONE, Commit, Model, Record, Row
from tidemill.config import Account, Settings
from tidemill.spec import Pipeline, load_pipeline
from tidemill.spec.tombstones import deletes_from
from tidemill.store.connection import close, connect
from tidemill.store.control import leases, ledger
from tidemill.store.maintenance.verify import verify
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.transaction import Batch, Counts, Rejected, write_batch
from tidemill.stream.start_offsets import turn_to_topic

COLUMNS = ("id", "code", "team", "points", "amount", "seen")
COUNTED = ("written", "duplicate", "stale", "filtered", "quarantined", "gap", "unselected")
_MEASURES = {"n": "count(*)", "points": "sum(points)", "amount": "sum(amount)", "many": "sum(points > 5)"}
_TEAM = {"team": {"expr": "team", "type": "VARCHAR(12)"}}
_MINUTE = {
    "minute": {"expr": "DATE_FORMAT(seen, '%Y-%m-%d %H:%i:00')", "type": "VARCHAR(19)"},
    "team": _TEAM["team"],
}
ROLLUPS: dict[str, tuple[str, dict[str, Any], Callable[[Row], Any]]] = {
    "by_team": (ENTITY, _TEAM, lambda row: (row.team,)),
    "by_minute": (ENTITY, _MINUTE, lambda row: (f"{row.seen:%Y-%m-%d %H:%M:00}", row.team)),
    "events_by_team": (EVENT, _TEAM, lambda row: (row.team,)),
}
"""Name -> table, keys, and the group of a row."""


def make_pipeline(folder: Path, name: str, tables: tuple[str, ...], **source: Any) -> Pipeline:
    """Write the folder of a pipeline with an entity table, an event table or both, with rollups over each."""
    place = folder / name
    place.mkdir(parents=True)
    schema = "id BIGINT, code STRING, team STRING, points BIGINT, amount DECIMAL(20,3), seen TIMESTAMP, goes STRING"
    key = {"key": "id BIGINT"} if ENTITY in tables else {}
    content = {
        "name": name,
        "owner": "tests",
        "source": {"topic": name, "schema": schema, **key, **source},
        "tables": {table_name(name, table): _table(table) for table in tables},
        "rollups": {
            f"{name}_{rollup}": {"of": table_name(name, table), "by": by, "measures": _MEASURES}
            for rollup, (table, by, _) in ROLLUPS.items()
            if table in tables
        },
    }
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content))
    for table in tables:
        select = f"SELECT {', '.join(COLUMNS)} FROM records WHERE goes LIKE '%{table}%'"
        (place / f"{table}.sql").write_text(select)
    return load_pipeline(place)


def table_name(pipeline: str, table: str) -> str:
    """Name of a pipeline's entity or event table."""
    return f"{pipeline}_{table}"


def _table(table: str) -> dict[str, Any]:
    columns = {
        "id": "BIGINT NOT NULL",
        "code": "VARCHAR(4) NOT NULL",
        "team": f"VARCHAR({LONGEST[table]})",
        "points": "INT",
        "amount": f"DECIMAL({3 + len(str(LARGEST[table])) - 1},3)",
        "seen": "DATETIME(6) NOT NULL",
    }
    key: dict[str, Any] = {"key": ["id"], "version": "seen"} if table == ENTITY else {"key": ["code", "id"]}
    return {"from": f"{table}.sql", "kind": table, "columns": columns, **key}


def encode(record: Record) -> tuple[bytes, bytes | None]:
    """Key and value of a record in Kafka."""
    key = str(record.id).encode()
    if record.what == TOMBSTONE:
        return key, None
    if record.what == POISON:
        return key, (b'{"id": ', b"", b"\xff\xfe{}", b'{"id": "x"}')[record.seen % 4]
    row = record.row(1)
    value = {
        "id": row.id,
        "code": row.code,
        "team": row.team,
        "points": row.points,
        "amount": row.amount if row.amount is None else float(row.amount),
        "seen": f"{row.seen.isoformat()}Z",
        "goes": " ".join(sorted(record.goes)),
    }
    return key, json.dumps(value, ensure_ascii=False).encode()


@dataclass
class Numbers:
    """What the database gave where the model counts from 1."""

    commits: dict[int, int] = field(default_factory=dict)
    replays: dict[int, int] = field(default_factory=dict)
    generations: dict[int, tuple[str, int]] = field(default_factory=dict)
    """How often the stream had turned to another topic -> topic and generation."""


class Comparison:
    """What a pipeline's tables hold, against a model that saw the same records."""

    def __init__(self, settings: Settings, pipeline: Pipeline, model: Model, connection: Connection[Any]) -> None:
        self.settings, self.pipeline, self.model, self.connection = settings, pipeline, model, connection

    def everything(self, numbers: Numbers, positions: list[int]) -> list[str]:
        """All differences there are."""
        found = self.tables(numbers.commits) + self.quarantine(numbers) + self.ledger(numbers)
        at = ledger.positions(self.connection, self.pipeline.name, self.pipeline.source.topic)
        if at != dict(enumerate(positions)):
            found.append(f"positions: {at}, expected {positions}")
        return found + verify(self.connection, self.settings, self.pipeline)

    def tables(self, commits: dict[int, int] | None = None) -> list[str]:
        """Differences of tables, rollups and markers of deleted keys; without ``commits``, whoever wrote them."""
        found = []
        system = ["_partition", "_offset", "_pipeline_version", *(["_commit"] if commits is not None else [])]
        for table in self.model.tables:
            expected = Counter(
                (
                    *(getattr(held.row, column) for column in COLUMNS),
                    *(held.partition, held.offset, held.version),
                    *([] if commits is None else [commits[held.commit]]),
                )
                for held in self.model.rows[table].values()
            )
            rows = self._data(table_name(self.pipeline.name, table), [*COLUMNS, *system])
            found += _differences(table, expected, rows)
        for rollup, (table, by, group) in ROLLUPS.items():
            if table in self.model.tables:
                expected = Counter((*key, *sums) for key, sums in self.model.rollup(table, group).items())
                rows = self._data(f"{self.pipeline.name}_{rollup}", [*by, "n", "points", "amount", "many"])
                found += _differences(rollup, expected, rows)
        for table in deletes_from(self.pipeline):
            expected = Counter((*key, *marker[1:]) for key, marker in self.model.markers.items())
            found += _differences("markers", expected, self._data(f"_deleted_{table}", ["id", "_partition", "_offset"]))
        return found

    def quarantine(self, numbers: Numbers | None = None) -> list[str]:
        """Differences of what was set aside; without ``numbers`` only of which records these are."""
        columns = ["partition_id", "record_offset"]
        expected: Counter[Any] = Counter(place[1:] for place in self.model.quarantine)
        if numbers is not None:
            commits, replays = numbers.commits, numbers.replays
            columns += [
                "topic",
                "generation",
                "commit_id",
                "replay_id",
                "pipeline_version",
                "resolved_commit",
                "value_bytes",
            ]
            expected = Counter(
                (
                    *(
                        *place[1:],
                        *numbers.generations[place[0]],
                        commits[aside["commit"]],
                        replays.get(aside["replay"] or 0),
                        aside["version"],
                    ),
                    *(commits.get(aside["resolved"] or 0), _size(aside["record"])),
                )
                for place, aside in self.model.quarantine.items()
            )
        return _differences("quarantine", expected, self._control("quarantine", columns))

    def ledger(self, numbers: Numbers) -> list[str]:
        """Differences of the commits and of what they say of each table."""
        identity = ["id", "topic", "generation", "epoch", "replay_id", "pipeline_version", "batch_id", "partition_id"]
        columns = [*identity, "from_offset", "until_offset", *(f"{name}_rows" for name in COUNTED)]
        expected = Counter(
            (
                *(
                    numbers.commits[number],
                    *numbers.generations[order.turn],
                    order.epoch,
                    numbers.replays.get(order.replay or 0),
                ),
                *(order.version, order.batch_id, order.partition),
                *(order.start, order.until, *(entry.counts[name] for name in COUNTED)),
            )
            for number, entry in enumerate(self.model.ledger, 1)
            for order in [entry.order]
        )
        tables = Counter(
            (numbers.commits[number], table_name(self.pipeline.name, table), *(counts[name] for name in COUNTED[:4]))
            for number, entry in enumerate(self.model.ledger, 1)
            for table, counts in entry.tables.items()
        )
        there = self._rows(
            f"SELECT t.commit_id, t.table_name, {', '.join(f't.{name}_rows' for name in COUNTED[:4])}"
            " FROM commit_tables AS t JOIN commits AS c ON c.id = t.commit_id WHERE c.stream = %s",
            (self.pipeline.name,),
        )
        return _differences("commits", expected, self._control("commits", columns)) + _differences(
            "commit_tables", tables, there
        )

    def _data(self, table: str, columns: list[str]) -> Counter[Any]:
        return self._rows(f"SELECT {', '.join(columns)} FROM {self.settings.db_data}.{table}", ())

    def _control(self, table: str, columns: list[str]) -> Counter[Any]:
        return self._rows(f"SELECT {', '.join(columns)} FROM {table} WHERE stream = %s", (self.pipeline.name,))

    def _rows(self, sql: str, values: tuple[str, ...]) -> Counter[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)
            return Counter(cursor.fetchall())


def _size(record: Record) -> int | None:
    value = encode(record)[1]
    return None if value is None else len(value)


def _differences(what: str, expected: Counter[Any], there: Counter[Any]) -> list[str]:
    missing, extra = expected - there, there - expected
    return [f"{what}: {each} is missing" for each in missing] + [f"{what}: {each} is too much" for each in extra]


class Player:
    """Plays the orders of histories on one pipeline, through the real writer, each history on empty tables."""

    def __init__(self, settings: Settings, pipeline: Pipeline) -> None:
        self.settings, self.pipeline, self.name = settings, pipeline, pipeline.name
        self.connection = connect(settings, Account.STREAM)
        self.numbers = Numbers()

    def close(self) -> None:
        close(self.connection)

    def clear(self, partitions: int) -> None:
        """Forget everything, and begin all partitions at 0 with a driver of version 1."""
        control_plane, data = self.settings.db_control, self.settings.db_data
        tables = [*self.pipeline.tables, *self.pipeline.rollups]
        tables += [name for table in deletes_from(self.pipeline) for name in [f"_deleted_{table}"]]
        with self.connection.cursor() as cursor:
            self.connection.begin()
            for table in tables:
                cursor.execute(f"DELETE FROM {data}.{table}")
            cursor.execute(
                f"DELETE t FROM {control_plane}.commit_tables AS t JOIN {control_plane}.commits AS c"
                " ON c.id = t.commit_id WHERE c.stream = %s",
                (self.name,),
            )
            for table in ("commits", "ledger_sums", "quarantine", "offsets", "leases", "replays", "topics"):
                cursor.execute(f"DELETE FROM {control_plane}.{table} WHERE stream = %s", (self.name,))
            self.connection.commit()
        self.acquire_lease(1)
        self.numbers, self._partitions = Numbers(), partitions
        self.turn(0)

    def acquire_lease(self, version: int) -> None:
        """A driver of this version is the newest."""
        self._epoch = leases.acquire_lease(self.connection, self.name, version, "a history")

    def turn(self, number: int) -> None:
        """The newest driver reads the topic of the stream's name, or the other one, as it does when it starts."""
        topic = self.name if number % 2 == 0 else f"{self.name}.other"
        source = self.pipeline.source.model_copy(update={"topic": topic})
        self.pipeline = self.pipeline.model_copy(update={"source": source})
        context = WriteContext(self.name, self._epoch, 1, topic)
        self._topic = turn_to_topic(self.connection, self.settings, self.pipeline, context, f"id of {topic}"[:32])
        ledger.begin_at(self.connection, self.name, topic, dict.fromkeys(range(self._partitions), 0))
        self.numbers.generations[number] = (topic, self._topic.generation)

    def write(self, order: Commit) -> Counts:
        """What a task of the order's driver, or of its replay, does."""
        topic, generation = self.numbers.generations[order.turn]
        write_context = WriteContext(
            *(self.name, order.epoch, order.version, topic),
            generation=generation,
            since_commit=self._topic.since_commit,
            replay_id=self._replay(order),
        )
        raw = dict(order.wanted())

        def read_raw(offsets: Iterable[int]) -> Iterator[Rejected]:
            return (_rejected(offset, raw[offset], "") for offset in offsets)

        return write_batch(self.settings, self.pipeline, write_context, self._batch(order), read_raw=read_raw)

    def _replay(self, order: Commit) -> int | None:
        if order.replay is None or order.replay in self.numbers.replays:
            return self.numbers.replays.get(order.replay or 0)
        with self.connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO replays (stream, pipeline_version, selection, requested_by)"
                " VALUES (%s, %s, '{}', 'tests')",
                (self.name, order.version),
            )
            self.numbers.replays[order.replay] = int(cursor.lastrowid)
        return self.numbers.replays[order.replay]

    def _batch(self, order: Commit) -> Batch:
        """The records sorted as a task hands them over."""
        tables = [table.kind.value for table in self.pipeline.tables.values()]
        deletes = bool(deletes_from(self.pipeline))
        rejected, gone, filtered = [], [], 0
        rows: dict[str, dict[int, Row]] = {table: {} for table in tables}
        for offset, record in order.wanted():
            if record.what == POISON or record.readable > order.version:
                rejected.append(_rejected(offset, record, "it cannot be read"))
            elif record.what == TOMBSTONE and deletes:
                gone.append({"id": record.id, "_offset": offset})
            elif record.what == TOMBSTONE:
                rejected.append(_rejected(offset, record, "a tombstone"))
            else:
                for table in record.goes.intersection(tables):
                    rows[table][offset] = record.row(order.version)
                filtered += record.goes.isdisjoint(tables)
        deleted = {table_name(self.name, ENTITY): pa.Table.from_pylist(gone, _GONE)} if gone else {}
        return Batch(
            order.batch_id,
            Range(order.partition, order.start, order.until),
            rows={table_name(self.name, table): _arrow(found) for table, found in rows.items()},
            deleted=deleted,
            filtered=filtered,
            rejected=tuple(rejected),
            gap=order.gaps(),
            unselected=order.unselected(),
            delivered=frozenset(offset for offset, _ in order.wanted()),
        )


_GONE = pa.schema([("id", pa.int64()), ("_offset", pa.int64())])
_ROWS = pa.schema(
    [
        ("id", pa.int64()),
        ("code", pa.string()),
        ("team", pa.string()),
        ("points", pa.int64()),
        ("amount", pa.decimal128(20, 3)),
        ("seen", pa.timestamp("us", "UTC")),
        ("_offset", pa.int64()),
    ]
)


def _arrow(rows: dict[int, Row]) -> pa.Table:
    """The rows in Spark's types."""
    return pa.Table.from_pylist([{**vars(row), "_offset": offset} for offset, row in rows.items()], _ROWS)


def _rejected(offset: int, record: Record, reason: str) -> Rejected:
    key, value = encode(record)
    return Rejected(offset, reason, key=key, value=value)
