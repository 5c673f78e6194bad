"""How far the rows to be scored are from those that a model was trained on, feature by feature.

A feature is compared bin by bin: a number by the deciles of the training rows, a text by its most frequent values, and
in both the missing values are a bin of their own. The measure is the population stability index
(:func:`tidemill.ml.serving.feature_bins.psi`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tidemill.ml.data.vectorizer import is_number, is_text
from tidemill.ml.serving.feature_bins import Distribution, FeatureBins, psi, shares

VALUES_KEPT = 20
"""How many of a text's most frequent values have a bin of their own."""
_ACCURACY = 1_000
"""The rank of each decile is right to a thousandth."""
_DECILES = [n / 10 for n in range(1, 10)]


def training_distribution(train: DataFrame, features: Sequence[str]) -> dict[str, FeatureBins]:
    """The distribution of each feature in the training rows; a feature that is neither number nor text has none."""
    types = {name: train.schema[name].dataType for name in features}
    numbers = [name for name, each in types.items() if is_number(each)]
    binned = {name: FeatureBins("number", edges=edges) for name, edges in _edges(train, numbers).items()}
    binned |= {
        name: FeatureBins("text", values=_most_frequent(train, name)) for name in features if is_text(types[name])
    }
    counts = count_bins(train, binned)
    return {name: replace(binned[name], shares=shares(counts[name])) for name in features if name in binned}


def measure(frame: DataFrame, trained_on: Distribution) -> tuple[dict[str, float], int]:
    """Compare rows with the training rows of a model.

    Returns:
        The population stability index of each feature, and how many rows were compared. Without rows all are 0.
    """
    counts = count_bins(frame, trained_on)
    rows = sum(next(iter(counts.values()), ()))
    if not rows:
        return dict.fromkeys(trained_on, 0.0), 0
    return {name: psi(trained_on[name].shares, shares(each)) for name, each in counts.items()}, rows


def count_bins(frame: DataFrame, binned: Distribution) -> dict[str, list[int]]:
    """Feature -> rows in each of its bins, the missing values last. One pass over the rows.

    Args:
        frame: rows with these features.
        binned: the bins; their shares are not read.
    """
    counts = {name: [0] * (bins.count + 1) for name, bins in binned.items()}
    if not counts:
        return counts
    names = list(binned)
    each = F.array(
        *(
            F.struct(F.lit(n).alias("feature"), _bin(F.col(name), binned[name]).alias("bin"))
            for n, name in enumerate(names)
        )
    )
    grouped = frame.select(F.explode(each).alias("f")).groupBy("f.feature", "f.bin").count()
    for row in grouped.collect():
        counts[names[row["feature"]]][row["bin"]] = row["count"]
    return counts


def _bin(value: Column, bins: FeatureBins) -> Column:
    """The index of a value's bin."""
    missing = F.lit(bins.count)
    if bins.kind == "number":
        above = ((value.cast("double") > F.lit(edge)).cast("int") for edge in bins.edges)
        return F.when(value.isNull(), missing).otherwise(reduce(Column.__add__, above, F.lit(0)))
    others = F.lit(len(bins.values))
    if not bins.values:
        return F.when(value.isNull(), missing).otherwise(others)
    known = F.create_map(*(F.lit(part) for n, each in enumerate(bins.values) for part in (each, n)))
    return F.when(value.isNull(), missing).otherwise(F.coalesce(F.try_element_at(known, value), others))


def _edges(train: DataFrame, numbers: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Deciles, each once: a number with few values has fewer than nine."""
    if not numbers:
        return {}
    row = train.agg(*(F.percentile_approx(F.col(name).cast("double"), _DECILES, _ACCURACY) for name in numbers)).first()
    assert row is not None  # an aggregate without groups is one row
    return {name: tuple(sorted(set(deciles or ()))) for name, deciles in zip(numbers, row, strict=True)}


def _most_frequent(train: DataFrame, name: str) -> tuple[str, ...]:
    """Of equally frequent values the first by name, so that the same rows give the same distribution."""
    counted = train.where(F.col(name).isNotNull()).groupBy(name).count()
    return tuple(row[0] for row in counted.orderBy(F.desc("count"), name).limit(VALUES_KEPT).collect())
