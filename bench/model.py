"""What the flights' models are worth on days they have never seen: a whole year, on servers of its own.

The feed of all flights of 2013 goes through Kafka, the pipeline's transform and its write path into table and rollup,
as it does in operation. Then its models are trained by its own training on all but the last 30 days, and measured on
these. Whether a flight will arrive more than 15 minutes late is asked twice: by ``late_arrival`` at departure, with the
departure delay as the baseline, and by one more model two hours before the scheduled departure
(``bench/features_scheduled.sql``), with the mean departure delay of the origin in the last whole hour before that, of
all its bare features the one that ranks the training rows best. Each model's metric is printed with the middle 95 % of
200 resamples.

Example: ``./tidemill bench model`` (FLIGHTS takes only so many of the year's first flights)
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import yaml
from _servers import own_settings  # beside this file
from pyspark.sql import SparkSession

from tidemill.config import Account, Settings
from tidemill.demo.feed import FeedOptions, play
from tidemill.deploy import apply
from tidemill.devstack.stack import Stack
from tidemill.kafka import clients, topics
from tidemill.ml.refresh import begin_refresh, end_refresh
from tidemill.ml.registry import versions
from tidemill.ml.registry.promotion import promote_or_reject
from tidemill.ml.registry.versions import BASELINE
from tidemill.ml.session import ml_session
from tidemill.ml.training.train import train
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.control import leases, ledger
from tidemill.store.migrations import pipeline_version
from tidemill.store.write.context import WriteContext
from tidemill.stream.plan.dimensions import register_dimensions
from tidemill.stream.query import BatchCommitter, stream_rows
from tidemill.stream.session import STREAM_CONF

FLIGHTS = int(os.environ["FLIGHTS"]) if "FLIGHTS" in os.environ else None
AT_DEPARTURE, AT_SCHEDULING = "late_arrival", "late_scheduled"
SCHEDULED_SQL = "features_scheduled.sql"


def declare(settings: Settings, folder: Path) -> Pipeline:
    """The pipeline as it is, and with it the model that is asked before departure."""
    place = Path(shutil.copytree(settings.pipelines / "flights", folder / "flights"))
    shutil.copy(settings.root / "bench" / SCHEDULED_SQL, place)
    content = yaml.safe_load((place / "pipeline.yaml").read_text())
    content["models"][AT_SCHEDULING] = content["models"][AT_DEPARTURE] | {
        "features": SCHEDULED_SQL,
        "baseline": "origin_departed_delay",
        "score": {"schedule": "@daily", "table": "scheduled_scores", "column": "scheduled_score"},
    }
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_pipeline(place)


def load(settings: Settings, pipeline: Pipeline) -> None:
    """Bring the feed into table and rollup, as a driver does with a backlog."""
    topic, client = pipeline.source.topic, clients.admin(settings)
    began = time.monotonic()
    records = play(settings, topic, FeedOptions(limit=FLIGHTS), lambda *_: None)
    print(f"{records:,} records in Kafka after {time.monotonic() - began:.0f} s", flush=True)
    begin = topics.offsets_at(client, topic, "earliest")
    with session(settings, Account.STREAM) as connection:
        version = pipeline_version(connection, pipeline)
        assert version is not None
        ledger.begin_at(connection, pipeline.name, topic, begin)
        write_context = WriteContext(
            pipeline.name, leases.acquire_lease(connection, pipeline.name, version, "bench"), version, topic
        )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=settings.state) as place:
        spark = stream_spark(settings)
        register_dimensions(spark, pipeline)
        committer = BatchCommitter(settings, pipeline, write_context, begin)
        rows = stream_rows(spark, settings, pipeline, begin)
        committer.attach(rows, Path(place)).trigger(availableNow=True).start().awaitTermination()
        committer.close(0)
        spark.stop()
    assert committer.metrics.records == records
    print(f"{records:,} records in the table after {time.monotonic() - began:.0f} s", flush=True)


def stream_spark(settings: Settings) -> SparkSession:
    """A session as a driver has it."""
    builder = SparkSession.builder.master("local[2]").config("spark.driver.memory", "4g")
    builder = builder.config("spark.jars", ",".join(map(str, sorted((settings.jars / "spark").glob("*.jar")))))
    for key, value in (STREAM_CONF | {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1"}).items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def measure(spark: SparkSession, settings: Settings, pipeline: Pipeline, name: str) -> None:
    """Train a model and print what it is worth."""
    model = pipeline.models[name]
    with session(settings, Account.STREAM) as connection:
        refresh = begin_refresh(connection, pipeline, name, "bench")
    train(spark, settings, pipeline, name, refresh)
    with session(settings, Account.STREAM) as connection, connection.cursor() as cursor:
        verdict = promote_or_reject(connection, pipeline, name, refresh)
        end_refresh(connection, refresh, "skipped", reason="a bench")
        trained = versions.version_of_refresh(connection, pipeline.name, name, refresh)
        assert trained is not None
        cursor.execute(
            "SELECT version, value, low, high FROM evaluations WHERE refresh_id = %s AND metric = %s",
            (refresh, model.promotion.metric),
        )
        found = {version: ends for version, *ends in cursor.fetchall()}
    details = json.loads(trained.details or "{}")
    print(f"\n{name}: {trained.train_rows:,} flights to train on, {trained.holdout_rows:,} held out", flush=True)
    print(
        f"  from {trained.holdout_from} to {trained.holdout_until} UTC, measured {details['measured_rows']:,} of them"
    )
    for who, version in ((f"{model.estimator}", trained.version), (f"baseline {model.baseline}", BASELINE)):
        value, low, high = found[version]
        print(f"  {model.promotion.metric} {value:.4f} (95 %: {low:.4f} to {high:.4f})  {who}", flush=True)
    print(f"  {verdict.reason}")
    leading = list(details["importance"].items())[:5]
    print(f"  leading features: {', '.join(f'{feature} {share:.2f}' for feature, share in leading)}")
    print(
        f"  seconds: {', '.join(f'{step} {seconds:.0f}' for step, seconds in details['seconds'].items())}", flush=True
    )


def main() -> None:
    """Run the bench on a stack of its own."""
    with (
        own_settings(TIDEMILL_SPARK_DRIVER_MEMORY="4g") as settings,
        Stack(settings, parts=("mariadb", "kafka")) as stack,
    ):
        stack.start(print)
        pipeline = declare(settings, settings.state / "pipelines")
        apply.apply_all(settings, [pipeline], lambda _: None)
        load(settings, pipeline)
        spark = ml_session("bench", settings)
        for name in pipeline.models:
            measure(spark, settings, pipeline, name)
        spark.stop()


if __name__ == "__main__":
    main()
