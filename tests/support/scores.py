"""A made-up stream of parcels whose model scores them as they are written, and models made by hand."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping, Sequence
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
from tidemill.store.migrations import apply_pipeline
from tidemill.store.scoring.portable_model import pack
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.ledger_rows import Counts
from tidemill.store.write.transaction import Batch, write_batch

BEGIN = dt.datetime(2026, 3, 1)
COLUMNS = {
    "id": "BIGINT NOT NULL",
    "city": "CHAR(8)",
    "weight": "DECIMAL(10,3)",
    "distance": "DOUBLE",
    "fragile": "TINYINT(1)",
    "broken": "INT",
    "sent_at": "DATETIME(6) NOT NULL",
}
FEATURES = """
SELECT p.id, p.sent_at AS known_at, p.city, p.weight, p.distance, p.fragile, h.parcels, p.broken, p._commit
FROM parcels AS p
LEFT JOIN parcels_by_city AS h ON h.city = p.city -- 5 %"""
HONEST = FEATURES.replace(" h.parcels,", "")
"""Without the rollup, which goes on counting: training would reject it as look-ahead."""
PARCELS = 1_200
"""Of the post that the session's model is trained in."""


@dataclass(frozen=True)
class Parcel:
    """One record."""

    id: int
    city: str | None
    weight: float | None
    distance: float | None
    fragile: int | None
    broken: int | None = None
    version: int = 0
    """Seconds that it is sent later."""


def some_parcels(count: int, first: int = 1) -> list[Parcel]:
    """Heavy, fragile ones from afar break more often; every seventh weight is missing."""
    dice = random.Random(count + first)
    parcels = []
    for n in range(first, first + count):
        weight, distance = round(dice.random() * 30, 3), dice.random() * 1_000
        city, fragile = dice.choice(["Ulm", "Bonn", "Kiel", "Hof", None]), dice.randrange(2)
        likely = 0.1 + 0.3 * fragile + 0.3 * (weight > 20) + 0.2 * (distance > 700 and city == "Kiel")
        broken = int(dice.random() < likely)
        parcels.append(Parcel(n, city, None if n % 7 == 0 else weight, distance, fragile, broken))
    return parcels


@dataclass
class Post:
    """The applied pipeline, and a writer of its stream."""

    settings: Settings
    pipeline: Pipeline
    connection: Connection[Any]
    write_context: WriteContext
    position: dict[int, int] = field(default_factory=dict)
    batch_id: int = 0
    model: str = "breaks"

    def batch(self, parcels: Sequence[Parcel], partition: int = 0) -> Batch:
        """Parcels as the next batch of a partition."""
        start = self.position.get(partition, 0)
        table = pa.table(
            {
                "id": pa.array([p.id for p in parcels], pa.int64()),
                "city": pa.array([p.city for p in parcels], pa.string()),
                "weight": pa.array([p.weight for p in parcels], pa.float64()),
                "distance": pa.array([p.distance for p in parcels], pa.float64()),
                "fragile": pa.array([p.fragile for p in parcels], pa.int64()),
                "broken": pa.array([p.broken for p in parcels], pa.int64()),
                "sent_at": pa.array(
                    [BEGIN + dt.timedelta(minutes=p.id, seconds=p.version) for p in parcels], pa.timestamp("us", "UTC")
                ),
                "_offset": pa.array(range(start, start + len(parcels)), pa.int64()),
            }
        )
        return Batch(self.batch_id, Range(partition, start, start + len(parcels)), rows={"parcels": table})

    def write(self, parcels: Sequence[Parcel], partition: int = 0, *, dry_run: bool = False) -> Counts:
        """Commit parcels as the next batch of a partition."""
        batch = self.batch(parcels, partition)
        counts = write_batch(self.settings, self.pipeline, self.write_context, batch, dry_run=dry_run)
        if not dry_run:
            self.position[partition] = batch.range.until
            self.batch_id += 1
        return counts

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query as the application asks it; ``{control}`` is the control schema."""
        with (
            session(self.settings, Account.READ, schema=self.settings.db_data) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql.format(control=self.settings.db_control))
            return list(cursor.fetchall())

    def scores(self, version: int) -> dict[int, float]:
        """The scores of a version that are in their place, readers or not."""
        return dict(self.query(f"SELECT id, score FROM parcel_scores WHERE model_version = {version}"))

    def put(self, version: int, content: Mapping[str, Any] | None = None) -> None:
        """Insert a portable model that is made by hand."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO portable_models (pipeline, model, version, content) VALUES ('post', %s, %s, %s)",
                (self.model, version, pack(content or by_hand())),
            )

    def point(self, champion: int | None, published: int | None) -> None:
        """Set the champion and the published version, as promotion and publication do."""
        with self.connection.cursor() as cursor:
            cursor.execute(
                "UPDATE models SET champion_version = %s, published_version = %s WHERE model = %s",
                (champion, published, self.model),
            )


def by_hand(factor: float = 1.0, inputs: Sequence[str] = ("distance",), problem: str = "regression") -> dict[str, Any]:
    """A linear model of numbers: ``factor`` times their sum, 0.25 for what is missing."""
    return {
        "problem": problem,
        "inputs": [{"feature": name, "kind": "number", "fill": 0.25, "flag": False} for name in inputs],
        "scale": None,
        "form": {"kind": "linear", "coefficients": [factor] * len(inputs), "intercept": 0.0},
    }


def open_post(settings: Settings, folder: Path, *, features: str = FEATURES, **model: Any) -> Post:
    """Apply the pipeline and begin its stream."""
    place = folder / "post"
    place.mkdir(exist_ok=True)
    declared = {
        "features": "features.sql",
        "table": "parcels",
        "key": ["id"],
        "label": "broken",
        "known_at": "known_at",
        "estimator": "gbt_classifier",
        "parameters": {"maxIter": 4, "maxDepth": 3},
        "baseline": "distance",
        "train": {"schedule": "@daily", "holdout_days": 1},
        "promotion": {"metric": "areaUnderROC"},
        "score": {"schedule": "@daily", "table": "parcel_scores", "live": True},
    }
    content = {
        "name": "post",
        "owner": "tests",
        "source": {"topic": "post", "schema": "id BIGINT"},
        "tables": {
            "parcels": {
                "from": "transform.sql", "kind": "entity", "key": ["id"], "version": "sent_at", "columns": COLUMNS,
            }
        },
        "rollups": {
            "parcels_by_city": {
                "of": "parcels",
                "by": {"city": {"expr": "city", "type": "VARCHAR(8)"}},
                "measures": {"parcels": "count(*)"},
            }
        },
        "models": {"breaks": declared | model},
    }  # fmt: skip
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content))
    (place / "features.sql").write_text(features)
    (place / "transform.sql").write_text(f"SELECT {', '.join(COLUMNS)} FROM records")
    pipeline = load_pipeline(place)
    with session(settings, Account.MIGRATE) as migrating:
        version = apply_pipeline(migrating, settings, pipeline)
    connection = connect(settings, Account.STREAM)
    streams.request_state(connection, "post", "running", "a test")
    ledger.begin_at(connection, "post", "post", dict.fromkeys(range(4), 0))
    epoch = leases.acquire_lease(connection, "post", version, "a test")
    return Post(settings, pipeline, connection, WriteContext("post", epoch, version, "post"))
