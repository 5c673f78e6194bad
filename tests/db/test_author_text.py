"""The database evaluates an author's SQL as it is written: nothing but names of columns changes."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill.config import Account, Settings
from tidemill.errors import SpecError
from tidemill.spec.checks.rollups import check_group_key, qualified
from tidemill.store.connection import session

COLUMNS = {"s": "VARCHAR(9)", "n": "BIGINT", "d": "DECIMAL(9,2)", "at": "DATETIME(6)", "on": "DATE", "j": "JSON"}
ROW = (
    "SELECT 'O''Hare' AS s, 7 AS n, 2.50 AS d, TIMESTAMP'2020-03-01 10:20:30.5' AS at, DATE'2020-02-29' AS `on`,"
    """ '{"a": [1, "x"]}' AS j"""
)
LITERALS = (
    *(
        "'O''Hare'",
        "'it\\'s'",
        '"double ""quoted"""',
        "'a' 'b'",
        "'\\n\\t\\%\\_'",
        "_utf8mb4'x'",
        "N'x'",
        "_latin1 x'E4'",
    ),
    "x'4142'",
    "X'4142' + 0",
    "0x4142",
    "b'101' + 0",
    "0b101 + 0",
    "1",
    "-1",
    "- -1",
    "1.50",
    ".5",
    "5.",
    "1e3",
    *(
        "TRUE",
        "NULL",
        "DATE'2020-02-29'",
        "TIME'12:30:00.5'",
        "TIMESTAMP'2020-01-01 00:00:00'",
        "'a' COLLATE utf8mb4_bin",
    ),
    "s COLLATE utf8mb4_bin = 'o''hare'",
    "BINARY s = 'o\\'hare'",
    "18446744073709551615",
    "'ä€𝄞'",
    "'a\\\\b'",
)
EXPRESSIONS = (
    *(
        "at - INTERVAL 1 HOUR",
        "at + INTERVAL '1:30' HOUR_MINUTE",
        "INTERVAL 2 DAY + `on`",
        "n DIV 2",
        "n MOD 4",
        "n % 4",
    ),
    "n << 2 | 1 ^ 3 & ~0",
    "NOT n",
    "! n",
    "n <=> NULL",
    "n IS NOT NULL",
    "n BETWEEN 1 AND 9 AND n <> 3",
    "n XOR 1",
    "s LIKE 'o!%%' ESCAPE '!'",
    "s REGEXP '^O.H'",
    "s RLIKE 'x' || n",
    "n && 1",
    "s SOUNDS LIKE 'ohare'",
    "s IN ('a', 'O''Hare')",
    "CASE n WHEN 7 THEN 'x' END",
    "CASE WHEN n > 1 THEN d ELSE n END",
    "IF(n, s, d)",
    "- n",
    "CAST(n AS CHAR(3))",
    "CAST(d AS UNSIGNED)",
    "CONVERT(s, CHAR)",
    "CONVERT(s USING latin1)",
    "CHAR(77, n + 70)",
    "DATE_FORMAT(at, '%Y-%m-%d %H:%i %% %j')",
    "EXTRACT(YEAR_MONTH FROM at)",
    "TIMESTAMPDIFF(MINUTE, `on`, at)",
    "TIMESTAMPADD(WEEK, 1, at)",
    "DATE_ADD(at, INTERVAL n DAY)",
    "DATE_SUB(at, INTERVAL 1 QUARTER)",
    "DATE(at)",
    "STR_TO_DATE('1,5,2013', '%d,%m,%Y')",
    "FROM_UNIXTIME(n)",
    "UNIX_TIMESTAMP(at)",
    "WEEK(at, 3)",
    "YEARWEEK(at)",
    *(
        "TRIM(LEADING 'O' FROM s)",
        "TRIM(s)",
        "SUBSTRING(s, 2, 3)",
        "SUBSTRING(s FROM 2 FOR 3)",
        "LEFT(s, 1)",
        "MID(s, 2)",
    ),
    "POSITION('H' IN s)",
    "LOCATE('H', s)",
    "CONCAT(s, n)",
    "CONCAT_WS(',', s, NULL, n)",
    "REPLACE(s, 'O', '')",
    "LPAD(n, 3, '0')",
    "REPEAT(s, 2)",
    "INSERT(s, 1, 2, 'x')",
    "FORMAT(d, 1)",
    "HEX(s)",
    "MD5(s)",
    "SHA2(s, 256)",
    *(
        "ROUND(d)",
        "TRUNCATE(d, 1)",
        "GREATEST(n, d)",
        "LEAST(n, 3)",
        "POW(n, 2)",
        "LOG(2, n)",
        "NULLIF(n, 7)",
        "CRC32(s)",
    ),
    *(
        "JSON_VALUE(j, '$.a[1]')",
        "JSON_EXTRACT(j, '$.a')",
        "JSON_OBJECT('k', n)",
        "JSON_LENGTH(j)",
        "INTERVAL(n, 1, 9)",
    ),
    *(
        "REGEXP_REPLACE(s, 'a.', '_')",
        "REGEXP_SUBSTR(s, 'H.*')",
        "FIELD(s, 'x')",
        "ELT(2, 'x', s)",
        "FIND_IN_SET(n, '1,7')",
    ),
    *(
        "s /* n */",
        "n -- n",
        "n # n",
        "(n)",
        "((n + 1) * (d))",
        "t.n + `t` . `n`",
        "MAKEDATE(2020, n)",
        "SEC_TO_TIME(n)",
    ),
)
UNREAD = 6
"""At most so many of these forms the parser may not know."""


@pytest.mark.parametrize("forms", [LITERALS, EXPRESSIONS], ids=["literals", "expressions"])
def test_an_expression_is_evaluated_as_it_is_written(mariadb: Settings, forms: tuple[str, ...]) -> None:
    """Each form gives the same value, byte by byte, and of the same type."""
    wrong, unread = [], []
    with session(mariadb, Account.READ) as connection, connection.cursor() as cursor:
        for expression in forms:
            try:
                check_group_key("by.k", expression, COLUMNS)
            except SpecError:
                unread.append(expression)
                continue
            pair = [evaluated(cursor, each) for each in (expression, qualified(expression, "t"))]
            if pair[0] != pair[1]:
                wrong.append((expression, pair))
    assert not wrong
    assert len(unread) <= UNREAD, unread


def evaluated(cursor: Any, expression: str) -> object:
    """The value as text and as bytes."""
    cursor.execute(
        f"SELECT CONCAT(({expression}\n)), HEX(({expression}\n)), COLLATION(({expression}\n)) FROM ({ROW}) AS t"
    )
    return cursor.fetchone()
