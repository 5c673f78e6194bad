"""A fitted model scores the same in Spark, in the scoring job and in a stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from support.models import own_schemas
from support.scores import HONEST, PARCELS, Parcel, Post, open_post, some_parcels
from support.trained import TrainedModel, adopt
from tidemill.config import Settings
from tidemill.ml.data.reader import read_features
from tidemill.ml.refresh import begin_refresh
from tidemill.ml.registry import versions
from tidemill.ml.serving.publish import publish
from tidemill.ml.serving.score import score
from tidemill.ml.training.estimators import score_column
from tidemill.ml.training.evaluate import load_model
from tidemill.ml.training.train import train
from tidemill.spec.estimators import problem_of

ODD = [
    Parcel(9_001, None, None, None, None),
    Parcel(9_002, "Rom", 0.001, 1e300, 1),
    Parcel(9_003, "", 9_999_999.999, -1e-300, 0),
]
"""Nothing known; a city never seen in training, and numbers far from any other."""


@pytest.fixture
def place(mariadb: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Schemas of its own."""
    with own_schemas(mariadb, tmp_path / "models") as own:
        yield own


def stream_scores_as_mllib(spark: SparkSession, post: Post) -> None:
    """The stream's scores of new, missing and extreme values are those of version 1, evaluated by Spark."""
    version = versions.read_version(post.connection, "post", post.model, 1)
    post.point(1, 1)
    fresh = [*some_parcels(300, first=5_000), *ODD]
    post.write(fresh)
    rows = read_features(spark, post.settings, post.pipeline, post.model).where("id >= 5000")
    predicted = load_model(version).transform(rows)
    score_of = score_column(problem_of(post.pipeline.models[post.model]), predicted)
    by_spark = {row["id"]: row["score"] for row in predicted.select("id", score_of.alias("score")).collect()}
    assert post.scores(1) == pytest.approx(by_spark, rel=1e-9, abs=1e-12)
    assert len(by_spark) == len(fresh)
    post.connection.close()


def test_a_stream_scores_as_mllib_does(
    jdbc: SparkSession, breaks_model: TrainedModel, place: Settings, tmp_path: Path
) -> None:
    """The whole way, with the session's boosted trees: columns of the database, the stream's transaction, the score.

    That the portable form of every estimator scores as MLlib does is in ``test_estimators.py``.
    """
    post = open_post(place, tmp_path, features=HONEST)
    adopt(post, breaks_model)
    stream_scores_as_mllib(jdbc, post)


@pytest.mark.full
@pytest.mark.parametrize(
    ("estimator", "declared"),
    [
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
def test_a_stream_scores_as_mllib_does_with_every_estimator(
    jdbc: SparkSession, place: Settings, tmp_path: Path, estimator: str, declared: dict[str, object]
) -> None:
    """The whole way with models of the other estimators, each trained here."""
    post = open_post(place, tmp_path, features=HONEST, estimator=estimator, **declared)
    post.write(some_parcels(PARCELS))
    refresh = begin_refresh(post.connection, post.pipeline, post.model, "first")
    train(jdbc, place, post.pipeline, post.model, refresh)
    stream_scores_as_mllib(jdbc, post)


def test_stream_and_scoring_job_agree_to_the_last_bit(
    jdbc: SparkSession, breaks_model: TrainedModel, place: Settings, tmp_path: Path
) -> None:
    """The same rows scored by both have the same bits; what the stream has scored the job leaves alone."""
    post = open_post(place, tmp_path, features=HONEST)
    post.write(some_parcels(PARCELS))
    first = adopt(post, breaks_model)
    assert score(jdbc, place, post.pipeline, post.model, first) == PARCELS
    publish(post.connection, place, post.pipeline, post.model, first)
    by_job = post.scores(1)
    # The same content again, a second younger: the stream scores every row anew, in other batches and another order.
    again = [Parcel(**(vars(p) | {"version": 1})) for p in reversed(some_parcels(PARCELS))]
    for start in range(0, PARCELS, 500):
        post.write(again[start : start + 500])
    by_stream = post.scores(1)
    assert {key: value.hex() for key, value in by_stream.items()} == {k: v.hex() for k, v in by_job.items()}
    assert len(set(by_job.values())) > 20
    second = begin_refresh(post.connection, post.pipeline, post.model, "second")
    assert score(jdbc, place, post.pipeline, post.model, second) == 0
    post.connection.close()


def test_publishing_keeps_what_the_stream_scored_since(
    jdbc: SparkSession, breaks_model: TrainedModel, place: Settings, tmp_path: Path
) -> None:
    """A row that changed between the job's reading and the publication shows its newest content's score."""
    post = open_post(place, tmp_path, features=HONEST)
    post.write(some_parcels(1_200))
    refresh = adopt(post, breaks_model)
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
