"""Models without a JVM, against what can be computed by hand. Against MLlib: ``tests/spark/test_scorer.py``."""

from __future__ import annotations

import math
import warnings
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.errors import coded
from tidemill.errors import StoreError
from tidemill.store.scoring.portable_model import Scorer, as_arrow, pack, scored_rows, unpack, unscored_in
from tidemill.store.scoring.unscored import Unscored

NUMBER = {"feature": "x", "kind": "number", "fill": 2.0, "flag": True}
TEXT = {"feature": "city", "kind": "text", "labels": ["Ulm", "Bonn"], "one_hot": False}
HOT = TEXT | {"one_hot": True}


def scorer(form: dict[str, Any], *inputs: dict[str, Any], problem: str = "regression", scale: Any = None) -> Scorer:
    """A model that went into the database and came back."""
    return unpack(pack({"problem": problem, "inputs": list(inputs), "scale": scale, "form": form}))


def linear(*coefficients: float, intercept: float = 0.0) -> dict[str, Any]:
    return {"kind": "linear", "coefficients": list(coefficients), "intercept": intercept}


def rows(**columns: Any) -> pa.Table:
    return pa.table({name: as_arrow(values) for name, values in columns.items()})


def test_missing_numbers_are_filled_and_flagged() -> None:
    """The value that stands for NULL, and a slot that says so."""
    assert scorer(linear(1, 100), NUMBER).score(rows(x=[5, None])).tolist() == [5.0, 102.0]


def test_unseen_and_missing_texts_are_one_category_more() -> None:
    """As its number, or as a column of its own."""
    cities = rows(city=["Ulm", "Bonn", "Rom", None])
    assert scorer(linear(1), TEXT).score(cities).tolist() == [0.0, 1.0, 2.0, 2.0]
    assert scorer(linear(5, 7, 9), HOT).score(cities).tolist() == [5.0, 7.0, 9.0, 9.0]


def test_a_classification_gives_the_probability_of_1() -> None:
    """Also far away from everything, where exponentials overflow."""
    got = scorer(linear(1, 0), NUMBER, problem="classification").score(rows(x=[0, 3, -(10**6), 10**6])).tolist()
    assert got == [0.5, pytest.approx(1 / (1 + math.exp(-3)), abs=1e-15), 0.0, 1.0]


TREE = {
    "feature": [0, 0, 2, 0, 0],
    "threshold": [1.5, 0.0, 0.0, 0.0, 0.0],
    "left": [1, -1, 3, -1, -1],
    "right": [2, -1, 4, -1, -1],
    "value": [0.0, 10.0, 0.0, 20.0, 30.0],
    "categories": {2: [0, 2]},
}
"""x <= 1.5 gives 10; else Ulm and unknown cities 20, Bonn 30."""


def test_trees_split_by_number_and_by_category() -> None:
    """A value on the threshold goes left; a forest is the mean of its trees, a boosted sum is weighted."""
    found = rows(x=[1.5, 1.6, 1.6, 1.6], city=["Bonn", "Ulm", "Bonn", None])
    forest = {"kind": "trees", "boosted": False, "weights": [1.0, 1.0], "trees": [TREE, TREE]}
    assert scorer(forest, NUMBER, TEXT).score(found).tolist() == [10.0, 20.0, 30.0, 20.0]
    boosted = {"kind": "trees", "boosted": True, "weights": [1.0, 0.1], "trees": [TREE, TREE]}
    assert scorer(boosted, NUMBER, TEXT).score(found).tolist() == [11.0, 22.0, 33.0, 22.0]


def test_a_clustering_gives_the_nearest_center() -> None:
    """In the scaled space; of equally near ones the first."""
    form = {"kind": "centers", "centers": [[0.0, 0.0], [1.0, 0.0]]}
    assert scorer(form, NUMBER, scale=[0.1, 1.0]).score(rows(x=[1, 9, 5])).tolist() == [0.0, 1.0, 0.0]


@given(
    values=st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=60),
    at=st.integers(0, 59),
    boosted=st.booleans(),
)
def test_a_score_depends_on_no_other_row(values: list[float | None], at: int, boosted: bool) -> None:
    """Alone or among others, in whatever order: the same bits."""
    place = at % len(values)
    form = {"kind": "trees", "boosted": True, "weights": [0.3], "trees": [TREE]} if boosted else linear(0.1, 0.7)
    model = scorer(form, NUMBER, TEXT, problem="classification") if boosted else scorer(form, NUMBER)
    columns: dict[str, list[Any]] = {"x": values, "city": ["Bonn"] * len(values)}
    among = model.score(rows(**columns))[place]
    alone = model.score(rows(**{name: [column[place]] for name, column in columns.items()}))[0]
    assert np.float64(among).tobytes() == np.float64(alone).tobytes()


NUMBERS: tuple[Any, ...] = (
    *(None, 0.0, -0.0, 1.0, -7.5, 5e-324, -5e-324, 2.2e-308, 1e16, 1e154, -1e154, 1e200, -1e200),
    *(1.7976931348623157e308, -1.7976931348623157e308, math.inf, -math.inf, math.nan),
)
"""Missing, ordinary, denormal, huge, and no numbers."""
HUGE = {"kind": "trees", "boosted": True, "weights": [5e306, 5e306], "trees": [TREE, TREE]}
MODELS = {
    "regression": scorer(linear(1e200, 3, intercept=-1e300), NUMBER),
    "regression of a flat feature": scorer(linear(0, 1), NUMBER),
    "classification": scorer(linear(1e308, -1), NUMBER, problem="classification"),
    "scaled": scorer(linear(2, 1), NUMBER, scale=[1e-300, 0.0]),
    "one column a text": scorer(linear(1, 0, 1, 2, 3), NUMBER, HOT),
    "forest": scorer(HUGE | {"boosted": False, "weights": [1.0, 1.0]}, NUMBER, TEXT, problem="classification"),
    "boosted": scorer(HUGE, NUMBER, TEXT),
    "boosted classification": scorer(HUGE, NUMBER, TEXT, problem="classification"),
    "clusters": scorer({"kind": "centers", "centers": [[0.0, 0.0], [1e200, 1.0]]}, NUMBER),
    "scaled clusters": scorer({"kind": "centers", "centers": [[0.0, 0.0], [1.0, 1.0]]}, NUMBER, scale=[1e150, 1.0]),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_score_that_is_no_number_is_null_and_changes_no_other_row(model: Scorer) -> None:
    """Of every form and every kind of feature: counted, one key of them named, the rows beside them the same bits."""
    cities = [("Bonn", "Rom", None)[n % 3] for n in range(len(NUMBERS))]
    given = pa.table({"x": pa.array(NUMBERS, pa.float64()), "city": cities, "id": range(len(NUMBERS))})
    given = given.append_column("_commit", pa.array([7] * len(NUMBERS)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = model.score(given)
        alone = [model.score(given.slice(n, 1))[0] for n in range(len(NUMBERS))]
    assert np.array(alone).tobytes() == together.tobytes()
    written = scored_rows(["id"], given, together, 3, 9)
    scores = written["score"].to_pylist()
    assert scores == [float(score) if math.isfinite(score) else None for score in together]
    assert scores[3] is not None
    without = [n for n, score in enumerate(scores) if score is None]
    expected = Unscored(3, len(without), f"id {without[0]}") if without else None
    assert unscored_in(["id"], written, 3) == expected


def test_the_sweep_meets_scores_that_are_no_numbers() -> None:
    """In most forms; a tree gives one of its own numbers and a clustering one of its centers, whatever it is asked."""
    values = pa.table({"x": pa.array(NUMBERS, pa.float64()), "city": ["Bonn"] * len(NUMBERS)})
    met = {name for name, model in MODELS.items() if not np.isfinite(model.score(values)).all()}
    assert met == MODELS.keys() - {"forest", "boosted classification", "clusters", "scaled clusters"}


@pytest.mark.parametrize(
    "scores",
    [
        pa.chunked_array([pa.array([0.5, None, math.nan, math.inf], pa.float64())]),
        pa.chunked_array([pa.array([0.5, None, math.nan, -math.inf], pa.float32())]),
        pa.chunked_array([pa.array([1, None, None, None], pa.int32())]),
        pa.chunked_array([pa.nulls(4)]),
        np.array([0.5, math.nan, math.inf, -math.inf]),
    ],
    ids=["double", "float", "integer", "nothing", "numpy"],
)
def test_what_spark_gives_as_a_score_is_a_number_or_null(scores: Any) -> None:
    """A custom estimator's column may be of any numeric type, and hold NULL."""
    given = pa.table({"country": ["de"] * 4, "code": range(4), "_commit": range(4)})
    written = scored_rows(["country", "code"], given, scores, 3, 9)
    assert written["score"].type == pa.float64()
    assert written["score"].to_pylist()[1:] == [None] * 3
    found = unscored_in(["country", "code"], written, 3)
    assert found is not None
    assert found.sample == f"country de, code {4 - found.rows}"


def test_decimals_of_any_length_are_the_nearest_double() -> None:
    """As Python converts them, on both ways into a model."""
    long = Decimal("0.1234567890123456789012345678901234567890123")
    assert as_arrow([long, None]).to_pylist() == [float(long), None]
    short = pa.table({"x": pa.array([Decimal("0.1")], pa.decimal128(38, 10))})
    assert scorer(linear(1, 0), NUMBER).score(short).tolist() == [0.1]


def test_what_the_model_was_not_trained_on_is_refused() -> None:
    """A feature that is missing, one that became text, and another format."""
    model = scorer(linear(1, 0), NUMBER)
    with pytest.raises(StoreError, check=coded("TM-STORE-FEATURE-MISSING", value="x")):
        model.score(rows(y=[1]))
    with pytest.raises(StoreError, check=coded("TM-STORE-FEATURE-NOT-NUMERIC", feature="x", value=pa.string())):
        model.score(rows(x=["a"]))
    with pytest.raises(StoreError, check=coded("TM-STORE-MODEL-FORMAT", value=0)):
        unpack(pack({"inputs": [], "format": 0}))
