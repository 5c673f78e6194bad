"""Spark evaluates an author's SQL as it is written: what a transform adds to the text changes none of its values."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from tidemill.errors import SpecError
from tidemill.spec.checks.functions import SPARK
from tidemill.spec.checks.transform import parse_transform

SHORT = 20
"""Functions whose examples every run evaluates."""
LITERALS = (
    "'O''Hare'",
    "'a' 'b'",
    "'it\\'s'",
    "'\\u0041\\101\\t\\%'",
    '"double ""quoted"""',
    '"a\\"b"',
    "r'C:\\new'",
    'R"C:\\new\\"',
    "X'1F0a'",
    "1Y",
    "1S",
    "1L",
    "1.5",
    "1.5BD",
    "1e3",
    "1e3D",
    "1.5F",
    ".5",
    "5.",
    "-1",
    "- -1",
    "TRUE",
    "NULL",
    "DATE '2020-02-29'",
    "DATE'2020'",
    "TIMESTAMP '2020-01-01 00:00:00.123456'",
    "TIMESTAMP_NTZ '2020-01-01'",
    "TIMESTAMP_LTZ '2020-01-01 00:00:00+02'",
    "TIME '12:30:00'",
    "INTERVAL 1 HOUR 30 MINUTES",
    "INTERVAL '1-2' YEAR TO MONTH",
    "INTERVAL '1 02:03:04.5' DAY TO SECOND",
    "INTERVAL -'1' DAY",
    "INTERVAL '1 year 2 months'",
    "INTERVAL 1 YEAR 2 MONTHS",
    "t - INTERVAL 1 HOUR 30 MINUTES",
    "t + INTERVAL '90' MINUTE",
    "t - MAKE_INTERVAL(0, 1)",
    "array(1, 2)[0]",
    "s || 'x'",
    "s LIKE 'a!%%' ESCAPE '!'",
    "s RLIKE '^O.H'",
    "s ILIKE ANY ('o%', 'x')",
    "NOT s <=> NULL",
    "n DIV 2 % 3",
    "~n & 6 ^ 1 | 8",
    "n << 2 >> 1 >>> 1",
    "n BETWEEN 1 AND 9 AND n != 3",
    "n IS DISTINCT FROM NULL",
    "CAST(n AS STRING)",
    "n::double",
    "CAST('1 2:3:4' AS INTERVAL DAY TO SECOND)",
    "EXTRACT(DOW FROM t)",
    "TRIM(BOTH 'O' FROM s)",
    "POSITION('H' IN s)",
    "SUBSTRING(s FROM 2 FOR 3)",
    "OVERLAY(s PLACING '_' FROM 2)",
    "CASE n WHEN 7 THEN 'x' END",
    "IF(n > 1, 'a', 'b')",
    "transform(array(n, 1), x -> x + n)",
    "named_struct('a', n).a",
    "map('k', n)['k']",
    "'${env:HOME}'",
    "n /* + 1 */ + 2",
    "s COLLATE UTF8_LCASE = 'o\\'HARE'",
    "t AT TIME ZONE 'CET'",
    "TIMESTAMPDIFF(HOUR, DATE '2020-01-01', t)",
)
GIVEN = "SELECT 'O\\'Hare' AS s, 7 AS n, TIMESTAMP '2020-03-01 10:20:30.5' AS t"
CALL = re.compile(r"^\s*> SELECT (.*);\s*$", re.MULTILINE)


def functions(spark: SparkSession) -> list[str]:
    """The names of all functions that Spark has, without its operators."""
    return [name for (name,) in spark.sql("SHOW FUNCTIONS").collect() if name[0].isalpha()]


def examples(spark: SparkSession, names: list[str]) -> list[str]:
    """The expressions in the examples of Spark's own reference of these functions."""
    found = []
    for name in names:
        described = "\n".join(row[0] for row in spark.sql(f"DESCRIBE FUNCTION EXTENDED `{name}`").collect())
        found += CALL.findall(described)
    return sorted({each for each in found if not re.search(r"\bFROM VALUES\b|\bOVER\b", each, re.IGNORECASE)})


def compared(spark: SparkSession, expression: str) -> tuple[Any, Any] | None:
    """What an expression gives as it is written and as a stream runs it; None if one of them refuses it."""
    written = f"SELECT {expression} AS x FROM records"
    try:
        run = parse_transform(written, "t.sql", ()).sql
    except SpecError:
        return None
    return evaluated(spark, written), evaluated(spark, run)


def evaluated(spark: SparkSession, sql: str) -> object:
    """The value of the column ``x``, or the class of the error that it ends with."""
    try:
        return spark.sql(sql).selectExpr("CAST(x AS STRING)", "typeof(x)").collect()
    except PySparkException as error:
        return error.getCondition()


def differing(spark: SparkSession, expressions: list[str]) -> tuple[list[str], int]:
    """The expressions whose two values differ, and how many were compared."""
    spark.sql(GIVEN).createOrReplaceTempView("records")
    pairs = {each: compared(spark, each) for each in expressions}
    held = {each: pair for each, pair in pairs.items() if pair is not None}
    return [f"{each}: {pair}" for each, pair in held.items() if pair[0] != pair[1]], len(held)


def test_literals_are_evaluated_as_they_are_written(spark: SparkSession) -> None:
    """Every form of a literal and of an operator; at most a few are unknown to the parser, and refused."""
    wrong, compared_forms = differing(spark, list(LITERALS))
    assert not wrong
    assert compared_forms >= len(LITERALS) - 6


def test_examples_are_evaluated_as_they_are_written(spark: SparkSession) -> None:
    """A part of the examples of Spark's reference."""
    wrong, compared_examples = differing(spark, examples(spark, random.Random(1).sample(functions(spark), SHORT)))
    assert not wrong
    assert compared_examples > SHORT / 2


@pytest.mark.full
def test_every_example_is_evaluated_as_it_is_written(spark: SparkSession) -> None:
    """All examples of row-wise functions in Spark's reference."""
    wrong, compared_examples = differing(spark, examples(spark, functions(spark)))
    assert not wrong
    assert compared_examples > 400


@pytest.mark.full
def test_every_function_that_is_accepted_is_deterministic_for_spark(spark: SparkSession) -> None:
    """Spark's own flag of the analysed plan, of every example that a transform may contain."""
    spark.sql(GIVEN).createOrReplaceTempView("records")
    chance = []
    for expression in examples(spark, sorted(SPARK.intersection(functions(spark)))):
        try:
            run = parse_transform(f"SELECT {expression} AS x FROM records", "t.sql", ()).sql
            plan = spark.sql(run)._jdf.queryExecution().analyzed()
        except (SpecError, PySparkException):
            continue
        if not plan.deterministic():
            chance.append(expression)
    assert not chance
