"""What a column's type makes of the value that a transform selects: the same value, or a reason."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from tidemill.spec.schema import Table
from tidemill.stream.plan.fits import fitted

KEPT: dict[str, tuple[list[str], list[str]]] = {
    "INT": (["'5'", "5.5"], ["'1.5'", "' 5'", "'5x'", "'1e1'", "''"]),
    "DECIMAL(5,2)": (["'1.50'", "1.555"], ["'1.555'", "'1e10000000'", "'1e-10000000'"]),
    "DATE": (["'2024-02-29'", "DATE'2024-02-29'"], ["'12:30'", "'2024'", "'2023-02-29'", "20240229", "'20240229'"]),
    "DATETIME(6)": (
        ["'2024-02-29'", "'2024-02-29T23:59:59.123456Z'", "'2024-02-29 23:59'", "TIMESTAMP'2024-02-29'"],
        [
            *(
                "'12:30'",
                "'2024-02'",
                "1770832800000",
                "1.5",
                "true",
                "'2024-02-29T23:59:59.1234567Z'",
                "' 2024-02-29'",
            ),
            *("'2024-02-29 10:00 Europe/Berlin'", "'2024-02-29T24:00:00'", "'2024-02-29T10'", "'2024-02-29 23:59Z'"),
        ],
    ),
    "TIMESTAMP(6) NULL": (["'2024-02-29'"], ["'1'", "1"]),
    "TIME(6)": (["'12:30'", "'-838:59:59.999999'"], ["'10'", "1030", "'1 10:00'", "'10:60'", "1.5"]),
    "YEAR": (["2024", "'2024'"], ["5", "'5'", "70", "0", "'0'", "20240", "2024.5"]),
    "ENUM('5','1','x')": (["'5'", "'1'", "'x'", "5"], ["'2'", "'3'", "2", "'X'", "'x '", "''", "'0'"]),
    "SET('5','1','x')": (["'5,1'", "'x'", "''", "5"], ["'2'", "3", "'5,2'", "'x,'", "'5, 1'"]),
    "VARCHAR(3)": (["'abc'", "'ab '", "'é漢😀'", "''"], ["'abcd'", "'abc '"]),
    "CHAR(3)": (["'abc'", "' ab'", "''"], ["'abcd'", "'ab '"]),
    "BINARY(2)": (["X'0001'", "'ab'"], ["X'01'", "'abc'", "''"]),
}
"""Column's type -> SQL of values that are kept, and of such that are not."""
COMPARED: dict[str, tuple[list[str], list[str]]] = {
    "INTEGER UNSIGNED": (["3000000000L", "'3000000000'"], ["1.5", "'1.5'", "TIMESTAMP'2024-02-29'", "1e30D"]),
    "INT4": (["5L", "'5'", "5.0"], ["3000000000L", "5.5", "'x'"]),
    "BIGINT UNSIGNED": (["18446744073709551615"], ["'1.5'", "99999999999999999999999"]),
    "DECIMAL(20)": (["5", "5.0", "'5'"], ["5.4", "'5.4'", "5.4D"]),
    "NUMERIC(9,2)": (
        ["5.25", "'5.250'", "'5e2'"],
        ["5.255", "'5.255'", "12345678.9", "'1e10000000'", "'1e-10000000'", "' 5'"],
    ),
    "DATE": (["DATE'2024-02-29'", "'2024-02-29'", "TIMESTAMP'2024-02-29'"], ["TIMESTAMP'2024-02-29 00:00:01'", "5"]),
    "DATETIME": (["TIMESTAMP'2024-02-29 00:00:01'"], ["TIMESTAMP'2024-02-29 00:00:01.5'", "5", "'12:30'"]),
    "DATETIME(6)": (["TIMESTAMP'2024-02-29 00:00:01.000001'", "DATE'2024-02-29'"], ["5", "'12:30'"]),
    "VARCHAR(3)": (["'abc'", "'ab '", "123"], ["'abc '", "'abcd'"]),
    "VARBINARY(3)": (["X'00FF'", "'abc'"], []),
}
"""The same of a key or a version."""


@pytest.mark.parametrize("compared", [False, True], ids=["value", "key"])
def test_a_value_is_kept_or_has_a_reason(spark: SparkSession, compared: bool) -> None:
    """The database would take the others too, as other values; a key would be cut, rounded or wrapped."""
    cases = COMPARED if compared else KEPT
    given = [(declared, sql, sql in good) for declared, (good, bad) in cases.items() for sql in [*good, *bad]]
    rows = spark.range(1).selectExpr(*(f"{sql} AS c{number}" for number, (_, sql, _) in enumerate(given)))
    found = []
    for number, (declared, _, _) in enumerate(given):
        name = f"c{number}"
        key = name if compared else "z"
        content = {"from": "t.sql", "kind": "event", "key": [key], "columns": {name: declared}}
        values, reason = fitted(rows, Table.model_validate(content))
        found += [values[name].isNotNull().alias(f"kept{number}"), reason.alias(f"reason{number}")]
    result = rows.select(*found).first()
    assert result is not None
    assert [(*each[:2], result[f"kept{number}"]) for number, each in enumerate(given)] == given
    for number, (declared, _, is_kept) in enumerate(given):
        reason = result[f"reason{number}"]
        assert reason is None if is_kept else reason.endswith(f" does not fit {declared}"), given[number]
