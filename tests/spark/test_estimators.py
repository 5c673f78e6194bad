"""Every estimator on made-up rows, without a database: fitting, scoring unseen values, metrics and importance."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession

from tidemill.errors import ModelError
from tidemill.ml.data.sample import Sample, build_sample
from tidemill.ml.data.vectorizer import VECTOR
from tidemill.ml.registry import artifacts
from tidemill.ml.registry.versions import BASELINE, ModelVersion
from tidemill.ml.serving import drift, feature_bins
from tidemill.ml.serving.drift import training_distribution
from tidemill.ml.serving.portable_export import export
from tidemill.ml.training.details import importance, slots_of
from tidemill.ml.training.estimators import score_column
from tidemill.ml.training.evaluate import CHALLENGER, evaluate, load_model
from tidemill.ml.training.fit import FittedModel, fit
from tidemill.ml.training.options import Options
from tidemill.spec.estimators import ESTIMATORS, LIVE, Problem, metrics_of, problem_of
from tidemill.spec.schema import Model
from tidemill.store.scoring.portable_model import unpack

DAY = 86_400_000_000
ROWS = 400
FEATURES = ("amount", "city", "distance", "buyer", "ware")
SCHEMA = "id BIGINT, _known_us BIGINT, amount INT, city STRING, distance DOUBLE, buyer BIGINT, ware INT, _label DOUBLE"
SMALL = {
    "gbt_classifier": {"maxIter": 2, "maxDepth": 3},
    "gbt_regressor": {"maxIter": 2, "maxDepth": 3},
    "random_forest_classifier": {"numTrees": 2, "maxDepth": 3},
    "random_forest_regressor": {"numTrees": 2, "maxDepth": 3},
    "logistic_regression": {"maxIter": 5},
    "linear_regression": {"maxIter": 5},
    "kmeans": {"k": 3, "maxIter": 5},
    "als": {"userCol": "buyer", "itemCol": "ware", "rank": 2, "maxIter": 2},
}
ODD = [
    (9_001, 0, None, None, None, None, None, None),
    (9_002, 0, 10, "Rom", 3.0, 99, 1, None),
    (9_003, 0, -(10**9), "", -1e300, 2**40, -1, None),
]
"""Nothing known; a city and a buyer never seen in training; numbers far from any other."""
ALL = pytest.mark.parametrize(
    "estimator", [pytest.param(name, id=name.replace("_", "-")) for name in sorted(ESTIMATORS)]
)


def declare(estimator: str, **changed: Any) -> Model:
    """A model's declaration."""
    problem = changed.get("problem") or ESTIMATORS[estimator]
    metric = changed.pop("metric", metrics_of(Problem(problem))[0])
    given = {
        "features": "features.sql", "table": "orders", "key": ["id"], "known_at": "known_at",
        "label": None if problem == "clustering" else "label", "estimator": estimator,
        "parameters": SMALL.get(estimator, {}), "train": {"schedule": "@daily", "holdout_days": 10},
        "promotion": {"metric": metric}, "score": {"table": "scores", "schedule": "@daily"},
    }  # fmt: skip
    return Model(**(given | changed))


def rows_of(problem: Problem) -> list[tuple[Any, ...]]:
    """Orders evenly over 40 days: cheap ones from Kiel have the largest labels; every fifth amount is missing."""
    dice = random.Random(3)
    rows: list[tuple[Any, ...]] = []
    for n in range(ROWS):
        amount, city, distance = dice.randrange(100), dice.choice(["Ulm", "Bonn", "Kiel", None]), dice.random() * 10
        buyer, ware = dice.randrange(12), dice.randrange(8)
        value = 3 - amount / 40 + (2.0 if city == "Kiel" else 0.0) + dice.gauss(0, 0.5) + buyer % 3
        if problem is Problem.CLASSIFICATION:
            value = float(value > 3)
        rows.append((n, n * DAY // 10, None if n % 5 == 0 else amount, city, distance, buyer, ware, value))
    return rows


@pytest.fixture(scope="module")
def samples(spark: SparkSession) -> Iterator[dict[Problem, Sample]]:
    """Rows for each problem, cut in time."""
    found = {
        problem: build_sample(
            spark.createDataFrame(rows_of(problem), SCHEMA),
            declare(next(name for name, its in ESTIMATORS.items() if its is problem)),
        )
        for problem in Problem
    }
    yield found
    for sample in found.values():
        sample.rows.unpersist()


@pytest.fixture(scope="module")
def fits(samples: dict[Problem, Sample]) -> dict[str, FittedModel]:
    """Each estimator's model."""
    return {name: fit(declare(name), FEATURES, samples[its].train, Path("shop")) for name, its in ESTIMATORS.items()}


def scores(model: PipelineModel, problem: Problem, rows: DataFrame) -> list[float]:
    scored = model.transform(rows)
    return [row[0] for row in scored.orderBy("id").select(score_column(problem, scored)).collect()]


@ALL
def test_scores_what_was_never_seen(spark: SparkSession, fits: dict[str, FittedModel], estimator: str) -> None:
    """Rows with missing, unseen and absurd values have a finite score of the problem's kind, whatever the estimator."""
    problem = ESTIMATORS[estimator]
    found = scores(fits[estimator].model, problem, spark.createDataFrame(ODD, SCHEMA))
    assert len(found) == len(ODD)
    assert np.isfinite(found).all()
    if problem is Problem.CLASSIFICATION:
        assert all(0 <= score <= 1 for score in found)
    if problem is Problem.CLUSTERING:
        assert set(found) <= {0.0, 1.0, 2.0}


@ALL
def test_is_measured_beside_the_baseline(
    samples: dict[Problem, Sample], fits: dict[str, FittedModel], estimator: str
) -> None:
    """Every metric of the problem is measured, with an interval around it, and is better than the baseline's."""
    problem = ESTIMATORS[estimator]
    model = declare(estimator)
    found = evaluate(model, samples[problem], fits[estimator].model, None)
    assert found.rows == samples[problem].holdout_rows == 101
    for values in (found.values[CHALLENGER], found.values[BASELINE]):
        assert set(values) == set(metrics_of(problem))
    if problem is Problem.CLUSTERING:
        assert found.values[CHALLENGER]["silhouette"] > found.values[BASELINE]["silhouette"] == 0
        return
    for number, by_metric in found.intervals.items():
        for metric, (low, high) in by_metric.items():
            assert low <= found.values[number][metric] <= high, (number, metric)
    if problem is not Problem.RECOMMENDATION:  # which sees neither city nor amount
        better = found.differences[BASELINE][model.promotion.metric]
        assert better[0] > 0 if problem is Problem.CLASSIFICATION else better[1] < 0
    assert (found.calibration is not None) == (problem is Problem.CLASSIFICATION)


def test_too_few_bins_are_raised_to_the_categories(samples: dict[Problem, Sample]) -> None:
    """A forest takes more categories than the declared ``maxBins``."""
    model = declare("random_forest_classifier", parameters={"numTrees": 2, "maxBins": 2})
    fitted = fit(model, FEATURES, samples[Problem.CLASSIFICATION].train, Path("shop"))
    assert fitted.parameters["maxBins"] == 4, "Ulm, Bonn, Kiel, and all others"


@pytest.mark.parametrize("estimator", [pytest.param(name, id=name.replace("_", "-")) for name in sorted(LIVE)])
def test_the_portable_form_scores_as_mllib_does(
    spark: SparkSession, samples: dict[Problem, Sample], fits: dict[str, FittedModel], tmp_path: Path, estimator: str
) -> None:
    """Without a JVM, known, missing, unseen and extreme values have the scores that Spark gives them."""
    problem, artifact = ESTIMATORS[estimator], (tmp_path / "model").as_uri()
    fits[estimator].model.write().save(artifact)
    portable = export(fits[estimator], declare(estimator), artifact)
    assert portable is not None
    rows = (
        samples[problem]
        .holdout.select("id", *FEATURES)
        .union(spark.createDataFrame(ODD, SCHEMA).select("id", *FEATURES))
    )
    table = rows.orderBy("id").toArrow()
    assert table.num_rows == 101 + len(ODD)
    expected = scores(fits[estimator].model, problem, rows)
    assert unpack(portable).score(table).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_seed_is_the_models(samples: dict[Problem, Sample]) -> None:
    """The same seed gives the same scores, another one others, and both are among the parameters."""
    sample = samples[Problem.CLASSIFICATION]
    models = [declare("random_forest_classifier", seed=seed) for seed in (1, 1, 2)]
    found = [fit(model, FEATURES, sample.train, Path("shop")) for model in models]
    first, again, other = (scores(each.model, Problem.CLASSIFICATION, sample.holdout) for each in found)
    assert first == again != other
    assert [each.parameters["seed"] for each in found] == [1, 1, 2]
    assert found[0].parameters | {"maxDepth": 3, "numTrees": 2, "maxBins": 32} == found[0].parameters


def test_the_order_of_the_read_does_not_matter(spark: SparkSession, samples: dict[Problem, Sample]) -> None:
    """The database gives rows in no order: a forest, which draws rows by chance, is the same whatever it was."""
    model = declare("random_forest_classifier")
    turned = build_sample(spark.createDataFrame(rows_of(Problem.CLASSIFICATION)[::-1], SCHEMA), model)
    sample = samples[Problem.CLASSIFICATION]
    first, second = (fit(model, FEATURES, each.train, Path("shop")).model for each in (sample, turned))
    turned.rows.unpersist()
    assert scores(first, Problem.CLASSIFICATION, sample.holdout) == scores(
        second, Problem.CLASSIFICATION, sample.holdout
    )


def test_a_rating_that_cannot_be_predicted_is_the_mean(
    spark: SparkSession, samples: dict[Problem, Sample], fits: dict[str, FittedModel]
) -> None:
    """Cold users and items, absent ones and ids too large for MLlib have the mean rating of training as score."""
    mean = samples[Problem.RECOMMENDATION].train.agg({"_label": "avg"}).first()[0]
    assert scores(fits["als"].model, Problem.RECOMMENDATION, spark.createDataFrame(ODD, SCHEMA)) == [mean] * 3
    assert fits["als"].parameters["userCol"] == "buyer"


def test_clusters_do_not_depend_on_units(samples: dict[Problem, Sample], fits: dict[str, FittedModel]) -> None:
    """K-means standardises: metres instead of kilometres give the same clusters."""
    sample = samples[Problem.CLUSTERING]
    in_metres = sample.train.withColumn("distance", sample.train["distance"] * 1024)
    other = fit(declare("kmeans"), FEATURES, in_metres, Path("shop"))
    held = sample.holdout
    scaled = held.withColumn("distance", held["distance"] * 1024)
    assert scores(fits["kmeans"].model, Problem.CLUSTERING, held) == scores(other.model, Problem.CLUSTERING, scaled)


@pytest.mark.parametrize("estimator", ["gbt_classifier", "logistic_regression", "linear_regression", "kmeans", "als"])
def test_importance_is_of_features(
    samples: dict[Problem, Sample], fits: dict[str, FittedModel], estimator: str
) -> None:
    """The weights of a feature's inputs are added up: amount and city lead, distance has little; the sum is 1."""
    fitted, sample = fits[estimator], samples[ESTIMATORS[estimator]]
    found = importance(fitted, sample.train)
    if estimator in ("kmeans", "als"):
        assert found is None
        return
    assert found is not None
    assert sum(found.values()) == pytest.approx(1)
    assert set(list(found)[:3]) >= {"amount", "city"}
    assert found["distance"] < 0.2
    size = fitted.model.transform(sample.train).select(VECTOR).first()[0].size
    assert max(end for _, end in slots_of(fitted.preparation, fitted).values()) == size


@pytest.mark.parametrize(
    ("estimator", "parameters", "code", "value"),
    [
        pytest.param("kmeans", {"k": 1}, "TM-ML-NOT-FITTED", r"IllegalArgument.* k given", id="k"),
        pytest.param("gbt_regressor", {"maxDepth": 99}, "TM-ML-NOT-FITTED", r".+", id="depth"),
        pytest.param("gbt_classifier", {"labelCol": "id"}, "TM-ML-PARAMETER-UNKNOWN", r"labelCol$", id="ours"),
        pytest.param("gbt_classifier", {"maxBins": "x"}, "TM-ML-PARAMETER-REJECTED", r"'x'$", id="bins"),
        pytest.param("gbt_classifier", {"depth": 3}, "TM-ML-PARAMETER-UNKNOWN", r"depth$", id="name"),
        pytest.param("gbt_classifier", {"maxIter": "many"}, "TM-ML-PARAMETER-REJECTED", r"'many'$", id="value"),
        pytest.param("als", {"itemCol": "ware"}, "TM-ML-ALS-ID-FEATURE", r"None$", id="user"),
        pytest.param(
            "als", {"userCol": "city", "itemCol": "ware"}, "TM-ML-ALS-ID-FEATURE", r"city$", id="user-of-text"
        ),
    ],
)
def test_errors_of_parameters(
    samples: dict[Problem, Sample], estimator: str, parameters: dict[str, Any], code: str, value: str
) -> None:
    """A value that only the JVM rejects, or a column that the author cannot set, is one line with a code."""
    model = declare(estimator, parameters=parameters)
    with pytest.raises(ModelError) as raised:
        fit(model, FEATURES, samples[problem_of(model)].train, Path("shop"))
    assert raised.value.code == code
    assert re.match(value, str(raised.value.value))
    assert raised.value.parameters.get("known") in (None, "amount, buyer, ware") or code == "TM-ML-PARAMETER-UNKNOWN"
    assert "\n" not in str(raised.value)


def test_ids_too_large_for_als_are_rejected(samples: dict[Problem, Sample]) -> None:
    """A user's number beyond 32 bits is refused in training, and not cut to another user's."""
    train = samples[Problem.RECOMMENDATION].train
    large = train.withColumn("buyer", train["buyer"] + 2**33)
    with pytest.raises(ModelError) as raised:
        fit(declare("als"), FEATURES, large, Path("shop"))
    assert raised.value.code == "TM-ML-ALS-ID-TOO-LARGE"
    assert str(raised.value.value).startswith("85899346")


OWN = """
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import Imputer, VectorAssembler


def build(features, parameters):
    numbers = [name for name in features if name in ("amount", "distance")]
    filled = Imputer(inputCols=numbers, outputCols=[f"{name}_full" for name in numbers])
    vector = VectorAssembler(inputCols=filled.getOutputCols(), outputCol="features")
    return Pipeline(stages=[filled, vector, LogisticRegression(labelCol="_label", **parameters)])
"""


def test_an_estimator_of_ones_own(spark: SparkSession, samples: dict[Problem, Sample], tmp_path: Path) -> None:
    """A Pipeline from the folder's module is fitted, measured, written and read again as MLlib's are."""
    (tmp_path / "mine.py").write_text(OWN)
    model = declare("mine:build", problem="classification", parameters={"maxIter": 4}, baseline="distance")
    sample = samples[Problem.CLASSIFICATION]
    fitted = fit(model, FEATURES, sample.train, tmp_path)
    assert (fitted.preparation, dict(fitted.parameters)) == (None, {"maxIter": 4})
    found = evaluate(model, sample, fitted.model, None)
    assert found.values[CHALLENGER]["areaUnderROC"] > found.values[BASELINE]["areaUnderROC"]
    place = (tmp_path / "kept").as_uri()
    fitted.model.write().save(place)
    again = PipelineModel.load(place)
    assert scores(again, Problem.CLASSIFICATION, sample.holdout) == scores(
        fitted.model, Problem.CLASSIFICATION, sample.holdout
    )
    odd = spark.createDataFrame(ODD, SCHEMA)
    assert len(scores(again, Problem.CLASSIFICATION, odd)) == len(ODD)


@pytest.mark.parametrize(
    ("change", "code", "value"),
    [
        pytest.param(("_label", "tag"), "TM-ML-CUSTOM-NOT-FITTED", r"\w+: .*tag", id="fit-raises"),
        pytest.param(("**parameters", "probabilityCol='p'"), "TM-ML-NO-SCORE-COLUMN", r"probability$", id="no-score"),
        pytest.param(
            ("filled.getOutputCols()", "numbers"),
            "TM-ML-CUSTOM-NOT-FITTED",
            r"SparkException: Encountered null while",
            id="takes-no-missing-values",
        ),
        pytest.param(
            ('outputCol="features"', 'outputCol="features", handleInvalid="skip"'),
            "TM-ML-CHALLENGER-DROPS-ROWS",
            r"20$",
            id="skips-rows",
        ),
    ],
)
def test_errors_of_custom_estimators(
    samples: dict[Problem, Sample], tmp_path: Path, change: tuple[str, str], code: str, value: str
) -> None:
    """One that cannot be fitted, has no score, or has a score for some rows only is rejected in one line."""
    text = OWN.replace(*change)
    if "skip" in change[1]:
        text = text.replace("filled.getOutputCols()", "numbers")
    (tmp_path / "mine.py").write_text(text)
    model = declare("mine:build", problem="classification")
    sample = samples[Problem.CLASSIFICATION]
    with pytest.raises(ModelError) as raised:
        evaluate(model, sample, fit(model, FEATURES, sample.train, tmp_path).model, None)
    assert raised.value.code == code
    assert re.match(value, str(raised.value.value))
    assert "\n" not in str(raised.value)


def test_stages_in_python_are_refused(samples: dict[Problem, Sample], tmp_path: Path) -> None:
    """What could be written but not be read again where the author's module is not is refused at once."""
    (tmp_path / "mine.py").write_text(
        "from pyspark.ml import Pipeline, Transformer\n\nclass Odd(Transformer):\n"
        "    def _transform(self, rows):\n        return rows\n\n"
        "def build(features, parameters):\n    return Pipeline(stages=[Odd()])\n"
    )
    model = declare("mine:build", problem="regression")
    with pytest.raises(ModelError) as raised:
        fit(model, FEATURES, samples[Problem.REGRESSION].train, tmp_path)
    assert (raised.value.code, raised.value.value) == ("TM-ML-ESTIMATOR-PYTHON-STAGE", "Odd")


def test_a_range_of_time_is_learned_from(spark: SparkSession) -> None:
    """Only rows within the asked range count, on both sides of the cut: its end is not part of it."""
    rows = spark.createDataFrame(rows_of(Problem.REGRESSION), SCHEMA)
    sample = build_sample(rows, declare("linear_regression"), Options(from_us=2 * DAY, until_us=35 * DAY))
    assert (sample.split.start, sample.split.end) == (2 * DAY, 35 * DAY - DAY // 10)
    assert sample.train_rows + sample.holdout_rows == 330
    sample.rows.unpersist()
    with pytest.raises(ModelError) as raised:
        build_sample(rows, declare("linear_regression"), Options(from_us=99 * DAY))
    assert (raised.value.code, raised.value.value) == ("TM-ML-NO-LABELS", "label")


def test_errors_of_labels_of_a_regression(spark: SparkSession) -> None:
    """A regression's label may not be text, nor the same in all rows."""
    rows = spark.createDataFrame(rows_of(Problem.REGRESSION), SCHEMA)
    with pytest.raises(ModelError) as raised:
        build_sample(rows.withColumn("_label", rows["city"]), declare("linear_regression"))
    assert (raised.value.code, raised.value.value) == ("TM-ML-LABEL-NOT-NUMBER", "string")
    with pytest.raises(ModelError) as raised:
        build_sample(rows.withColumn("_label", rows["id"] * 0 + 1), declare("linear_regression"))
    assert (raised.value.code, raised.value.value) == ("TM-ML-LABELS-EQUAL", "1")
    assert raised.value.parameters == {"count": 299, "part": "to train on"}


def test_the_distribution_of_training_is_kept(samples: dict[Problem, Sample]) -> None:
    """Rows like those of training have not moved; a new city in all rows, or missing amounts, have."""
    train, holdout = samples[Problem.REGRESSION].train, samples[Problem.REGRESSION].holdout
    found = training_distribution(train, FEATURES)
    assert set(found) == set(FEATURES)
    assert feature_bins.from_json(feature_bins.to_json(found)) == found
    assert found["city"].values[0] in ("Ulm", "Bonn", "Kiel")
    assert found["amount"].shares[-1] == pytest.approx(0.2, abs=0.01), "missing ones are a bin"
    assert len(found["amount"].shares) == len(found["amount"].edges) + 2 == 11
    assert all(sum(bins.shares) == pytest.approx(1) for bins in found.values())
    assert drift.measure(train, found) == (dict.fromkeys(FEATURES, 0.0), train.count())
    later, rows = drift.measure(holdout, found)
    assert rows == 101
    assert max(later.values()) < 0.35
    moved = holdout.selectExpr("NULL AS amount", "'Rom' AS city", "distance + 20 AS distance", "buyer", "ware")
    measured, _ = drift.measure(moved, found)
    assert min(measured[name] for name in ("amount", "city", "distance")) > 1
    assert measured["buyer"] == later["buyer"]
    assert drift.measure(holdout.limit(0), found) == (dict.fromkeys(FEATURES, 0.0), 0)


@pytest.mark.parametrize("as_uri", [False, True], ids=["folder", "uri"])
def test_a_damaged_artifact_is_refused(fits: dict[str, FittedModel], tmp_path: Path, as_uri: bool) -> None:
    """An artifact is what was written, whether it lies in a folder or behind a URI, and a copy of it is as well."""
    models = tmp_path / "Mühle x"  # a path that a URI escapes
    place = artifacts.location_below(models.as_uri() if as_uri else models, "models", ".new")
    fits["linear_regression"].model.write().overwrite().save(artifacts.for_spark(place))
    named = artifacts.location_below(place.rpartition("/")[0], "1")
    left = models / "models" / "1" / "metadata"
    left.mkdir(parents=True)
    (left / "left-by-an-interrupted-training").touch()
    written = artifacts.checksum(place)
    artifacts.rename(place, named)
    version = _version(named, written)
    assert load_model(version).stages
    for crc in (models / "models").rglob("*.crc"):
        crc.unlink()
    assert artifacts.checksum(named) == written, "a copy may lack Hadoop's own checksums"
    part = next(path for path in (models / "models" / "1").rglob("part-*") if path.parent.name == "metadata")
    part.write_bytes(part.read_bytes() + b" ")
    with pytest.raises(ModelError) as raised:
        load_model(version)
    assert (raised.value.code, raised.value.value) == ("TM-ML-ARTIFACT-DAMAGED", named)
    with pytest.raises(ModelError) as raised:
        load_model(_version(named[:-1] + "2", written))
    assert (raised.value.code, raised.value.value) == ("TM-ML-ARTIFACT-MISSING", named[:-1] + "2")


def _version(place: str, checksum: str) -> ModelVersion:
    """A recorded version, of which only the artifact matters."""
    empty = dict.fromkeys(ModelVersion.__dataclass_fields__, None)
    return ModelVersion(**(empty | {"version": 1, "artifact": place, "checksum": checksum}))
