"""Warnings of the database quote the value before they name the row: whatever the value says, its own row is found."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tidemill.config import Account, Settings
from tidemill.store.connection import connect, dialect_of
from tidemill.store.write.bulk_load import rejected_rows

COLUMNS = {"v": "INT", "w": "DATE", "j": "JSON", "_offset": "BIGINT UNSIGNED NOT NULL"}
ENDINGS = (
    *("", " at row 1", " at row 999999999", "at row 0", " at row 2 at row 3", " at row 1\n", "`x`", "\\N", "\0"),
    *("' for column `a`.`b`.`c` at row 7", "' at row 99999999999999999999999", "Row 1 was truncated", " at row ٣"),
    *("%s %d", "\ud7ff at row 1"),
)
FILLINGS = ("", "abc", "'", '"', "`", "\\", "😀", "漢" * 200, "\t\r\n", "at row 5 " * 100, "x" * 600, "\u2028", "\x1a")


def hostile_values(seed: int, count: int) -> list[str]:
    """Texts that are no number and no date, and that look like parts of a message."""
    chance = random.Random(seed)
    planes = [chr(chance.choice([*range(0xD800), *range(0xE000, sys.maxunicode + 1)])) for _ in range(200)]
    found = [f"x{filling}{ending}" for filling in FILLINGS for ending in ENDINGS]
    while len(found) < count:
        parts = chance.choices([*ENDINGS, *FILLINGS, *planes], k=chance.randrange(1, 6))
        found.append("x" + "".join(parts))
    return found


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.full)])
def test_a_value_that_looks_like_a_message_rejects_its_own_row_alone(
    mariadb: Settings, tmp_path: Path, run_seed: int, count: int
) -> None:
    """Every bad row is named, no good one is, and no reason has the number of a row or the name of the stage."""
    values = hostile_values(run_seed, count)
    texts, days = [], []
    for number, value in enumerate(values):  # each bad row stands between good ones
        texts += ["1", value if number % 2 else "2"]
        days += ["2024-02-29", "2024-02-29" if number % 2 else value]
    offsets = pa.array(range(1000, 1000 + len(texts)), pa.int64())
    documents = pa.array(["{}"] * len(texts))
    rows = pa.table({"v": texts, "w": days, "j": documents, "_offset": offsets})
    connection = connect(mariadb, Account.STREAM, schema=mariadb.db_data)
    try:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE hostile_stage (v INT, w DATE, j JSON, _offset BIGINT UNSIGNED)")
        load = dialect_of(connection).load(mariadb.db_data, "hostile_stage", COLUMNS, lenient=True)
        found: dict[int, str] = {}
        for start in range(0, rows.num_rows, 1_000):
            part = rows.slice(start, 1_000)
            found |= rejected_rows(connection, load, part, [*COLUMNS])
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM hostile_stage")
    finally:
        connection.close()
    assert found.keys() == {offset for offset in offsets.to_pylist() if offset % 2}
    assert all("hostile_stage" not in reason for reason in found.values())
    columns = {offset: ("`w`", "'w'") if (offset - 1001) // 2 % 2 == 0 else ("`v`", "'v'") for offset in found}
    assert [reason for offset, reason in found.items() if not reason.endswith(columns[offset])] == []
