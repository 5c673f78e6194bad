"""A fitted model in the form that the database stores, and scoring rows with it without a JVM.

Streams and the scoring job score with this code alone, so the same row and the same model give the same score to the
last bit in both. To this end a row's score depends on no other row: every operation is elementwise and in a fixed
order. A matrix product would sum in another order for another number of rows, and vectorised exponentials may differ
from scalar ones.

The content is JSON, compressed with zlib::

    problem  classification | regression | clustering
    inputs   [{feature, kind: number, fill, flag} | {feature, kind: text, labels, one_hot}], in the order of the vector
    scale    factor of each slot of the vector, or null
    form     {kind: linear, coefficients, intercept}
             {kind: trees, boosted, weights, trees: [{feature, threshold, left, right, value, categories}]}
             {kind: centers, centers}
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import StoreError
from tidemill.store.scoring.unscored import Unscored, describe_key

FORMAT = 1
_CHUNK_ROWS = 8_192
"""Limits the memory of the vectors; the vector of a row may have hundreds of slots."""
_LEAF = -1

Floats = np.ndarray[Any, np.dtype[np.float64]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Scorer:
    """One fitted model."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._inputs: list[dict[str, Any]] = content["inputs"]
        self._scale = None if content["scale"] is None else np.array(content["scale"], np.float64)
        self._classifies = content["problem"] == "classification"
        form = content["form"]
        self._kind: str = form["kind"]
        self._linear = (form.get("coefficients", []), float(form.get("intercept", 0.0)))
        self._centers = np.array(form.get("centers", []), np.float64)
        self._trees = [_Tree(tree) for tree in form.get("trees", [])]
        self._weights = [float(weight) for weight in form.get("weights", [])]
        self._boosted = bool(form.get("boosted", False))
        self._label_indices = {
            each["feature"]: {label: index for index, label in enumerate(each["labels"])}
            for each in self._inputs
            if each["kind"] == "text"
        }

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that the model reads."""
        return tuple(each["feature"] for each in self._inputs)

    def score(self, rows: pa.Table) -> Floats:
        """The score of each row: probability of 1, prediction, or number of the cluster.

        It is infinite or NaN where the model's arithmetic leaves the range of doubles; no other row is affected.

        Args:
            rows: with all of :attr:`features`: numbers and text of any Arrow type, including NULLs.

        Raises:
            StoreError: a feature is missing, or has another type than in training.
        """
        missing = [name for name in self.features if name not in rows.column_names]
        if missing:
            raise StoreError("TM-STORE-FEATURE-MISSING", value=missing[0])
        with np.errstate(over="ignore", invalid="ignore"):
            parts = [self._score(rows.slice(start, _CHUNK_ROWS)) for start in range(0, rows.num_rows, _CHUNK_ROWS)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _score(self, rows: pa.Table) -> Floats:
        slots = [slot for each in self._inputs for slot in self._slots(each, rows[each["feature"]])]
        if self._scale is not None:
            slots = [slot * factor for slot, factor in zip(slots, self._scale, strict=True)]
        count = rows.num_rows
        if self._kind == "linear":
            return self._as_score(self._sum(slots, count), 1.0)
        if self._kind == "centers":
            return self._nearest(slots, count)
        vectors = np.column_stack(slots)
        total = np.zeros(count)
        for tree, weight in zip(self._trees, self._weights, strict=True):
            total += tree.values(vectors) * weight
        if self._boosted:
            return self._as_score(total, 2.0)
        mean: Floats = total / float(len(self._trees))
        return mean

    def _slots(self, of: Mapping[str, Any], column: pa.ChunkedArray) -> Iterator[Floats]:
        """The slots of the vector that one feature fills."""
        if of["kind"] == "number":
            values, missing = _numbers(of["feature"], column)
            yield np.where(missing, float(of["fill"]), values)
            if of["flag"]:
                yield missing.astype(np.float64)
            return
        indices, unknown = self._label_indices[of["feature"]], len(of["labels"])
        index = np.array([indices.get(text, unknown) for text in column.to_pylist()], np.int64)
        if not of["one_hot"]:
            yield index.astype(np.float64)
            return
        for label in range(unknown + 1):
            yield (index == label).astype(np.float64)

    def _sum(self, slots: Sequence[Floats], count: int) -> Floats:
        coefficients, intercept = self._linear
        total = np.full(count, intercept)
        for slot, coefficient in zip(slots, coefficients, strict=True):
            total += slot * float(coefficient)
        return total

    def _as_score(self, margin: Floats, steepness: float) -> Floats:
        """Convert a classification's margin to the probability of 1, with MLlib's order of operations."""
        if not self._classifies:
            return margin
        return np.array([1.0 - 1.0 / (1.0 + _exp(steepness * each)) for each in margin.tolist()], np.float64)

    def _nearest(self, slots: Sequence[Floats], count: int) -> Floats:
        distances = np.zeros((len(self._centers), count))
        for row, center in enumerate(self._centers):
            for slot, middle in zip(slots, center, strict=True):
                apart = slot - float(middle)
                distances[row] += apart * apart
        # As MLlib chooses: a distance that is NaN is never the smallest, and of infinite ones the first counts.
        nearest: Floats = np.argmin(np.where(np.isnan(distances), np.inf, distances), axis=0).astype(np.float64)
        return nearest


class _Tree:
    """One decision tree as arrays over its nodes. ``left`` is -1 at a leaf."""

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        self._feature: Numbers = np.array(nodes["feature"], np.int64)
        self._threshold = np.array(nodes["threshold"], np.float64)
        self._left: Numbers = np.array(nodes["left"], np.int64)
        self._right: Numbers = np.array(nodes["right"], np.int64)
        self._value = np.array(nodes["value"], np.float64)
        by_node = {int(node): categories for node, categories in nodes["categories"].items()}
        widest = max((max(categories, default=0) for categories in by_node.values()), default=0) + 1
        # One row for each node that splits by category, True where the category goes left; row 0 is unused.
        self._goes_left = np.zeros((len(by_node) + 1, widest + 1), bool)
        self._row: Numbers = np.zeros(len(self._feature), np.int64)
        for row, (node, categories) in enumerate(by_node.items(), start=1):
            self._row[node] = row
            self._goes_left[row, categories] = True

    def values(self, vectors: Floats) -> Floats:
        """The value of the leaf that each vector reaches."""
        node: Numbers = np.zeros(len(vectors), np.int64)
        inner = np.flatnonzero(self._left[node] != _LEAF)
        last = self._goes_left.shape[1] - 1
        while inner.size:
            here = node[inner]
            value = vectors[inner, self._feature[here]]
            row = self._row[here]
            # A category that no node lists is the last column, which is False everywhere.
            category = np.where(row > 0, np.clip(value, 0, last), last).astype(np.int64)
            left = np.where(row > 0, self._goes_left[row, category], value <= self._threshold[here])
            node[inner] = np.where(left, self._left[here], self._right[here])
            inner = inner[self._left[node[inner]] != _LEAF]
        values: Floats = self._value[node]
        return values


def pack(content: Mapping[str, Any]) -> bytes:
    """A model in the form that the database stores."""
    return zlib.compress(json.dumps({"format": FORMAT, **content}, separators=(",", ":")).encode(), 6)


def unpack(content: bytes) -> Scorer:
    """The model that :func:`pack` has encoded.

    Raises:
        StoreError: the content is damaged, or of a format that this version does not know.
    """
    try:
        decoded = json.loads(zlib.decompress(content))
    except (zlib.error, ValueError) as error:
        raise StoreError("TM-STORE-MODEL-DAMAGED", value=str(error)) from error
    if decoded.get("format") != FORMAT:
        raise StoreError("TM-STORE-MODEL-FORMAT", value=decoded.get("format"))
    return Scorer(decoded)


def scored_rows(key: Iterable[str], rows: pa.Table, scores: Any, version: int, as_of_commit: int) -> pa.Table:
    """Scores in the form of their table. A score that is no number is NULL.

    Args:
        key: columns of the key.
        rows: with the key and ``_commit``.
        scores: of each row, in the same order; a NumPy or Arrow array that may hold infinities, NaN and NULL.
        version: of the model.
        as_of_commit: newest commit when the scoring began.
    """
    constants = {"model_version": version, "as_of_commit": as_of_commit}
    given = pc.cast(scores if isinstance(scores, pa.ChunkedArray) else pa.array(scores), pa.float64())
    numbers = pc.if_else(pc.is_finite(given), given, None)
    return pa.table(
        {name: rows[name] for name in key}
        | {"score": numbers, "scored_commit": rows["_commit"]}
        | {column: pa.array([value] * rows.num_rows, pa.int64()) for column, value in constants.items()}
    )


def unscored_in(key: Sequence[str], scored: pa.Table, version: int) -> Unscored | None:
    """The rows of :func:`scored_rows` that have no number; None if all have one."""
    without = scored.filter(pc.is_null(scored["score"]))
    if not without.num_rows:
        return None
    first = without.slice(0, 1).select(list(key)).to_pylist()[0]
    return Unscored(version, without.num_rows, describe_key(tuple(first), tuple(first.values())))


def _numbers(feature: str, column: pa.ChunkedArray) -> tuple[Floats, np.ndarray[Any, np.dtype[np.bool_]]]:
    """The values as doubles, and which are missing; the double of a missing value is undefined."""
    missing = column.is_null().to_numpy(zero_copy_only=False)
    kind = column.type
    if pa.types.is_decimal(kind):
        # Python rounds to the nearest double; Arrow's conversion may not.
        return np.array([0.0 if v is None else float(v) for v in column.to_pylist()], np.float64), missing
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or kind == pa.null()):
        raise StoreError("TM-STORE-FEATURE-NOT-NUMERIC", feature=feature, value=kind)
    doubles = pc.fill_null(column.cast(pa.float64(), safe=False), 0.0)
    return doubles.to_numpy(zero_copy_only=False), missing


def as_arrow(values: Sequence[Any]) -> pa.Array:
    """Convert a column that PyMySQL has fetched to an Arrow array of its type.

    Raises:
        StoreError: it has values of different types.
    """
    present = [value for value in values if value is not None]
    if any(isinstance(value, Decimal) for value in present):
        # Not Arrow's decimal, which has at most 38 digits.
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if present and all(isinstance(value, bytes) and len(value) <= _BIT_BYTES for value in present):
        values = [None if value is None else int.from_bytes(value, "big") for value in values]  # BIT
    try:
        return pa.array(values, pa.uint64() if _unsigned(present) else None)
    except (pa.ArrowException, OverflowError) as error:
        raise StoreError("TM-STORE-MIXED-TYPES", value=str(error)) from error


_BIT_BYTES = 8


def _unsigned(present: Sequence[Any]) -> bool:
    """Whether the values are integers that need an unsigned type of 64 bits."""
    return bool(present) and all(isinstance(value, int) for value in present) and max(present) >= 2**63


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
