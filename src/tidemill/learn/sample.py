"""The labelled rows of a feature query, cut by time and held in memory while a model is fitted and measured."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tidemill.errors import LearnError
from tidemill.learn.features_frame import KNOWN_US, LABEL
from tidemill.learn.holdout import Cut, cut_by_time
from tidemill.spec.model import Model

LEAST_ROWS = 100
"""Fewer labelled rows than this, to train on or held out, measure nothing."""


@dataclass(frozen=True)
class Sample:
    """Labelled rows on both sides of a cut through time. The label is 0.0 or 1.0."""

    rows: DataFrame
    """All of them, cached."""
    train: DataFrame
    holdout: DataFrame
    cut: Cut
    train_rows: int
    holdout_rows: int


def labelled(features: DataFrame, model: Model) -> Sample:
    """Read the rows whose label is known into memory, and cut them. ``rows.unpersist()`` gives it back.

    Raises:
        LearnError: there are too few, or only one class of them.
    """
    rows = features.where(F.col(LABEL).isNotNull()).withColumn(LABEL, F.col(LABEL).cast("double")).persist()
    try:
        ends = rows.agg(F.min(KNOWN_US), F.max(KNOWN_US)).first()
        if ends is None or ends[0] is None:
            raise LearnError("no row has a label yet", value=model.label, remedy="let more of the feed come in")
        cut = cut_by_time(ends[0], ends[1], model.train.holdout_days)
        train, holdout = rows.where(F.col(KNOWN_US) < cut.holdout), rows.where(F.col(KNOWN_US) >= cut.holdout)
        return Sample(rows, train, holdout, cut, _count(train, "to train on"), _count(holdout, "held out"))
    except BaseException:
        rows.unpersist()
        raise


def _count(rows: DataFrame, what: str) -> int:
    found = rows.agg(F.count(LABEL), F.count_if(F.col(LABEL) == 1), F.count_if(F.col(LABEL) == 0)).first()
    assert found is not None  # an aggregate without groups is one row
    count, ones, zeros = map(int, found)
    if ones + zeros < count:
        raise LearnError(
            f"{count - ones - zeros} labels {what} are neither 0 nor 1",
            remedy="select a comparison as the label",
        )
    if count < LEAST_ROWS:
        raise LearnError(
            f"too few labelled rows {what}", value=count, remedy=f"let the feed bring at least {LEAST_ROWS}"
        )
    if ones in (0, count):
        raise LearnError(
            f"all {count} labelled rows {what} are of one class",
            value=int(ones > 0),
            remedy="let more of the feed come in",
        )
    return count
