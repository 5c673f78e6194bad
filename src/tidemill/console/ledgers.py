"""The sums of the streams' ledgers, which the control plane has by partition."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.resources import resource_folder
from tidemill.store.connection import translated


@dataclass(frozen=True)
class Ledger:
    """What a stream has committed. Times are UTC, None before the first commit."""

    commits: int = 0
    records: int = 0
    written_rows: int = 0
    quarantined_rows: int = 0
    last_committed_at: datetime | None = None
    newest_at: datetime | None = None
    """Newest Kafka timestamp among the records."""


def read_ledgers(connection: Connection[Any]) -> dict[str, Ledger]:
    """Stream -> what it has committed until now."""
    statement = (resource_folder("sql") / "console" / "list_streams.sql").read_text(encoding="utf-8")
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(statement)
        rows = list(cursor.fetchall())
    return {row.pop("stream"): Ledger(**{name: _aware(value) for name, value in row.items()}) for row in rows}


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
