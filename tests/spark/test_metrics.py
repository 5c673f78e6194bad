"""Our metrics are MLlib's, to the last digits that matter."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tidemill.ml.training.metrics import ScoredRows

COUNT = 500
DICE = np.random.default_rng(17)
LABEL = (DICE.random(COUNT) < 0.3).astype(float)
# Rounded, so that many rows share a score.
SCORE = np.round(np.clip(0.3 + 0.25 * (LABEL - 0.3) + 0.2 * DICE.normal(size=COUNT), 0.0, 1.0), 2)


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> DataFrame:
    """Scored rows as a model of MLlib's would give them."""
    frame = spark.createDataFrame(
        [(float(label), float(score)) for label, score in zip(LABEL, SCORE, strict=True)], "label DOUBLE, score DOUBLE"
    )
    both = array_to_vector(F.array(1 - F.col("score"), F.col("score")))
    return frame.withColumn("probability", both).withColumn("prediction", F.lit(1.0)).cache()


@pytest.mark.parametrize("metric", ["areaUnderROC", "areaUnderPR"])
def test_areas_are_mllibs(rows: DataFrame, metric: str) -> None:
    """Areas under the curves, with ties, are those of MLlib's evaluator without down-sampling."""
    theirs = BinaryClassificationEvaluator(rawPredictionCol="score", metricName=metric, numBins=0).evaluate(rows)
    assert ScoredRows(LABEL, SCORE).measure(metric) == pytest.approx(theirs, abs=1e-9)


def test_the_loss_is_mllibs(rows: DataFrame) -> None:
    """The logarithmic loss is MLlib's, at probabilities of 0 and 1 as well."""
    assert {0.0} <= set(SCORE)
    theirs = MulticlassClassificationEvaluator(metricName="logLoss").evaluate(rows)
    assert ScoredRows(LABEL, SCORE).measure("logLoss") == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2"])
def test_errors_are_mllibs(rows: DataFrame, metric: str) -> None:
    """Errors of predictions are those of MLlib's evaluator."""
    theirs = RegressionEvaluator(predictionCol="score", metricName=metric).evaluate(rows)
    assert ScoredRows(LABEL, SCORE).measure(metric) == pytest.approx(theirs, abs=1e-9)
