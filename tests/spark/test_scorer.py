"""A fitted model scores the same in Spark, in the scoring job and in a stream."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from support.models import own_schemas
from support.scores import FEATURES, Parcel, Post, open_post
from tidemill.config import Settings
from tidemill.ml.data.reader import read_features
from tidemill.ml.refresh import begin_refresh
from tidemill.ml.registry import versions
from tidemill.ml.registry.promotion import promote_or_reject
from tidemill.ml.serving.publish import publish
from tidemill.ml.serving.score import score
from tidemill.ml.training.estimators import score_column
from tidemill.ml.training.evaluate import load_model
from tidemill.ml.training.train import train
from tidemill.spec.estimators import problem_of

PARCELS = 3_000
HONEST = FEATURES.replace(" h.parcels,", "")
"""Without the rollup, which goes on counting: training would refuse it."""
ODD = [
    Parcel(9_001, None, None, None, None),
    Parcel(9_002, "Rom", 0.001, 1e300, 1),
    Parcel(9_003, "", 9_999_999.999, -1e-300, 0),
]
"""Nothing known; a city never seen in training, and numbers far from any other."""


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


@pytest.fixture
def place(mariadb: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Schemas of their own."""
    with own_schemas(mariadb, tmp_path / "models") as own:
        yield own


def trained(spark: SparkSession, post: Post, run: str = "first") -> int:
    """A refresh that has trained and promoted; returns its id."""
    refresh = begin_refresh(post.connection, post.pipeline, post.model, run)
    train(spark, post.settings, post.pipeline, post.model, refresh)
    promote_or_reject(post.connection, post.pipeline, post.model, refresh)
    return refresh


@pytest.mark.parametrize(
    ("estimator", "declared"),
    [
        pytest.param("gbt_classifier", {"parameters": {"maxIter": 5, "maxDepth": 4}}, id="boosted-classes"),
        pytest.param("random_forest_classifier", {"parameters": {"numTrees": 4}}, id="forest-of-classes"),
        pytest.param("logistic_regression", {"parameters": {"maxIter": 8}}, id="logistic"),
        pytest.param(
            "gbt_regressor", {"parameters": {"maxIter": 3}, "promotion": {"metric": "rmse"}}, id="boosted-numbers"
        ),
        pytest.param(
            "random_forest_regressor", {"parameters": {"numTrees": 3}, "promotion": {"metric": "mae"}}, id="forest"
        ),
        pytest.param("linear_regression", {"parameters": {}, "promotion": {"metric": "rmse"}}, id="linear"),
        pytest.param(
            "kmeans",
            {"parameters": {"k": 4}, "promotion": {"metric": "silhouette"}, "label": None, "baseline": None},
            id="clusters",
        ),
    ],
)
def test_without_a_jvm_the_scores_are_mllibs(
    jdbc: SparkSession, place: Settings, tmp_path: Path, estimator: str, declared: dict[str, object]
) -> None:
    """The stream's scores of new, missing and far-off values are those of the artifact, evaluated by Spark."""
    post = open_post(place, tmp_path, features=HONEST, estimator=estimator, **declared)
    post.write(some_parcels(1_200))
    trained(jdbc, post)
    version = versions.newest_version(post.connection, "post", post.model)
    assert version is not None
    post.point(version.version, version.version)
    fresh = [*some_parcels(300, first=5_000), *ODD]
    post.write(fresh)
    rows = read_features(jdbc, place, post.pipeline, post.model).where("id >= 5000")
    predicted = load_model(version).transform(rows)
    asked = predicted.select("id", score_column(problem_of(post.pipeline.models[post.model]), predicted).alias("score"))
    by_spark = {row["id"]: row["score"] for row in asked.collect()}
    assert post.scores(version.version) == pytest.approx(by_spark, rel=1e-9, abs=1e-12)
    assert len(by_spark) == len(fresh)
    post.connection.close()


def test_stream_and_scoring_job_agree_to_the_last_bit(jdbc: SparkSession, place: Settings, tmp_path: Path) -> None:
    """The same rows scored by both have the same bits; what the stream has scored the job leaves alone."""
    post = open_post(place, tmp_path, features=HONEST)
    post.write(some_parcels(PARCELS))
    first = trained(jdbc, post)
    assert score(jdbc, place, post.pipeline, post.model, first) == PARCELS
    publish(post.connection, place, post.pipeline, post.model, first)
    by_job = post.scores(1)
    # The same content again, a second younger: the stream scores every row anew, in other batches and another order.
    again = [Parcel(**(vars(p) | {"version": 1})) for p in reversed(some_parcels(PARCELS))]
    for start in range(0, PARCELS, 700):
        post.write(again[start : start + 700])
    by_stream = post.scores(1)
    assert {key: value.hex() for key, value in by_stream.items()} == {k: v.hex() for k, v in by_job.items()}
    assert len(set(by_job.values())) > 20
    second = begin_refresh(post.connection, post.pipeline, post.model, "second")
    assert score(jdbc, place, post.pipeline, post.model, second) == 0
    post.connection.close()


def test_publishing_keeps_what_the_stream_scored_since(jdbc: SparkSession, place: Settings, tmp_path: Path) -> None:
    """A row that changed between the job's reading and the publication shows its newest content's score."""
    post = open_post(place, tmp_path, features=HONEST)
    post.write(some_parcels(1_200))
    refresh = trained(jdbc, post)
    score(jdbc, place, post.pipeline, post.model, refresh)
    waiting = dict(post.query("SELECT id, score FROM parcel_scores_pending"))
    changed = next(p for p in some_parcels(1_200) if p.fragile)
    counts = post.write([Parcel(changed.id, "Kiel", 29.0, 999.0, 0, version=9)])
    publish(post.connection, place, post.pipeline, post.model, refresh)
    [(seen, commit)] = post.query(
        f"SELECT v.score, s.scored_commit FROM parcels_scored AS v JOIN parcel_scores AS s USING (id, model_version)"
        f" WHERE id = {changed.id}"
    )
    assert commit == counts.commit_id
    assert seen != waiting[changed.id]
    assert post.query("SELECT COUNT(*), COUNT(score) FROM parcels_scored") == [(1_200, 1_200)]
    post.connection.close()


def test_a_read_is_cut_into_parts_of_the_same_size(jdbc: SparkSession, place: Settings, tmp_path: Path) -> None:
    """Keys that lie far apart make no part larger than the others; CHAR has no blanks, TINYINT(1) is a number."""
    post = open_post(place, tmp_path, features=HONEST, read_parallelism=4)
    crowded = [Parcel(n, "Ulm", 1.0, 1.0, 2) for n in range(1, 700)]
    post.write([*crowded, *(Parcel(100_000 * n, "Ulm", 1.0, 1.0, 2) for n in range(1, 102))])
    rows = read_features(jdbc, place, post.pipeline, post.model)
    sizes = [row["count"] for row in rows.groupBy(F.spark_partition_id()).count().collect()]
    assert len(sizes) == 4
    assert max(sizes) <= 201
    assert rows.select("city", F.col("fragile").cast("double")).distinct().collect() == [("Ulm", 2.0)]
    post.connection.close()
