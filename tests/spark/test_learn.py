"""Training and scoring of the made-up shop, by Spark, on the real database."""

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

from support.models import BEGIN, FEATURES, Order, Shop, open_shop, outdate, own_schemas, some_orders, unlabelled
from tidemill.config import Account, Settings
from tidemill.errors import ModelError
from tidemill.ml.data.reader import read_features
from tidemill.ml.refresh import begin_refresh
from tidemill.ml.registry import versions
from tidemill.ml.registry.details import VersionDetails
from tidemill.ml.registry.promotion import promote_or_reject
from tidemill.ml.serving import feature_bins
from tidemill.ml.serving.publish import publish
from tidemill.ml.serving.score import score
from tidemill.ml.training.evaluate import load_model
from tidemill.ml.training.train import train

ORDERS, DAYS = 1_500, 60
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
    empty.commit(some_orders(ORDERS, DAYS))
    return empty


def begin(shop: Shop, run: str = "first") -> int:
    outdate(shop.connection)
    return begin_refresh(shop.connection, shop.pipeline, shop.model, run)


def trained(spark: SparkSession, shop: Shop, run: str = "first") -> int:
    """A refresh that has trained and judged; returns its id."""
    refresh = begin(shop, run)
    train(spark, shop.settings, shop.pipeline, shop.model, refresh)
    promote_or_reject(shop.connection, shop.pipeline, shop.model, refresh)
    return refresh


def scored(spark: SparkSession, shop: Shop, refresh: int) -> int:
    return score(spark, shop.settings, shop.pipeline, shop.model, refresh)


def test_from_rows_to_published_scores(jdbc: SparkSession, shop: Shop) -> None:
    """A model is trained on the past, beats the baseline on what came after, and every row gets its score.

    Rows that nobody has a label for get one too, and so do rows with missing and never seen values. Repeating a step
    repeats nothing. What is written later is scored later, and nothing else.
    """
    shop.commit(ODD)
    refresh = trained(jdbc, shop)
    champion = versions.read_champion(shop.connection, "shop", shop.model)
    assert champion is not None
    assert champion.holdout_until == BEGIN + dt.timedelta(days=DAYS * (ORDERS - 1) / ORDERS)
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

    changed = [replace(some_orders(ORDERS, DAYS)[0], amount=1), *unlabelled(some_orders(2, first=5_000))]
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


def test_the_same_rows_give_the_same_model(
    jdbc: SparkSession, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second training on the same rows measures exactly the same, and so does not replace the champion.

    Where MLflow is told of the first one, it loads the model that was recorded.
    """
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := (tmp_path / "runs").as_uri())
    settings, shop.settings = shop.settings, shop.settings.model_copy(update={"mlflow_tracking_uri": uri})
    trained(jdbc, shop)
    _mlflow_loads_it(jdbc, shop, uri, tmp_path)
    shop.settings = settings
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


def test_a_form_asks_for_a_range_and_parameters(jdbc: SparkSession, shop: Shop) -> None:
    """A run may learn from a part of the time and with other parameters; what was asked is kept, wrong is a sentence.

    A champion that was trained on rows that are held out now is said to have been.
    """
    trained(jdbc, shop)
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
    """A model without a label goes the same way: judged by its silhouette, its score the number of the cluster."""
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


def test_a_champion_of_other_features_gives_way(jdbc: SparkSession, shop: Shop, tmp_path: Path) -> None:
    """After the author took a feature away the champion cannot read the rows, is not measured, and is replaced."""
    trained(jdbc, shop)
    poorer = shop.changed(tmp_path, features=FEATURES.replace(" o.city,", ""))
    second = trained(jdbc, poorer, "second")
    assert versions.read_evaluations(shop.connection, second, "areaUnderROC")[1].value is None
    champion = versions.read_champion(shop.connection, "shop", shop.model)
    assert champion is not None
    assert champion.version == 2
    assert scored(jdbc, poorer, second) == ORDERS


@pytest.mark.parametrize(
    ("estimator", "parameters"),
    [
        pytest.param("logistic_regression", {"maxIter": 5}, id="logistic-regression"),
        pytest.param("random_forest_classifier", {"numTrees": 3, "maxBins": 2}, id="forest-with-too-few-bins"),
    ],
)
def test_every_estimator_takes_missing_and_unseen_values(
    jdbc: SparkSession, shop: Shop, tmp_path: Path, estimator: str, parameters: dict[str, int]
) -> None:
    """Whatever the estimator, rows with missing and never seen values are scored, and PR is measured if asked for."""
    other = shop.changed(
        tmp_path, estimator=estimator, parameters=parameters, promotion={"metric": "areaUnderPR", "margin": 0.0}
    )
    refresh = begin(other)
    train(jdbc, other.settings, other.pipeline, other.model, refresh)
    model = load_model(versions.newest_version(other.connection, "shop", other.model))
    other.commit(ODD)
    rows = read_features(jdbc, other.settings, other.pipeline, other.model)
    odd = model.transform(rows.where("id > 9000")).select("id", "_probability").collect()
    assert sorted(row["id"] for row in odd) == [order.id for order in ODD]
    assert all(0 <= row["_probability"][1] <= 1 for row in odd)
    assert set(versions.read_evaluations(other.connection, refresh, "areaUnderPR")) == {0, 1}


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
    jdbc: SparkSession, mariadb: Settings, tmp_path: Path, kind: str, as_key: Callable[[int], object]
) -> None:
    """Nothing rests on whole-number keys: rows with any other are read, scored and published, each under its own."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        shop = open_shop(settings, tmp_path, key=kind)
        shop.commit([replace(order, id=as_key(order.id)) for order in some_orders(600, DAYS)])
        refresh = trained(jdbc, shop)
        assert scored(jdbc, shop, refresh) == 600
        assert publish(shop.connection, settings, shop.pipeline, shop.model, refresh) == 600
        assert shop.query("SELECT COUNT(score) FROM orders_scored") == [(600,)]
        shop.connection.close()


@pytest.mark.parametrize(
    ("change", "code", "value"),
    [
        pytest.param({"parameters": {"depth": 3}}, "TM-ML-PARAMETER-UNKNOWN", "depth", id="name"),
        pytest.param({"parameters": {"maxIter": "many"}}, "TM-ML-PARAMETER-REJECTED", "'many'", id="value"),
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


def test_scoring_needs_a_champion_and_its_artifact(jdbc: SparkSession, shop: Shop) -> None:
    """Without a champion, or without the files of the one there is, scoring says so and completes nothing."""
    refresh = begin(shop)
    with pytest.raises(ModelError) as raised:
        scored(jdbc, shop, refresh)
    assert raised.value.code == "TM-ML-NO-CHAMPION"
    trained(jdbc, shop)
    with shop.connection.cursor() as cursor:
        cursor.execute("DELETE FROM portable_models")  # with the portable form the database alone would do
    shutil.rmtree(shop.settings.models / "shop" / "returns" / "1")
    with pytest.raises(ModelError) as raised:
        scored(jdbc, shop, refresh)
    assert raised.value.code == "TM-ML-ARTIFACT-MISSING"
    assert str(raised.value.value).endswith("/shop/returns/1")
    assert shop.control("SELECT scored_version FROM refreshes") == [(None,)]


def test_what_an_interrupted_training_left_does_no_harm(jdbc: SparkSession, shop: Shop) -> None:
    """A folder that no row knows, of the number that comes next, is replaced."""
    left = shop.settings.models / "shop" / "returns" / "1" / "metadata"
    left.mkdir(parents=True)
    trained(jdbc, shop)
    assert scored(jdbc, shop, begin(shop)) == ORDERS
    assert [found.name for found in (shop.settings.models / "shop" / "returns").iterdir()] == ["1"]


def test_the_password_is_in_no_plan(jdbc: SparkSession, shop: Shop) -> None:
    """Spark does not show the account's password where it shows the read."""
    rows = read_features(jdbc, shop.settings, shop.pipeline, shop.model)
    shown = rows._jdf.queryExecution().toString() + str(rows._jdf.queryExecution().logical().toJSON())
    assert "orders" in shown
    assert shop.settings.password(Account.READ).get_secret_value() not in shown
