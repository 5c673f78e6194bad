"""SQL whose value depends on more than its row is refused, wherever an author may write it."""

from __future__ import annotations

import pytest

from tidemill.errors import SpecError
from tidemill.spec.checks.functions import DATABASE, SPARK, check_functions
from tidemill.spec.checks.rollups import check_group_key, parse_measure
from tidemill.spec.checks.transform import parse_transform

SPARK_IMPURE = (
    *("now()", "current_timestamp()", "CURRENT_TIMESTAMP", "current_date", "CURDATE()", "localtimestamp()"),
    *("unix_timestamp()", "rand()", "rand(1)", "randn()", "RANDOM()", "uuid()", "shuffle(a)", "uniform(1, 2)"),
    *("monotonically_increasing_id()", "spark_partition_id()", "input_file_name()", "current_user()", "version()"),
    *("current_timezone()", "current_database()", "`rand`()", "java_method('java.util.UUID', 'randomUUID')"),
    *("reflect('java.lang.System', 'nanoTime')", "aes_encrypt(a, b)", "now /* now */ ()", "upper(concat(a, uuid()))"),
)
DATABASE_IMPURE = (
    *("NOW()", "now(6)", "CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP(3)", "CURDATE()", "UTC_DATE", "SYSDATE()", "RAND()"),
    *("RAND(3)", "UUID()", "CONNECTION_ID()", "CURRENT_USER", "CURRENT_USER()", "DATABASE()", "SCHEMA()", "VERSION()"),
    *("SLEEP(1)", "BENCHMARK(9, a)", "GET_LOCK('a', 1)", "LAST_INSERT_ID()", "LOAD_FILE('/etc/passwd')", "ROW_COUNT()"),
    *("UNIX_TIMESTAMP()", "CONVERT_TZ(a, 'SYSTEM', '+00:00')", "FOUND_ROWS()", "SYS_GUID()", "RANDOM_BYTES(8)"),
    *("COALESCE(a, IF(TRUE, NOW(), 1))", "LOCALTIME", "`NOW`()", "NOW/**/()"),
)


@pytest.mark.parametrize("call", SPARK_IMPURE)
def test_a_transform_takes_functions_of_its_record(call: str) -> None:
    """In the list, the condition of a join, and WHERE."""
    for sql in (
        f"SELECT {call} AS x FROM records",
        f"SELECT a FROM records LEFT JOIN d ON d.a = {call}",
        f"SELECT a FROM records WHERE a = {call}",
    ):
        with pytest.raises(SpecError, match="TM-SPEC-FUNCTION-IMPURE"):
            parse_transform(sql, "t.sql", ("d",))


@pytest.mark.parametrize("call", DATABASE_IMPURE)
def test_a_rollup_takes_functions_of_its_row(call: str) -> None:
    """In a group key and in a measure."""
    columns = {"a": "INT"}
    with pytest.raises(SpecError, match="TM-SPEC-FUNCTION-IMPURE"):
        check_group_key("by.k", call, columns)
    with pytest.raises(SpecError, match=r"TM-SPEC-(FUNCTION-IMPURE|SUM-FRACTION)"):
        parse_measure("m", f"sum(a > {call})", columns)


@pytest.mark.parametrize("text", ["@@hostname", "@a", "@a := 1", "a + @@session.time_zone", "?", ":a"])
def test_variables_and_parameters_are_refused(text: str) -> None:
    """Their values belong to a session."""
    with pytest.raises(SpecError, match=r"TM-SPEC-(SQL-VARIABLE|SQL-SYNTAX|ROLLUP-NOT-ROW-WISE)"):
        check_group_key("by.k", text, {"a": "INT"})


@pytest.mark.parametrize(("dialect", "known"), [("spark", SPARK), ("mysql", DATABASE)])
def test_an_unknown_function_is_refused_with_the_nearest_known_one(dialect: str, known: frozenset[str]) -> None:
    """Every known function is accepted; none with a letter more, and none of another schema."""
    for name in known:
        arguments = "a, 1" if name == "unix_timestamp" else "a"
        check_functions("by.k", f"{name}({arguments})", dialect)
        with pytest.raises(SpecError, match="TM-SPEC-FUNCTION-UNKNOWN") as caught:
            check_functions("by.k", f"{name}x_({arguments})", dialect)
        assert "did you mean" in caught.value.remedy
        with pytest.raises(SpecError, match=r"TM-SPEC-FUNCTION-(UNKNOWN|IMPURE)"):
            check_functions("by.k", f"other.{name}({arguments})", dialect)


@pytest.mark.parametrize(
    "text",
    ["'NOW()' = a", "a.now", "`current_date`", "r.`uuid`", "a -- rand()\n + 1", "a IN (1, 2) AND (b)", '"uuid()"'],
)
def test_names_and_literals_are_no_functions(text: str) -> None:
    """Only a call is one."""
    for dialect in ("spark", "mysql"):
        check_functions("by.k", text, dialect)
