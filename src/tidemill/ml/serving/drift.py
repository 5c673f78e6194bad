"""How far the rows to be scored are from those that a model was trained on, feature by feature.

A feature is compared bin by bin: a number by the deciles of the training rows, a text by its most frequent values, and
in both the missing ones are a bin of their own. The measure is the population stability index,
``sum((now - then) * ln(now / then))`` over the bins' shares (Siddiqi, Credit Risk Scorecards, 2006): 0 is the same
distribution, above 0.1 it has moved, above 0.25 a lot.

A reference is plain JSON: ``{feature: {"kind": "number", "edges": […], "shares": […]}}`` or ``{"kind": "text",
"values": […], "shares": […]}``. Shares are of the training rows: of numbers up to each edge and above the last one, of
texts each value and all others; then the missing ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tidemill.ml.data.vectorizer import is_number, is_text

VALUES_KEPT = 20
"""Of a text, its most frequent values."""
_LEAST_SHARE = 1e-4
"""An empty bin counts as so much: the logarithm of nothing would make one row of a new value infinite."""
_ACCURACY = 1_000
"""The deciles' rank is right to a thousandth."""
_DECILES = [n / 10 for n in range(1, 10)]


def reference(train: DataFrame, features: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The distribution of each feature in the training rows; a feature that is neither number nor text has none."""
    kinds = {name: train.schema[name].dataType for name in features}
    numbers = [name for name, kind in kinds.items() if is_number(kind)]
    binned: dict[str, dict[str, Any]] = {
        name: {"kind": "number", "edges": edges} for name, edges in _edges(train, numbers).items()
    }
    binned |= {
        name: {"kind": "text", "values": _most_frequent(train, name)} for name in features if is_text(kinds[name])
    }
    counted = distribution(train, binned)
    return {name: binned[name] | {"shares": shares(counted[name])} for name in features if name in binned}


def measure(frame: DataFrame, reference: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, float], int]:
    """Compare rows with a reference.

    Returns:
        The population stability index of each feature, and how many rows were compared. Without rows all are 0.
    """
    counted = distribution(frame, reference)
    rows = sum(next(iter(counted.values()), ()))
    if not rows:
        return dict.fromkeys(reference, 0.0), 0
    return {name: psi(reference[name]["shares"], shares(counts)) for name, counts in counted.items()}, rows


def psi(then: Sequence[float], now: Sequence[float]) -> float:
    """The population stability index of two distributions over the same bins."""
    pairs = [(max(a, _LEAST_SHARE), max(b, _LEAST_SHARE)) for a, b in zip(then, now, strict=True)]
    return sum((b - a) * math.log(b / a) for a, b in pairs)


def shares(counts: Sequence[int]) -> list[float]:
    """Counts as parts of their sum."""
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def distribution(frame: DataFrame, binned: Mapping[str, Mapping[str, Any]]) -> dict[str, list[int]]:
    """Feature -> rows in each of its bins, the missing ones last. One pass over the rows.

    Args:
        frame: rows with these features.
        binned: a reference; its shares are not looked at.
    """
    counts = {name: [0] * (_bins(bins) + 1) for name, bins in binned.items()}
    if not counts:
        return counts
    names = list(binned)
    each = F.array(
        *(
            F.struct(F.lit(n).alias("feature"), _bin(F.col(name), binned[name]).alias("bin"))
            for n, name in enumerate(names)
        )
    )
    found = frame.select(F.explode(each).alias("f")).groupBy("f.feature", "f.bin").count()
    for row in found.collect():
        counts[names[row["feature"]]][row["bin"]] = row["count"]
    return counts


def _bins(bins: Mapping[str, Any]) -> int:
    """How many there are beside that of the missing ones, whose number this is."""
    return len(bins["edges" if bins["kind"] == "number" else "values"]) + 1


def _bin(value: Column, bins: Mapping[str, Any]) -> Column:
    missing = F.lit(_bins(bins))
    if bins["kind"] == "number":
        above = ((value.cast("double") > F.lit(edge)).cast("int") for edge in bins["edges"])
        return F.when(value.isNull(), missing).otherwise(reduce(Column.__add__, above, F.lit(0)))
    places = {known: n for n, known in enumerate(bins["values"])}
    others = F.lit(len(places))
    if not places:
        return F.when(value.isNull(), missing).otherwise(others)
    known = F.create_map(*(F.lit(part) for pair in places.items() for part in pair))
    return F.when(value.isNull(), missing).otherwise(F.coalesce(F.try_element_at(known, value), others))


def _edges(train: DataFrame, numbers: Sequence[str]) -> dict[str, list[float]]:
    """Deciles, each once: of a number of few values there are fewer than nine."""
    if not numbers:
        return {}
    row = train.agg(*(F.percentile_approx(F.col(name).cast("double"), _DECILES, _ACCURACY) for name in numbers)).first()
    assert row is not None  # an aggregate without groups is one row
    return {name: sorted(set(found or ())) for name, found in zip(numbers, row, strict=True)}


def _most_frequent(train: DataFrame, name: str) -> list[str]:
    """Of equally frequent values the first by name, so that the same rows give the same reference."""
    counted = train.where(F.col(name).isNotNull()).groupBy(name).count()
    return [row[0] for row in counted.orderBy(F.desc("count"), name).limit(VALUES_KEPT).collect()]
