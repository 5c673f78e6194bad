"""Schemas of their own on the session's database, and a small made-up pipeline with a model."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pymysql
import yaml
from pymysql.connections import Connection

from tidemill.config import Account, Settings
from tidemill.ml.data.split import as_datetime
from tidemill.ml.registry.versions import NewVersion
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import connect, session
from tidemill.store.migrations import apply_pipeline, migrate_control
from tidemill.store.sql import dialect
from tidemill.store.write import ledger_rows
from tidemill.store.write.bulk_load import bulk_load

_GRANTS = {
    Account.MIGRATE: "ALL PRIVILEGES",
    Account.STREAM: "SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES",
    Account.READ: "SELECT, SHOW VIEW",
}
_number = itertools.count(1)
BEGIN = dt.datetime(2026, 3, 1)
ORDERS, ORDER_DAYS = 1_500, 60
"""Of the shop that the session's model is trained in."""

FEATURES = """
SELECT o.id, o.ordered_at AS known_at, o.amount, o.city, o.distance, o.returned = 1 AS returned, o._commit
FROM orders AS o -- ends in a comment"""


@contextlib.contextmanager
def own_schemas(mariadb_settings: Settings, models: Path) -> Iterator[Settings]:
    """Settings with a control and a data schema, accounts and a folder for models that no other test uses."""
    name = f"learn{next(_number)}"
    given = {"db_control": name, "db_data": f"{name}_data", "models": models}
    own = mariadb_settings.model_copy(update=given)
    schemas = (own.db_control, own.db_data)
    root = pymysql.connect(
        host=own.db_host,
        port=own.db_port,
        user="root",
        password=own.secret("root").get_secret_value(),
        autocommit=True,
    )
    with contextlib.closing(root), root.cursor() as cursor:
        for schema in schemas:
            cursor.execute(f"CREATE DATABASE `{schema}`")
        for account, rights in _GRANTS.items():
            who = f"'{own.user(account)}'@'%%'"
            cursor.execute(f"CREATE USER {who} IDENTIFIED BY %s", (own.password(account).get_secret_value(),))
            for schema in schemas:
                cursor.execute(f"GRANT {rights} ON `{schema}`.* TO {who.replace('%%', '%')}")
        with session(own, Account.MIGRATE) as connection:
            migrate_control(connection, own.root / "sql")
        try:
            yield own
        finally:
            for schema in schemas:
                cursor.execute(f"DROP DATABASE `{schema}`")
            for account in Account:
                cursor.execute(f"DROP USER '{own.user(account)}'@'%'")


@dataclass(frozen=True)
class Order:
    """One row of the made-up table."""

    id: Any
    ordered_at: dt.datetime
    amount: int | None
    city: str | None
    distance: float | None
    returned: int | None


def some_orders(count: int, days: int = 60, first: int = 1) -> list[Order]:
    """Orders evenly over some days. Cheap ones and those from Kiel come back more often; some amounts are missing."""
    dice = random.Random(count + first)
    orders = []
    for n in range(count):
        amount, city = dice.randrange(100), dice.choice(["Ulm", "Bonn", "Kiel", None])
        likely = 0.1 + 0.6 * (amount < 40) + (0.25 if city == "Kiel" else 0.0)
        orders.append(
            Order(
                id=first + n,
                ordered_at=BEGIN + dt.timedelta(days=days * n / count),
                amount=None if n % 5 == 0 else amount,
                city=city,
                distance=dice.random() * 10,
                returned=int(dice.random() < likely),
            )
        )
    return orders


def new_version(version: int, refresh_id: int = 1, **changes: Any) -> NewVersion:
    """A version as a training records it, of which a test names only what it is about."""
    times = dict.fromkeys(("train_from", "holdout_from", "holdout_until"), as_datetime(0))
    numbers = dict.fromkeys(("pipeline_version", "as_of_commit", "train_rows", "holdout_rows"), 1)
    values = {"artifact": "-", "checksum": None, "train_seconds": 1.0, **times, **numbers} | changes
    return NewVersion(version=version, refresh_id=refresh_id, **values)


def unlabelled(orders: Iterable[Order]) -> list[Order]:
    """The same, before it is known whether they come back."""
    return [replace(order, returned=None) for order in orders]


@dataclass
class Shop:
    """A pipeline of orders, applied, whose rows are written as some commit would have."""

    settings: Settings
    pipeline: Pipeline
    connection: Connection[Any]
    """As the stream's account."""
    model: str = "returns"
    partition: int = 0
    """Of its commits: one task at a time commits a partition."""

    def commit(self, orders: Sequence[Order], *, commit_id: int | None = None) -> int:
        """Write orders, replacing those of the same id, as one commit; returns its id."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO commits (id, stream, epoch, pipeline_version, batch_id, topic, partition_id, from_offset,"
                " until_offset, written_rows, newest_at) VALUES (%s, %s, 1, 1, 0, %s, %s, 0, %s, %s, UTC_TIMESTAMP(6))",
                (commit_id, self.pipeline.name, self.pipeline.name, self.partition, len(orders), len(orders)),
            )
            done = commit_id or int(cursor.lastrowid)
        ledger_rows.add_to_sums(self.connection, done)
        names = list(Order.__dataclass_fields__)
        columns: dict[str, Any] = {name: [getattr(order, name) for order in orders] for name in names}
        columns |= {"_commit": [done] * len(orders), "_pipeline_version": [1] * len(orders)}
        columns |= {"_partition": [0] * len(orders), "_offset": list(range(len(orders)))}
        table = pa.table(columns)
        statement = dialect(self.settings.db_dialect).load(self.settings.db_data, "orders", table.column_names)
        bulk_load(self.connection, statement, table, table.column_names)
        return done

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query as the application asks it, in the operational schema."""
        with (
            session(self.settings, Account.READ, schema=self.settings.db_data) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return list(cursor.fetchall())

    def control(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query in the control schema."""
        with session(self.settings, Account.READ) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def changed(self, folder: Path, **model: Any) -> Shop:
        """The same shop after its author changed the model, and applied it."""
        return replace(self, pipeline=_declare(self.settings, folder, model, "BIGINT"))


def open_shop(settings: Settings, folder: Path, *, key: str = "BIGINT", **model: Any) -> Shop:
    """Apply the pipeline.

    Args:
        settings: whose schemas.
        folder: where its folder is written.
        key: type of the key column.
        model: what its model declares otherwise; ``features`` is the text of the query.
    """
    return Shop(settings, _declare(settings, folder, model, key), connect(settings, Account.STREAM))


def _declare(settings: Settings, folder: Path, model: dict[str, Any], key: str) -> Pipeline:
    place = folder / "shop"
    place.mkdir(exist_ok=True, parents=True)
    columns = {
        "id": f"{key} NOT NULL",
        "ordered_at": "DATETIME(6) NOT NULL",
        "amount": "INT",
        "city": "VARCHAR(8)",
        "distance": "DOUBLE",
        "returned": "INT",
    }
    declared = {
        "features": "features.sql",
        "table": "orders",
        "key": ["id"],
        "label": "returned",
        "known_at": "known_at",
        "estimator": "gbt_classifier",
        "parameters": {"maxIter": 4, "maxDepth": 3},
        "baseline": "amount",
        "train": {"schedule": "@daily", "holdout_days": 10},
        "promotion": {"metric": "areaUnderROC", "margin": 0.002},
        "score": {"schedule": "*/10 * * * *", "table": "order_scores"},
    }
    content = {
        "name": "shop",
        "owner": "tests",
        "source": {"topic": "shop", "schema": "id BIGINT"},
        "tables": {"orders": {"from": "transform.sql", "kind": "event", "key": ["id"], "columns": columns}},
        "models": {"returns": declared | model | {"features": "features.sql"}},
    }
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content))
    (place / "features.sql").write_text(model.get("features", FEATURES))
    (place / "transform.sql").write_text(f"SELECT {', '.join(columns)} FROM records")
    pipeline = load_pipeline(place)
    with session(settings, Account.MIGRATE) as migrating:
        apply_pipeline(migrating, settings, pipeline)
    return pipeline


def outdate(connection: Connection[Any]) -> None:
    """Let every open refresh have begun two days ago, so that it does not count as running and another may begin."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE refreshes SET started_at = started_at - INTERVAL 2 DAY WHERE state = 'running'")
