"""No feature reads what the label is made of."""

import pytest

from support.paths import ROOT
from tidemill.errors import SpecError
from tidemill.spec import Model, load_pipeline
from tidemill.spec.checks.features import check_features, feature_names

FLIGHTS = load_pipeline(ROOT / "pipelines" / "flights")
MODEL: Model = FLIGHTS.models["late_arrival"]
SQL = FLIGHTS.sql("features.sql")


def test_the_shipped_features_are_right() -> None:
    """Key, time, label and commit are no features."""
    names = feature_names(MODEL, SQL)
    assert "dep_delay" in names
    assert not {"id", "known_at", "late", "_commit"} & set(names)


def test_a_feature_made_of_the_label_is_refused() -> None:
    """arr_delay is what late is computed from, under whatever name it is selected."""
    leaking = SQL.replace("f.distance,", "f.distance, f.arr_delay / 60 AS comfort,")
    with pytest.raises(SpecError, match="comfort reads what the label is made of"):
        check_features("late_arrival", MODEL, leaking)


def test_a_query_without_the_declared_columns_is_refused() -> None:
    """The label must be there to be learned."""
    with pytest.raises(SpecError, match="does not select"):
        check_features("late_arrival", MODEL, SQL.replace("AS late,", "AS tardy,"))
