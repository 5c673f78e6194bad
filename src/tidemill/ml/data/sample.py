"""The rows of a feature query that a model can be trained on, split by time and cached while it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tidemill.errors import ModelError
from tidemill.ml.data.reader import KNOWN_US, LABEL
from tidemill.ml.data.split import TimeSplit, split_by_time
from tidemill.ml.data.vectorizer import is_number
from tidemill.ml.training.options import Options
from tidemill.spec.estimators import Problem, problem_of
from tidemill.spec.schema import Model

LEAST_ROWS = 100
"""With fewer rows than this, to train on or held out, no model is trained."""
_NO_OPTIONS = Options()


@dataclass(frozen=True)
class Sample:
    """Rows on both sides of a split in time. The label is a double, NULL in every row for a clustering."""

    rows: DataFrame
    """All of them, cached."""
    train: DataFrame
    holdout: DataFrame
    split: TimeSplit
    train_rows: int
    holdout_rows: int
    key: tuple[str, ...]
    """Columns that identify a row."""


def build_sample(features: DataFrame, model: Model, options: Options = _NO_OPTIONS) -> Sample:
    """Cache the rows whose label is known, and split them. ``rows.unpersist()`` releases the memory.

    Args:
        features: rows of the feature query.
        model: its declaration.
        options: the range of time that the run requested.

    Raises:
        ModelError: there are too few rows, or their labels cannot be learned.
    """
    rows = _ordered(_with_label(_in_range(features, options), model), model).persist()
    try:
        ends = rows.agg(F.min(KNOWN_US), F.max(KNOWN_US)).first()
        if ends is None or ends[0] is None:
            if model.label is None:
                raise ModelError("TM-ML-NO-ROWS", value=model.features)
            raise ModelError("TM-ML-NO-LABELS", value=model.label)
        split = split_by_time(ends[0], ends[1], model.train.holdout_days)
        train, holdout = rows.where(F.col(KNOWN_US) < split.holdout), rows.where(F.col(KNOWN_US) >= split.holdout)
        train_rows, holdout_rows = _count(train, "to train on", model), _count(holdout, "held out", model)
        return Sample(rows, train, holdout, split, train_rows, holdout_rows, model.key)
    except BaseException:  # also for Ctrl-C: a caller without a sample cannot release its memory
        rows.unpersist()
        raise


def _ordered(rows: DataFrame, model: Model) -> DataFrame:
    """The same rows in the same partitions and order, whatever order they were read in: MLlib samples by position."""
    parts = int(str(rows.sparkSession.conf.get("spark.sql.shuffle.partitions")))
    return rows.repartition(parts, *model.key).sortWithinPartitions(*model.key)


def _in_range(features: DataFrame, options: Options) -> DataFrame:
    if options.from_us is not None:
        features = features.where(F.col(KNOWN_US) >= options.from_us)
    if options.until_us is not None:
        features = features.where(F.col(KNOWN_US) < options.until_us)
    return features


def _with_label(features: DataFrame, model: Model) -> DataFrame:
    if model.label is None:
        # The database may give the NULL any type.
        return features.withColumn(LABEL, F.lit(None).cast("double"))
    kind = features.schema[LABEL].dataType
    if not is_number(kind):
        raise ModelError("TM-ML-LABEL-NOT-NUMBER", value=kind.simpleString(), label=model.label)
    return features.where(F.col(LABEL).isNotNull()).withColumn(LABEL, F.col(LABEL).cast("double"))


def _count(rows: DataFrame, what: str, model: Model) -> int:
    ones, zeros = F.count_if(F.col(LABEL) == 1), F.count_if(F.col(LABEL) == 0)
    row = rows.agg(F.count("*"), ones, zeros, F.min(LABEL), F.max(LABEL)).first()
    assert row is not None  # an aggregate without groups is one row
    count, binary = int(row[0]), int(row[1]) + int(row[2])
    if problem_of(model) is Problem.CLASSIFICATION and binary < count:
        raise ModelError("TM-ML-LABELS-NOT-BINARY", value=count - binary, part=what)
    if count < LEAST_ROWS:
        raise ModelError("TM-ML-TOO-FEW-ROWS", value=count, part=what, least=LEAST_ROWS)
    if model.label and row[3] == row[4]:
        raise ModelError("TM-ML-LABELS-EQUAL", value=f"{row[3]:g}", count=count, part=what)
    return count
