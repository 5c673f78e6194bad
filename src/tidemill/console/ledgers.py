"""The sums of the streams' ledgers, cached so that a request reads only the newest commits.

Rows of the ledger never change once they are closed, except that compaction merges old ones under the newest id of
them, with the same sums. The sums up to a commit before which none is open are therefore cached.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill.config import Settings
from tidemill.resources import resource_folder
from tidemill.store.connection import translated

_EXPIRY_SECONDS = 3600.0
"""Sums that were not read for this long are computed anew: compaction merges commits that are older than a day, and the
cached commit has to be younger than those."""


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

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(
            **{each.name: _joined(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)}
        )


def _joined(one: Any, other: Any) -> Any:
    if isinstance(one, int):
        return one + other
    return max((each for each in (one, other) if each is not None), default=None)


class Ledgers:
    """The sums of one database, as this process has cached them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._closed = 0
        self._sums: dict[str, Ledger] = {}
        self._read_at = 0.0

    def read(self, connection: Connection[Any], settings: Settings) -> dict[str, Ledger]:
        """Stream -> what it has committed until now. Reads the commits of the last minutes; at first, all."""
        with self._lock:
            closed = self._find_newest_closed_commit(connection, settings)
            now = time.monotonic()
            if closed < self._closed or now - self._read_at > _EXPIRY_SECONDS:
                self._closed, self._sums = 0, {}
            rows = _query(connection, settings, "list_streams", after=self._closed, closed=closed)
            ledgers = dict(self._sums)
            for row in rows:
                stream, is_closed = row.pop("stream"), row.pop("is_closed")
                ledger = Ledger(**{name: _aware(value) for name, value in row.items()})
                ledgers[stream] = ledgers.get(stream, Ledger()) + ledger
                if is_closed:
                    self._sums[stream] = self._sums.get(stream, Ledger()) + ledger
            self._closed, self._read_at = closed, now
            return ledgers

    def _find_newest_closed_commit(self, connection: Connection[Any], settings: Settings) -> int:
        rows = _query(connection, settings, "find_newest_closed_commit")
        return int(rows[0]["id"]) if rows else 0


def _query(connection: Connection[Any], settings: Settings, name: str, **values: int) -> list[dict[str, Any]]:
    statement = (resource_folder("sql") / "console" / f"{name}.sql").read_text(encoding="utf-8")
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
