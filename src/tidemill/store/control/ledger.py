"""Reading the ledger: totals of a stream, its positions in Kafka, its newest commit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.store.connection import translated


@dataclass(frozen=True)
class Totals:
    """The sums over the commits of a stream itself; replays, which read the same records again, are left out."""

    commits: int
    records: int
    written: int
    duplicate: int
    stale: int
    filtered: int
    quarantined: int
    gap: int
    lost: int
    """Offsets that Kafka deleted before the stream read them."""
    newest_at: datetime | None
    """Newest Kafka timestamp committed, naive UTC."""
    last_commit: int
    last_committed_at: datetime | None


_TOTALS = """
SELECT CAST(COALESCE(SUM(commits), 0) AS SIGNED) AS commits,
       CAST(COALESCE(SUM(records), 0) AS SIGNED) AS records,
       CAST(COALESCE(SUM(written_rows), 0) AS SIGNED) AS written,
       CAST(COALESCE(SUM(duplicate_rows), 0) AS SIGNED) AS duplicate,
       CAST(COALESCE(SUM(stale_rows), 0) AS SIGNED) AS stale,
       CAST(COALESCE(SUM(filtered_rows), 0) AS SIGNED) AS filtered,
       CAST(COALESCE(SUM(quarantined_rows), 0) AS SIGNED) AS quarantined,
       CAST(COALESCE(SUM(gap_rows), 0) AS SIGNED) AS gap,
       CAST(COALESCE(SUM(lost_rows), 0) AS SIGNED) AS lost,
       MAX(newest_at) AS newest_at,
       CAST(COALESCE(MAX(last_commit), 0) AS SIGNED) AS last_commit, MAX(last_committed_at) AS last_committed_at
FROM ledger_sums WHERE stream = %s
"""


def totals(connection: Connection[Any], stream: str) -> Totals:
    """The sums over a stream's ledger."""
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(_TOTALS, (stream,))
        row = cursor.fetchone()
    assert row is not None  # an aggregate without GROUP BY has one row
    return Totals(**row)


def positions(connection: Connection[Any], stream: str, topic: str) -> dict[int, int]:
    """Kafka partition -> next offset to read."""
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT partition_id, position FROM offsets WHERE stream = %s AND topic = %s", (stream, topic))
        return {int(partition): int(position) for partition, position in cursor.fetchall()}


def begin_at(connection: Connection[Any], stream: str, topic: str, starts: dict[int, int]) -> None:
    """Insert the first position of partitions that have none. Existing positions stay."""
    with translated(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT IGNORE INTO offsets (stream, topic, partition_id, position) VALUES (%s, %s, %s, %s)",
            [(stream, topic, partition, offset) for partition, offset in starts.items()],
        )


def last_commit(connection: Connection[Any], stream: str) -> int:
    """The newest commit of a stream, 0 if there is none."""
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT COALESCE(MAX(id), 0) FROM commits WHERE stream = %s", (stream,))
        row = cursor.fetchone()
    return int(row[0]) if row else 0
