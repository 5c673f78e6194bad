"""The distribution of each feature in the training rows, in bins; stored as ``model_versions.training_distribution``.

The stored form is JSON: ``{feature: {"kind": "number", "edges": […], "shares": […]}}`` or ``{"kind": "text", "values":
[…], "shares": […]}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

_LEAST_SHARE = 1e-4
"""An empty bin counts as this share: the logarithm of zero would make one row of a new value infinite."""


@dataclass(frozen=True)
class FeatureBins:
    """The bins of one feature, and the share of the training rows in each.

    The bins of a number are those up to each edge and the one above the last edge; the bins of a text are each of its
    values and all other values. In both the last bin is that of the missing values.
    """

    kind: Literal["number", "text"]
    edges: tuple[float, ...] = ()
    """Upper edges of a number's bins, rising."""
    values: tuple[str, ...] = ()
    """The most frequent values of a text."""
    shares: tuple[float, ...] = ()
    """Of each bin; together 1."""

    @property
    def count(self) -> int:
        """How many bins there are beside that of the missing values, whose index this is."""
        return len(self.edges if self.kind == "number" else self.values) + 1


Distribution = Mapping[str, FeatureBins]
"""Feature -> its bins."""


def to_json(distribution: Distribution) -> str:
    """The stored form."""
    documents = {
        name: {"kind": bins.kind}
        | ({"edges": bins.edges} if bins.kind == "number" else {"values": bins.values})
        | {"shares": bins.shares}
        for name, bins in distribution.items()
    }
    return json.dumps(documents)


def from_json(text: str | None) -> Distribution:
    """Read the stored form; empty for a version that has none."""
    return {
        name: FeatureBins(
            document["kind"],
            tuple(document.get("edges", ())),
            tuple(document.get("values", ())),
            tuple(document["shares"]),
        )
        for name, document in json.loads(text or "{}").items()
    }


def shares(counts: Sequence[int]) -> tuple[float, ...]:
    """Counts as parts of their sum."""
    total = sum(counts)
    return tuple(count / total if total else 0.0 for count in counts)


def psi(then: Sequence[float], now: Sequence[float]) -> float:
    """The population stability index of two distributions over the same bins.

    ``sum((now - then) * ln(now / then))`` over the bins' shares (Siddiqi, Credit Risk Scorecards, 2006): 0 is the same
    distribution, above 0.1 it has moved, above 0.25 by much.
    """
    pairs = [(max(a, _LEAST_SHARE), max(b, _LEAST_SHARE)) for a, b in zip(then, now, strict=True)]
    return sum((b - a) * math.log(b / a) for a, b in pairs)
