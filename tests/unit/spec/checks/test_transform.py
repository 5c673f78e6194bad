"""The transform is row-wise, and no record leaves the stream uncounted."""

import pytest

from tidemill.errors import SpecError
from tidemill.spec.checks.transform import parse_transform


def test_where_becomes_a_column() -> None:
    """A filtered record still reaches the writer, which counts it; an unknown condition filters."""
    parsed = parse_transform("SELECT id FROM records WHERE id > 3", "t.sql", ())
    assert parsed.columns == ("id",)
    assert "COALESCE(id > 3, FALSE) AS _kept" in parsed.sql
    assert "WHERE" not in parsed.sql


def test_the_record_travels_past_the_transform() -> None:
    """Whole, under whatever alias the author gives to records: its coordinates, and what the next table reads."""
    parsed = parse_transform("SELECT r.id FROM records AS r", "t.sql", ())
    assert "STRUCT(r.*) AS _record" in parsed.sql


def test_a_dimension_may_be_joined_from_the_left() -> None:
    """A LEFT JOIN neither loses nor, over a unique key, multiplies records."""
    parsed = parse_transform("SELECT id, d.name AS n FROM records LEFT JOIN d ON d.k = id", "t.sql", ("d",))
    assert parsed.columns == ("id", "n")


@pytest.mark.parametrize(
    ("sql", "remedy"),
    [
        ("SELECT count(*) AS n FROM records", "rollups"),
        ("SELECT id FROM records GROUP BY id", "rollups"),
        ("SELECT id, row_number() OVER (ORDER BY id) AS n FROM records", "features.sql"),
        ("SELECT id FROM records JOIN d ON d.k = id", "LEFT JOIN"),
        ("SELECT id FROM records, d", "LEFT JOIN"),
        ("SELECT id FROM records LEFT JOIN e ON e.k = id", "dimensions: d"),
        ("SELECT id, (SELECT max(k) FROM d) AS m FROM records", "rollups"),
        ("SELECT explode(items) AS item FROM records", "one record makes one row"),
        ("SELECT DISTINCT id FROM records", "key settles duplicates"),
        ("SELECT id FROM records ORDER BY id", "no order"),
        ("SELECT id FROM records LIMIT 3", "no end"),
        ("SELECT id FROM records DISTRIBUTE BY id", "not shuffled"),
        ("SELECT id FROM records CLUSTER BY id", "not shuffled"),
        ("SELECT id FROM records SORT BY id", "not shuffled"),
        ("SELECT /*+ REPARTITION(8) */ id FROM records", "not shuffled"),
        ("SELECT id FROM records TABLESAMPLE (10 PERCENT)", "not shuffled"),
        ("SELECT id FROM records OFFSET 3", "not shuffled"),
        ("SELECT inline(items) AS i FROM records", "one record makes one row"),
        ("SELECT stack(2, id, id) AS i FROM records", "one record makes one row"),
        ("SELECT * FROM records", "name the columns"),
        ("SELECT id + 1 FROM records", "AS <column>"),
        ("SELECT id FROM d", "FROM records"),
        ("SELECT id FROM records; SELECT 1", "one SELECT"),
        ("DELETE FROM records", "one SELECT"),
        ("SELECT id FRM records WHERE", "mend it"),
    ],
)
def test_what_is_not_row_wise_is_refused_with_the_alternative(sql: str, remedy: str) -> None:
    """Aggregates, shuffles and inner joins are refused; the sentence says what to do instead."""
    with pytest.raises(SpecError, match=remedy):
        parse_transform(sql, "t.sql", ("d",))
