"""Training and scoring of the made-up shop, by Spark, on the real database.

Tests that only need a model are given the session's one, ``returns_model``, which ``conftest.py`` trains.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import mlflow.spark
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from support.models import (
    BEGIN,
    FEATURES,
    ORDER_DAYS,
    ORDERS,
    Order,
    Shop,
    open_shop,
    outdate,
    own_schemas,
    some_orders,
    unlabelled,
)
from support.trained import TrainedModel, adopt
from support.trained import begin as begin_run
from tidemill.config import Account, Settings
from tidemill.errors import ModelError
from tidemill.ml.data.reader import read_features
from tidemill.ml.data.sample import build_sample
from tidemill.ml.refresh import begin_refresh
from tidemill.ml.registry import versions
from tidemill.ml.registry.details import VersionDetails
from tidemill.ml.registry.promotion import promote_or_reject
from tidemill.ml.serving import feature_bins
from tidemill.ml.serving.publish import publish
from tidemill.ml.serving.score import score
from tidemill.ml.training.evaluate import load_model
from tidemill.ml.training.train import train

TEN_DAYS = dt.timedelta(days=10)
ODD = [
    Order(9_001, BEGIN + dt.timedelta(days=70), None, None, None, None),
    Order(9_002, BEGIN + dt.timedelta(days=70), 10, "Rom", 3.0, None),
    Order(9_003, BEGIN + dt.timedelta(days=70), -(10**9), "", -1e300, None),
]
"""Nothing known; a city never seen in training; numbers far from any other."""


@pytest.fixture
def empty(mariadb: Settings, tmp_path: Path) -> Iterator[Shop]:
    """A shop without orders."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        shop = open_shop(settings, tmp_path)
        yield shop
        shop.connection.close()


@pytest.fixture
def shop(empty: Shop) -> Shop:
    """A shop of two months."""
    empty.commit(some_orders(ORDERS, ORDER_DAYS))
    return empty


def begin(shop: Shop, run: str = "first") -> int:
    return begin_run(shop, run)


def trained(spark: SparkSession, shop: Shop, run: str = "first") -> int:
    """A refresh that has trained, and promoted or rejected; returns its id."""
    refresh = begin(shop, run)
    train(spark, shop.settings, shop.pipeline, shop.model, refresh)
    promote_or_reject(shop.connection, shop.pipeline, shop.model, refresh)
    return refresh


def scored(spark: SparkSession, shop: Shop, refresh: int) -> int:
    return score(spark, shop.settings, shop.pipeline, shop.model, refresh)


def test_from_rows_to_published_scores(jdbc: SparkSession, shop: Shop, returns_model: TrainedModel) -> None:
    """A model is trained on the past, is better than the baseline on the holdout, and every row gets its score.

    Rows without a label get one, too, and so do rows with missing and unseen values. A repeated step changes nothing.
    A later refresh scores the rows that were written since, and no others.
    """
    shop.commit(ODD)
    refresh = adopt(shop, returns_model)
    champion = versions.read_champion(shop.connection, "shop", shop.model)
    assert champion is not None
    assert champion.holdout_until == BEGIN + dt.timedelta(days=ORDER_DAYS * (ORDERS - 1) / ORDERS)
    assert champion.holdout_from == champion.holdout_until - dt.timedelta(days=10)
    assert (champion.train_rows, champion.holdout_rows) == (1249, 251)
    measured = versions.read_evaluations(shop.connection, refresh, "areaUnderROC")
    assert measured[champion.version].value > measured[versions.BASELINE].value > 0
    assert train(jdbc, shop.settings, shop.pipeline, shop.model, refresh) == champion.version

    assert scored(jdbc, shop, refresh) == ORDERS + len(ODD)
    assert scored(jdbc, shop, refresh) == 0
    assert publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh) == ORDERS + len(ODD)
    (row,) = shop.query(
        "SELECT COUNT(*), SUM(score BETWEEN 0 AND 1), MIN(model_version), MAX(as_of_commit) FROM orders_scored"
    )
    assert tuple(map(int, row)) == (ORDERS + len(ODD), ORDERS + len(ODD), champion.version, 2)
    ((likely, unlikely),) = shop.query(
        "SELECT AVG(IF(returned = 1, score, NULL)), AVG(IF(returned = 0, score, NULL)) FROM orders_scored"
    )
    assert likely > unlikely + 0.05

    changed = [replace(some_orders(ORDERS, ORDER_DAYS)[0], amount=1), *unlabelled(some_orders(2, first=5_000))]
    shop.commit(changed)
    second = begin(shop, "second")
    assert scored(jdbc, shop, second) == len(changed)


def _mlflow_loads_it(spark: SparkSession, shop: Shop, uri: str, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    [experiment] = [each for each in client.search_experiments() if each.name == f"shop.{shop.model}"]
    [run] = client.search_runs([experiment.experiment_id])
    loaded = mlflow.spark.load_model(f"runs:/{run.info.run_id}/model", dfs_tmpdir=(tmp_path / "dfs").as_uri())
    champion = versions.read_champion(shop.connection, "shop", shop.model)
    assert champion is not None
    ours = load_model(champion)
    rows = read_features(spark, shop.settings, shop.pipeline, shop.model)
    both = [model.transform(rows).select("id", "_probability").orderBy("id").collect() for model in (ours, loaded)]
    assert both[0] == both[1]
    assert len(both[0]) == ORDERS


def test_mlflow_loads_the_model_that_was_recorded(
    jdbc: SparkSession,
    shop: Shop,
    returns_model: TrainedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The session's model was logged to MLflow when it was trained."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", returns_model.mlflow_uri)
    adopt(shop, returns_model)
    _mlflow_loads_it(jdbc, shop, returns_model.mlflow_uri, tmp_path)


def test_the_same_rows_give_the_same_model(jdbc: SparkSession, shop: Shop, returns_model: TrainedModel) -> None:
    """A second training on the same rows measures exactly the same, and so does not replace the champion."""
    adopt(shop, returns_model)
    second = trained(jdbc, shop, "second")
    measured = versions.read_evaluations(shop.connection, second, "areaUnderROC")
    assert measured[1].value == pytest.approx(measured[2].value, abs=1e-12)
    assert measured[1].difference == (0, 0), "of the same model there is no difference"
    assert shop.control("SELECT version, state FROM model_versions ORDER BY version") == [
        (1, "champion"),
        (2, "rejected"),
    ]
    assert shop.control("SELECT version, verdict, decided_by FROM decisions ORDER BY id") == [
        (1, "promoted", "measure"),
        (2, "rejected", "measure"),
    ]
    _all_is_known(shop, second)


def _all_is_known(shop: Shop, refresh: int) -> None:
    """Every metric of the three candidates with its interval, and the details of the version that lost."""
    measured = shop.control(f"SELECT version, metric, value, low, high FROM evaluations WHERE refresh_id = {refresh}")
    metrics = ("areaUnderROC", "areaUnderPR", "logLoss")
    assert {row[:2] for row in measured} == {(version, metric) for version in (0, 1, 2) for metric in metrics}
    assert all(low <= value <= high for _, _, value, low, high in measured)
    lost = versions.newest_version(shop.connection, "shop", shop.model)
    assert lost is not None
    details = VersionDetails.from_json(lost.details)
    assert (details.problem, details.seed, details.options) == ("classification", 20130101, {})
    assert details.parameters == {"maxIter": 4, "maxDepth": 3, "maxBins": 32, "seed": 20130101}
    assert set(details.seconds) == {"read", "check", "fit", "measure"}
    assert set(details.importance) == {"amount", "city", "distance"}
    assert set(feature_bins.from_json(lost.training_distribution)) == {"amount", "city", "distance"}
    assert (details.measured_rows, lost.champion_saw_holdout) == (251, False)
    assert sum(part["rows"] for part in details.calibration) == 251
    assert shop.control("SELECT version FROM portable_models ORDER BY version") == [(1,), (2,)]


def test_a_form_asks_for_a_range_and_parameters(jdbc: SparkSession, shop: Shop, returns_model: TrainedModel) -> None:
    """A run may train on a part of the time and with other parameters, which are recorded; a wrong one is an error.

    The reason names a champion that was trained on rows that are held out now.
    """
    adopt(shop, returns_model)
    end = BEGIN + dt.timedelta(days=40)
    asked = {
        "from": (BEGIN + dt.timedelta(days=10)).isoformat(),
        "until": end.isoformat(),
        "parameters": {"maxIter": 2},
    }
    outdate(shop.connection)
    refresh = begin_refresh(shop.connection, shop.pipeline, shop.model, "a form", asked)
    train(jdbc, shop.settings, shop.pipeline, shop.model, refresh)
    found = versions.newest_version(shop.connection, "shop", shop.model)
    assert found is not None
    assert (found.train_from, found.holdout_from) == (BEGIN + dt.timedelta(days=10), found.holdout_until - TEN_DAYS)
    assert found.holdout_until < end
    details = VersionDetails.from_json(found.details)
    assert (details.options, details.parameters["maxIter"]) == (asked, 2)
    assert found.champion_saw_holdout
    assert (
        "which was trained on some of these rows"
        in promote_or_reject(shop.connection, shop.pipeline, shop.model, refresh).reason
    )
    outdate(shop.connection)
    wrong = begin_refresh(shop.connection, shop.pipeline, shop.model, "another", {"parameters": {"depth": 2}})
    with pytest.raises(ModelError) as raised:
        train(jdbc, shop.settings, shop.pipeline, shop.model, wrong)
    assert (raised.value.code, raised.value.value) == ("TM-ML-PARAMETER-UNKNOWN", "depth")


def test_clusters_are_scored_and_published(jdbc: SparkSession, shop: Shop, tmp_path: Path) -> None:
    """A model without a label is promoted by its silhouette, and its score is the number of the cluster."""
    clusters = shop.changed(
        tmp_path,
        features=FEATURES.replace(" o.returned = 1 AS returned,", ""),
        estimator="kmeans",
        parameters={"k": 3},
        label=None,
        baseline=None,
        promotion={"metric": "silhouette", "margin": 0.0},
    )
    refresh = trained(jdbc, clusters)
    clusters.commit(ODD)
    measured = versions.read_evaluations(clusters.connection, refresh, "silhouette")
    assert measured[1].value > measured[versions.BASELINE].value == 0
    assert scored(jdbc, clusters, refresh) == ORDERS + len(ODD)
    publish(clusters.connection, clusters.settings, clusters.pipeline, clusters.model, refresh)
    numbers = {score for (score,) in clusters.query("SELECT DISTINCT score FROM orders_scored")}
    assert numbers == {0.0, 1.0, 2.0}


def test_models_may_lie_behind_a_uri(jdbc: SparkSession, shop: Shop, tmp_path: Path) -> None:
    """Written, renamed and read through Hadoop's file system: Spark alone scores from there."""
    settings = shop.settings.model_copy(update={"models": (tmp_path / "far").as_uri()})
    far = replace(shop, settings=settings)
    refresh = trained(jdbc, far)
    champion = versions.read_champion(far.connection, "shop", far.model)
    assert champion is not None
    assert champion.artifact == f"{settings.models}/shop/returns/1"
    assert (tmp_path / "far" / "shop" / "returns" / "1" / "metadata").is_dir()
    with far.connection.cursor() as cursor:
        cursor.execute("DELETE FROM portable_models")
    assert scored(jdbc, far, refresh) == ORDERS


def test_a_champion_of_other_features_gives_way(
    jdbc: SparkSession, shop: Shop, returns_model: TrainedModel, tmp_path: Path
) -> None:
    """When the author has removed a feature the champion cannot read the rows, is not measured, and is replaced."""
    adopt(shop, returns_model)
    poorer = shop.changed(tmp_path, features=FEATURES.replace(" o.city,", ""))
    second = trained(jdbc, poorer, "second")
    assert versions.read_evaluations(shop.connection, second, "areaUnderROC")[1].value is None
    champion = versions.read_champion(shop.connection, "shop", shop.model)
    assert champion is not None
    assert champion.version == 2
    assert scored(jdbc, poorer, second) == ORDERS


def test_times_and_order_of_the_read(jdbc: SparkSession, empty: Shop) -> None:
    """A DATETIME arrives as the µs since 1970 that it is in UTC, also in an hour that summer time skips elsewhere."""
    when = dt.datetime(2026, 3, 29, 2, 30, 0, 123456)
    empty.commit([replace(ODD[1], ordered_at=when)])
    (row,) = read_features(jdbc, empty.settings, empty.pipeline, empty.model).collect()
    assert row["_known_us"] == int(when.replace(tzinfo=dt.UTC).timestamp()) * 1_000_000 + 123456
    assert (row["amount"], row["city"], row["_label"], row["_commit"]) == (10, "Rom", None, 1)


@pytest.mark.parametrize(
    ("kind", "as_key"),
    [
        pytest.param("VARCHAR(12)", lambda n: f"n° {n}", id="text"),
        pytest.param("DATETIME(6)", lambda n: BEGIN + dt.timedelta(hours=n, microseconds=n), id="time"),
    ],
)
def test_keys_that_are_no_numbers(
    jdbc: SparkSession,
    mariadb: Settings,
    returns_model: TrainedModel,
    tmp_path: Path,
    kind: str,
    as_key: Callable[[int], object],
) -> None:
    """Keys need not be whole numbers: rows with any other key are read, scored and published under their own key."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        shop = open_shop(settings, tmp_path, key=kind)
        shop.commit([replace(order, id=as_key(order.id)) for order in some_orders(600, ORDER_DAYS)])
        sample = build_sample(
            read_features(jdbc, settings, shop.pipeline, shop.model), shop.pipeline.models[shop.model]
        )
        assert sample.train_rows + sample.holdout_rows == 600
        sample.rows.unpersist()
        refresh = adopt(shop, returns_model)
        assert scored(jdbc, shop, refresh) == 600
        assert publish(shop.connection, settings, shop.pipeline, shop.model, refresh) == 600
        assert shop.query("SELECT COUNT(score) FROM orders_scored") == [(600,)]
        shop.connection.close()


@pytest.mark.parametrize(
    ("change", "code", "value"),
    [
        pytest.param(
            {"features": FEATURES.replace("o.city", "o.ordered_at AS placed_at")},
            "TM-ML-FEATURE-TYPE",
            "timestamp",
            id="time-as-feature",
        ),
        pytest.param({"baseline": "city"}, "TM-ML-BASELINE-NOT-NUMBER", "city", id="baseline-of-text"),
    ],
)
def test_errors_of_a_declaration_that_only_spark_sees(
    jdbc: SparkSession, shop: Shop, tmp_path: Path, change: dict[str, object], code: str, value: str
) -> None:
    """Each condition has its code, and the training records no version."""
    wrong = shop.changed(tmp_path, **change)
    with pytest.raises(ModelError) as raised:
        train(jdbc, wrong.settings, wrong.pipeline, wrong.model, begin(wrong))
    assert raised.value.code == code
    assert str(raised.value.value).startswith(value)
    assert shop.control("SELECT COUNT(*) FROM model_versions") == [(0,)]


def test_errors_of_rows_that_cannot_be_learned(jdbc: SparkSession, empty: Shop, tmp_path: Path) -> None:
    """No label yet, too few rows, labels of more than two classes, or of one class only: each has its code."""

    def fails(shop: Shop, code: str, **parameters: object) -> object:
        with pytest.raises(ModelError) as raised:
            train(jdbc, shop.settings, shop.pipeline, shop.model, begin(shop))
        assert (raised.value.code, raised.value.parameters) == (code, parameters)
        return raised.value.value

    empty.commit(unlabelled(some_orders(10)))
    assert fails(empty, "TM-ML-NO-LABELS") == "returned"
    empty.commit(some_orders(50))
    assert fails(empty, "TM-ML-TOO-FEW-ROWS", part="to train on", least=100) == 41
    odd = empty.changed(tmp_path, features=FEATURES.replace("o.returned = 1 AS", "o.returned * 2 AS"))
    empty.commit(some_orders(ORDERS))
    assert int(str(fails(odd, "TM-ML-LABELS-NOT-BINARY", part="to train on"))) > 0
    empty.changed(tmp_path)
    empty.commit([replace(order, returned=1) for order in some_orders(ORDERS)])
    assert fails(empty, "TM-ML-LABELS-EQUAL", part="to train on", count=1249) == "1"


def test_scoring_needs_a_champion_and_its_artifact(jdbc: SparkSession, shop: Shop, returns_model: TrainedModel) -> None:
    """Without a champion, or without the files of its artifact, scoring fails and completes nothing."""
    refresh = begin(shop)
    with pytest.raises(ModelError) as raised:
        scored(jdbc, shop, refresh)
    assert raised.value.code == "TM-ML-NO-CHAMPION"
    adopt(shop, returns_model)
    with shop.connection.cursor() as cursor:
        cursor.execute("DELETE FROM portable_models")  # with the portable form the database alone would do
    shutil.rmtree(shop.settings.models / "shop" / "returns" / "1")
    with pytest.raises(ModelError) as raised:
        scored(jdbc, shop, refresh)
    assert raised.value.code == "TM-ML-ARTIFACT-MISSING"
    assert str(raised.value.value).endswith("/shop/returns/1")
    assert shop.control("SELECT scored_version FROM refreshes") == [(None,)]


def test_a_training_replaces_what_an_interrupted_one_left(returns_model: TrainedModel) -> None:
    """Before the session's training there was a folder of the next number, of which no row knew."""
    assert sorted(each.name for each in returns_model.files.iterdir()) == ["metadata", "stages"]
    assert [each.name for each in Path(returns_model.version.artifact).parent.iterdir()] == ["1"]


def test_the_password_is_in_no_plan(jdbc: SparkSession, shop: Shop) -> None:
    """Spark does not show the account's password where it shows the read."""
    rows = read_features(jdbc, shop.settings, shop.pipeline, shop.model)
    shown = rows._jdf.queryExecution().toString() + str(rows._jdf.queryExecution().logical().toJSON())
    assert "orders" in shown
    assert shop.settings.password(Account.READ).get_secret_value() not in shown
