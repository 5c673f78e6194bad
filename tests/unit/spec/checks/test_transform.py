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
    ("sql", "code"),
    [
        ("SELECT count(*) AS n FROM records", "TM-SPEC-TRANSFORM-NOT-ROW-WISE"),
        ("SELECT id FROM records GROUP BY id", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT id, row_number() OVER (ORDER BY id) AS n FROM records", "TM-SPEC-TRANSFORM-NOT-ROW-WISE"),
        ("SELECT id FROM records JOIN d ON d.k = id", "TM-SPEC-TRANSFORM-JOIN"),
        ("SELECT id FROM records, d", "TM-SPEC-TRANSFORM-JOIN"),
        ("SELECT id FROM records LEFT JOIN e ON e.k = id", "TM-SPEC-TRANSFORM-NO-DIMENSION"),
        ("SELECT id, (SELECT max(k) FROM d) AS m FROM records", "TM-SPEC-TRANSFORM-NOT-ROW-WISE"),
        ("SELECT explode(items) AS item FROM records", "TM-SPEC-TRANSFORM-NOT-ROW-WISE"),
        ("SELECT DISTINCT id FROM records", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT id FROM records ORDER BY id", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT id FROM records LIMIT 3", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT id FROM records DISTRIBUTE BY id", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT id FROM records CLUSTER BY id", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT id FROM records SORT BY id", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT /*+ REPARTITION(8) */ id FROM records", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT id FROM records TABLESAMPLE (10 PERCENT)", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT id FROM records OFFSET 3", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT inline(items) AS i FROM records", "TM-SPEC-TRANSFORM-NOT-ROW-WISE"),
        ("SELECT stack(2, id, id) AS i FROM records", "TM-SPEC-TRANSFORM-NOT-ROW-WISE"),
        ("SELECT * FROM records", "TM-SPEC-TRANSFORM-STAR"),
        ("SELECT id + 1 FROM records", "TM-SPEC-TRANSFORM-COLUMN-UNNAMED"),
        ("SELECT id FROM d", "TM-SPEC-TRANSFORM-SOURCE"),
        ("SELECT id FROM records; SELECT 1", "TM-SPEC-SQL-NOT-ONE-SELECT"),
        ("DELETE FROM records", "TM-SPEC-SQL-NOT-ONE-SELECT"),
        ("SELECT id FRM records WHERE", "TM-SPEC-SQL-SYNTAX"),
    ],
)
def test_what_is_not_row_wise_is_refused_with_the_alternative(sql: str, code: str) -> None:
    """Aggregates, shuffles and inner joins are refused; the sentence says what to do instead."""
    with pytest.raises(SpecError) as caught:
        parse_transform(sql, "t.sql", ("d",))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("sql", "clause", "alternative"),
    [
        ("SELECT id FROM records HAVING id > 1", "HAVING", "rollups"),
        ("WITH r AS (SELECT 1 AS id) SELECT id FROM records", "WITH", "into the SELECT"),
        ("SELECT id FROM records LATERAL VIEW explode(items) x AS y", "LATERAL VIEW", "one row"),
        ("SELECT id FROM records SORT BY id", "SORT", "without shuffle"),
    ],
)
def test_a_clause_is_named_as_sql_has_it(sql: str, clause: str, alternative: str) -> None:
    """The message shows the clause of the author's text, and what to write instead of it."""
    with pytest.raises(SpecError, match="TM-SPEC-TRANSFORM-CLAUSE") as caught:
        parse_transform(sql, "t.sql", ())
    assert caught.value.parameters["clause"] == clause
    assert alternative in caught.value.remedy
