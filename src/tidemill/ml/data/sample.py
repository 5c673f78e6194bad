"""The rows of a feature query that can be learned from, cut by time and held in memory while a model is made."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tidemill.errors import ModelError
from tidemill.ml.data.reader import KNOWN_US, LABEL
from tidemill.ml.data.split import Cut, cut_by_time
from tidemill.ml.data.vectorizer import is_number
from tidemill.ml.training.options import Options
from tidemill.spec.estimators import Problem, problem_of
from tidemill.spec.schema import Model

LEAST_ROWS = 100
"""Fewer rows than this, to train on or held out, measure nothing."""
_ALL = Options()


@dataclass(frozen=True)
class Sample:
    """Rows on both sides of a cut through time. The label is a double, NULL in every row for a clustering."""

    rows: DataFrame
    """All of them, cached."""
    train: DataFrame
    holdout: DataFrame
    cut: Cut
    train_rows: int
    holdout_rows: int
    key: tuple[str, ...]
    """Columns that tell the rows apart."""


def labelled(features: DataFrame, model: Model, options: Options = _ALL) -> Sample:
    """Read the rows whose label is known into memory, and cut them. ``rows.unpersist()`` gives it back.

    Args:
        features: rows of the feature query.
        model: its declaration.
        options: the range of time that was asked for.

    Raises:
        ModelError: there are too few, or nothing can be learned from their labels.
    """
    rows = _laid_out(_with_label(_in_range(features, options), model), model).persist()
    try:
        ends = rows.agg(F.min(KNOWN_US), F.max(KNOWN_US)).first()
        if ends is None or ends[0] is None:
            raise ModelError(
                "no row has a label yet" if model.label else "there is no row yet",
                value=model.label,
                remedy="let more of the feed come in, or ask for a wider range of time",
            )
        cut = cut_by_time(ends[0], ends[1], model.train.holdout_days)
        train, holdout = rows.where(F.col(KNOWN_US) < cut.holdout), rows.where(F.col(KNOWN_US) >= cut.holdout)
        train_rows, holdout_rows = _count(train, "to train on", model), _count(holdout, "held out", model)
        return Sample(rows, train, holdout, cut, train_rows, holdout_rows, model.key)
    except BaseException:  # Ctrl-C, too: who got no sample cannot give its memory back
        rows.unpersist()
        raise


def _laid_out(rows: DataFrame, model: Model) -> DataFrame:
    """The same rows in the same places, in whatever order the database gave them: MLlib draws rows by their place."""
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
        # Whatever type the database gives a NULL.
        return features.withColumn(LABEL, F.lit(None).cast("double"))
    kind = features.schema[LABEL].dataType
    if not is_number(kind):
        raise ModelError(
            f"label {model.label} is not a number", value=kind.simpleString(), remedy="select a comparison or a number"
        )
    return features.where(F.col(LABEL).isNotNull()).withColumn(LABEL, F.col(LABEL).cast("double"))


def _count(rows: DataFrame, what: str, model: Model) -> int:
    ones, zeros = F.count_if(F.col(LABEL) == 1), F.count_if(F.col(LABEL) == 0)
    found = rows.agg(F.count("*"), ones, zeros, F.min(LABEL), F.max(LABEL)).first()
    assert found is not None  # an aggregate without groups is one row
    count, binary = int(found[0]), int(found[1]) + int(found[2])
    labelled = "labelled rows" if model.label else "rows"
    if problem_of(model) is Problem.CLASSIFICATION and binary < count:
        raise ModelError(
            f"{count - binary} labels {what} are neither 0 nor 1", remedy="select a comparison as the label"
        )
    if count < LEAST_ROWS:
        raise ModelError(f"too few {labelled} {what}", value=count, remedy=f"let the feed bring at least {LEAST_ROWS}")
    if model.label and found[3] == found[4]:
        one = "are of one class" if problem_of(model) is Problem.CLASSIFICATION else "have one value"
        raise ModelError(
            f"all {count} {labelled} {what} {one}", value=f"{found[3]:g}", remedy="let more of the feed come in"
        )
    return count
