"""No feature reads what the label is made of."""

import pickle

import pytest

from support.paths import ROOT
from tidemill.errors import SpecError
from tidemill.spec import Model, load_pipeline
from tidemill.spec.checks.features import check_features, parse_feature_query
from tidemill.spec.feature_query import FeatureQuery

FLIGHTS = load_pipeline(ROOT / "pipelines" / "flights")
MODEL: Model = FLIGHTS.models["late_arrival"]
SQL = FLIGHTS.sql("features.sql")


def test_the_shipped_features_are_right() -> None:
    """Key, time, label and commit are no features."""
    names = MODEL.query.features
    assert "dep_delay" in names
    assert not {"id", "known_at", "late", "_commit"} & set(names)


def test_a_feature_made_of_the_label_is_refused() -> None:
    """arr_delay is what late is computed from, under whatever name it is selected."""
    leaking = SQL.replace("f.distance,", "f.distance, f.arr_delay / 60 AS comfort,")
    with pytest.raises(SpecError, match="TM-SPEC-FEATURES-LEAK") as caught:
        check_features("late_arrival", MODEL, leaking)
    assert (caught.value.value, caught.value.parameters["feature"]) == ("f.arr_delay", "comfort")


def test_a_query_without_the_declared_columns_is_refused() -> None:
    """The label must be there to be learned."""
    with pytest.raises(SpecError, match="TM-SPEC-FEATURES-COLUMN-MISSING") as caught:
        check_features("late_arrival", MODEL, SQL.replace("AS late,", "AS tardy,"))
    assert caught.value.value == "late"


QUERY = """
WITH seen AS (SELECT 1 AS id)
SELECT f.id, f.known_at, h.flights, `late`.n, f.late, f._commit
FROM flights AS f
LEFT JOIN `delays_by_hour` h FORCE INDEX (x) ON h.hour = f.hour -- 5 %
LEFT JOIN other.delays AS late ON late.id IN (SELECT id FROM flights)
JOIN seen;
"""


def test_a_query_is_parsed_into_a_value() -> None:
    """Positions are those of the text; names that WITH defines are no tables; rows come from what the time is of."""
    query = parse_feature_query(MODEL, QUERY)
    assert query.sql == QUERY.strip().removesuffix(";")
    assert query.features == ("flights", "n")
    assert query.row_time == "t.known_at"
    assert [query.sql[each.start : each.alias_end] for each in query.tables] == [
        "flights AS f",
        "`delays_by_hour` h",
        "delays AS late",
        "flights",
    ]
    assert [(each.schema_name, each.has_alias, each.has_hint, each.is_row_source) for each in query.tables] == [
        ("", True, False, True),
        ("", True, True, False),
        ("other", True, False, False),
        ("", False, False, False),
    ]
    assert FeatureQuery.model_validate_json(query.model_dump_json()) == query


@pytest.mark.parametrize("time", ["MAX(f.known_at)", "(SELECT 1)", "GREATEST(f.a, h.b)", "NOW()"])
def test_a_time_of_no_single_row_has_no_row_source(time: str) -> None:
    """A time that is computed from several rows or tables, or from none, cannot hide later rows."""
    query = parse_feature_query(MODEL, f"SELECT f.id, {time} AS known_at FROM flights AS f JOIN hours AS h ON TRUE")
    assert query.row_time is None
    assert not any(each.is_row_source for each in query.tables)


def test_a_loaded_model_carries_its_query_also_to_another_process() -> None:
    """Spark sends pipelines to Python workers; a model that was not loaded has no query."""
    assert pickle.loads(pickle.dumps(FLIGHTS)).models["late_arrival"].query == MODEL.query  # noqa: S301 -- ours
    with pytest.raises(ValueError, match=r"features\.sql was not loaded"):
        Model.model_validate(MODEL.model_dump()).query  # noqa: B018 -- it is the access that fails
