"""The transform is row-wise, and no record leaves the stream uncounted."""

from itertools import product

import pytest

from tidemill.errors import SpecError
from tidemill.spec.checks.transform import parse_transform


def test_where_becomes_a_column() -> None:
    """A filtered record still reaches the writer, which counts it; an unknown condition filters."""
    parsed = parse_transform("SELECT id FROM records WHERE id > 3", "t.sql", ())
    assert parsed.columns == ("id",)
    assert "COALESCE((\n id > 3\n), false) AS _kept" in parsed.sql
    assert "WHERE" not in parsed.sql


LISTS = (
    "r.id",
    "'O''Hare' AS a, \"say \\\"FROM\\\"\" AS b",
    "r'C:\\new\\' AS a, R\"it's FROM\" AS b",
    "t - INTERVAL 1 HOUR 30 MINUTES AS `FROM records`",
    "`a``b` AS c /* FROM records WHERE /* nested */ -- */, 5 AS d",
    "id -- FROM records AS x WHERE 'open\n, 'WHERE' AS w",
    "EXTRACT(YEAR FROM t) AS y, TRIM(BOTH 'x' FROM s) AS z, a IS DISTINCT FROM records AS q",
    "CASE WHEN (a) THEN '${x}' ELSE '\\'' END AS c, 1e3D AS e, 10BD AS f, 5L AS g, X'1F' AS h",
)
SOURCES = (
    "records r",
    "records AS `r` -- WHERE\n",
    "records r LEFT JOIN d ON d.k = r.id AND d.v IS DISTINCT FROM 'WHERE'",
    "/* FROM */ records AS r LEFT OUTER JOIN d USING (id)",
)
CONDITIONS = (None, "id > 3 OR id IS NULL", "(s = 'WHERE' -- FROM\n) OR r'\\' = s", "a IS DISTINCT FROM records -- bye")


@pytest.mark.parametrize(("columns", "source", "condition"), list(product(LISTS, SOURCES, CONDITIONS)))
def test_spark_runs_the_authors_own_characters(columns: str, source: str, condition: str | None) -> None:
    """Whatever words stand in literals, names, comments and functions: nothing is changed, only added between."""
    written = f"-- Purpose: FROM here.\nselect {columns} From {source}"
    written += "" if condition is None else f" where {condition}"
    kept = "true" if condition is None else f"COALESCE((\n {condition}\n), false)"
    tail = " " if condition is not None else ""
    expected = f"SELECT {columns} \n, {kept} AS _kept, struct(`r`.*) AS _record\nFROM {source}{tail}\n"
    assert parse_transform(written, "t.sql", ("d",)).sql == expected
    ended = f"{written}\n;\n-- end"
    assert parse_transform(ended, "t.sql", ("d",)).sql.split() == expected.split()


def test_the_record_travels_past_the_transform() -> None:
    """Whole, under whatever alias the author gives to records: its coordinates, and what the next table reads."""
    parsed = parse_transform("SELECT r.id FROM records AS r", "t.sql", ())
    assert "struct(`r`.*) AS _record" in parsed.sql


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
        ("SELECT id -- to C:\\\n, 2 AS n FROM records", "TM-SPEC-SQL-COMMENT"),
        ("SELECT id FROM records |> WHERE id > 3", "TM-SPEC-TRANSFORM-CLAUSES-UNCLEAR"),
        ("FROM records SELECT id", "TM-SPEC-TRANSFORM-CLAUSES-UNCLEAR"),
        ("SELECT id FROM records PIVOT (max(id) FOR id IN (1, 2))", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT TRANSFORM (id) USING 'cat' AS id FROM records", "TM-SPEC-TRANSFORM-CLAUSE"),
        ("SELECT id FROM records AS r (id, page)", "TM-SPEC-TRANSFORM-SOURCE"),
        ("SELECT id FROM other.records", "TM-SPEC-TRANSFORM-SOURCE"),
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
