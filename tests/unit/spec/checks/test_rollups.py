"""What a rollup may sum and group by, and what its columns are."""

import pytest

from tidemill.errors import SpecError
from tidemill.spec.checks.rollups import cast_type, check_group_key, check_group_type, parse_measure, qualified

COLUMNS = {
    "t": "TINYINT",
    "i": "INT(11) UNSIGNED NOT NULL",
    "n": "BIGINT NOT NULL",
    "d": "DECIMAL(12, 2)",
    "e": "decimal(20,15)",
    "w": "DECIMAL(60,2)",
    "f": "DOUBLE",
    "o": "VARCHAR(8)",
    "x": "TEXT",
    "at": "DATETIME(6)",
}
LARGE = "DECIMAL(38,0)"


@pytest.mark.parametrize(
    ("expression", "declared"),
    [
        ("count(*)", "BIGINT"),
        ("sum(t)", "BIGINT"),
        ("sum(i)", "BIGINT"),
        ("sum(i - 1)", "BIGINT"),
        ("sum(i > 15)", "BIGINT"),
        ("sum(n > 15)", "BIGINT"),
        ("sum(f > 15 AND NOT o = 'a')", "BIGINT"),
        ("sum(o LIKE 'a%')", "BIGINT"),
        ("sum(if(n > 3, i, 0))", "BIGINT"),
        ("sum(case when d > 3 then 1 when at is null then t else 0 end)", "BIGINT"),
        ("sum(n)", LARGE),
        ("sum(n * n)", LARGE),
        ("sum(i * t)", LARGE),
        ("sum(coalesce(n, 0))", LARGE),
        ("sum(abs(-n) DIV 60)", LARGE),
        ("sum(i + 99999999999999)", LARGE),
        ("sum(d)", "DECIMAL(65,2)"),
        ("sum(d + e)", "DECIMAL(65,15)"),
        ("sum(d * e)", "DECIMAL(65,17)"),
        ("sum(e * e)", "DECIMAL(65,30)"),
        ("sum(if(i > 1, d, n))", "DECIMAL(65,2)"),
        ("sum(9223372036854775808)", "DECIMAL(65,0)"),
    ],
)
def test_a_sum_has_a_column_that_it_cannot_outgrow(expression: str, declared: str) -> None:
    """Integers that are small are counted in BIGINT; others, products and decimals in what holds every digit."""
    assert parse_measure("m", expression, COLUMNS).type == declared


@pytest.mark.parametrize(
    ("expression", "code", "value"),
    [
        ("sum(o)", "SUM-NOT-NUMERIC", "o: VARCHAR(8)"),
        ("sum(coalesce(x, 0))", "SUM-NOT-NUMERIC", "x: TEXT"),
        ("sum(at)", "SUM-NOT-NUMERIC", "at: DATETIME(6)"),
        ("sum('1')", "SUM-NOT-NUMERIC", "'1'"),
        ("sum(f)", "SUM-APPROXIMATE", "f: DOUBLE"),
        ("sum(w)", "SUM-OVERFLOW", "sum(w) (58 digits before the decimal point, 2 after it)"),
        ("sum(e * e * d)", "SUM-OVERFLOW", "sum(e * e * d) (20 digits before the decimal point, 32 after it)"),
        ("sum((select n from t))", "ROLLUP-NOT-ROW-WISE", "(select n from t)"),
        ("sum(n > (select 1))", "ROLLUP-NOT-ROW-WISE", "n > (select 1)"),
        ("sum(at > NOW())", "FUNCTION-IMPURE", "now"),
        ("sum(n > @@max_connections)", "SQL-VARIABLE", "@@max_connections"),
        ("sum(all n)", "MEASURE-UNSUPPORTED", "sum(all n)"),
        ("max(n)", "MEASURE-UNSUPPORTED", "max(n)"),
    ],
)
def test_what_differences_cannot_keep_is_refused(expression: str, code: str, value: str) -> None:
    """Text, instants and numbers of too many digits are not summed; the refusal says what to do."""
    with pytest.raises(SpecError) as caught:
        parse_measure("m", expression, COLUMNS)
    assert (caught.value.code, caught.value.value) == (f"TM-SPEC-{code}", value)


@pytest.mark.parametrize(
    ("declared", "cast"),
    [
        ("TINYINT", "SIGNED"),
        ("mediumint", "SIGNED"),
        ("INT(11) NOT NULL", "SIGNED"),
        ("BIGINT unsigned", "DECIMAL(20,0)"),
        ("DECIMAL(12, 2)", "DECIMAL(12,2)"),
        ("numeric(9) NOT NULL", "DECIMAL(9,0)"),
        ("INT8 UNSIGNED", "DECIMAL(20,0)"),
        ("CHARACTER VARYING(8)", "CHAR(8)"),
        ("DECIMAL", "DECIMAL(10,0)"),
        ("VARCHAR(8)", "CHAR(8)"),
        ("DATE", "DATE"),
        ("DATETIME(6)", "DATETIME(6)"),
        ("TIME", "TIME"),
    ],
)
def test_a_group_is_cast_to_its_type(declared: str, cast: str) -> None:
    """Every type that a rollup can group by is one that CAST knows, or has one that holds its values."""
    check_group_type("by.k", declared)
    assert cast_type(declared) == cast


@pytest.mark.parametrize(
    "declared",
    [
        *("CHAR", "CHAR(8)", "TEXT", "VARBINARY(8)", "BINARY(2)", "DOUBLE", "TIMESTAMP", "JSON", "VARCHAR", ""),
        *("VARCHAR(8) UNIQUE", "VARCHAR(8) COLLATE utf8mb4_general_ci", "NATIONAL VARCHAR(8)", "INT ZEROFILL"),
    ],
)
def test_other_types_are_no_groups(declared: str) -> None:
    """What cannot be cast to everywhere, or shows two groups alike, is refused, and the refusal names what can."""
    with pytest.raises(SpecError, match="TM-SPEC-GROUP-TYPE"):
        check_group_type("by.k", declared)


@pytest.mark.parametrize(
    ("written", "run"),
    [
        ("n", "`s`.`n`"),
        ("CONCAT(o, 'O''Hare', \"it's\", 'n')", "CONCAT(`s`.`o`, 'O''Hare', \"it's\", 'n')"),
        ("at - interval  1 day /* o */ + n", "`s`.`at` - interval  1 day /* o */ + `s`.`n`"),
        ("`n`+clicks . `n`", "`s`.`n`+`s`.`n`"),
        ("IF(n<=>3,x'41',_utf8mb4'n') -- n", "IF(`s`.`n`<=>3,x'41',_utf8mb4'n') -- n\n"),
        ("DATE_FORMAT(at, '%Y-%m n') # n", "DATE_FORMAT(`s`.`at`, '%Y-%m n') # n\n"),
        ("TIMESTAMPDIFF(MINUTE, at, '2020-01-01')", "TIMESTAMPDIFF(MINUTE, `s`.`at`, '2020-01-01')"),
        ("CASE o WHEN 'n' THEN n ELSE 1.50 END", "CASE `s`.`o` WHEN 'n' THEN `s`.`n` ELSE 1.50 END"),
    ],
)
def test_the_database_runs_the_authors_own_characters(written: str, run: str) -> None:
    """Only the names of columns are changed: each is read from the given rows."""
    check_group_key("by.k", written, COLUMNS)
    assert qualified(written, "s") == run


def test_what_is_summed_is_the_authors_text() -> None:
    """The characters between the parentheses, in which other parentheses and comments may be."""
    written = "SUM ( if((n) > 3, i, 0) /* ) */ ) ;"
    assert parse_measure("m", written, COLUMNS).summand == "if((n) > 3, i, 0) /* ) */"


@pytest.mark.parametrize(
    "expression", ["n AS m", "n; n", "n; DROP TABLE x", "(SELECT 1)", "EXISTS (SELECT 1)", "max(n)", "*"]
)
def test_a_key_is_an_expression_over_one_row(expression: str) -> None:
    """Neither a subquery nor an aggregate, nor anything beside one expression."""
    with pytest.raises(SpecError) as caught:
        check_group_key("by.k", expression, COLUMNS)
    assert caught.value.code in ("TM-SPEC-ROLLUP-NOT-ROW-WISE", "TM-SPEC-SQL-SYNTAX")
