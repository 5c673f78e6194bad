"""What sets off a refresh after so many commits: an event trigger, and one query a poll for all of them together.

Airflow shares one poll between the triggers of a triggerer (``SharedStreamProducer``), and says when an event of a
trigger stands in its own database. Only then the cursor moves, the id of the newest commit that was reported: in the
asset's state store, where the next triggerer finds it. A triggerer that dies loses no news; one that dies in the
second between the two reports it twice, and the refresh finds nothing new.

Commits are counted by id. One that appears late, below the cursor, is not counted; whatever it wrote is seen by the
refresh, which looks at rows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.sdk.bases.hook import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer
from pymysql.connections import Connection

from tidemill.airflow.hook import CONN_ID, ConnectionLike, open_connection
from tidemill.errors import Contention, DatabaseFull, DatabaseUnavailable
from tidemill.store.connection import close, translated

log = logging.getLogger(__name__)
POLL_SECONDS = 5.0
CURSOR = "commit"
"""Key in the asset's state store."""
_AWAY = (DatabaseUnavailable, DatabaseFull, Contention, AirflowNotFoundException)
"""What is waited for. A new installation gets its connection after its DAGs."""

Key = tuple[str, int]
"""Stream, and how many commits are news."""


@dataclass(frozen=True)
class CommitEvents:
    """Commits after a cursor."""

    commits: int
    until: int
    """Id of the newest."""


class CommitTrigger(BaseEventTrigger):
    """Fires once whenever a stream has made so many commits since it last did.

    Args:
        stream: whose commits; those of replays do not count.
        commits: how many.
        conn_id: Airflow connection of the database, which is waited for where it is away.
    """

    def __init__(self, stream: str, commits: int, conn_id: str = CONN_ID) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no annotations
        self.stream, self.commits, self.conn_id = stream, commits, conn_id
        self.cursor = 0
        """Id of the newest commit that was reported, or is being reported."""

    @property
    def key(self) -> Key:
        """Two triggers of one key are the same."""
        return self.stream, self.commits

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow keeps it."""
        kept = ("stream", "commits", "conn_id")
        return f"{__name__}.CommitTrigger", {name: getattr(self, name) for name in kept}

    def shared_stream_key(self) -> Hashable:
        """All that ask the same database poll together."""
        return __name__, self.conn_id

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """What polls for them."""
        return CommitEventProducer(kwargs.get("conn_id", CONN_ID))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """What of the common news is this trigger's."""
        self.cursor = await self.kept()
        listening = _listening.setdefault(self.conn_id, {})
        listening[self.key] = self
        try:
            async for found in shared_stream:
                if self.key in found:
                    yield self._event(found[self.key])
        finally:
            if listening.get(self.key) is self:
                del listening[self.key]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """By itself, where a triggerer shares nothing."""
        producer, self.cursor = CommitEventProducer(self.conn_id, own=self), await self.kept()
        try:
            async for found, _ in producer.open_stream():
                yield self._event(found[self.key])
                await self.keep(found[self.key].until)
        finally:
            await producer.aclose()

    async def kept(self) -> int:
        """The cursor as it was kept; 0 of a trigger that never fired: whatever there is, is news."""
        if self.asset_state_store is None:
            return self.cursor
        return int(str(await self.asset_state_store.aget(CURSOR, 0)))

    async def keep(self, cursor: int) -> None:
        """Keep it for the next triggerer."""
        if self.asset_state_store is not None:
            await self.asset_state_store.aset(CURSOR, cursor)

    def _event(self, news: CommitEvents) -> TriggerEvent:
        payload = {"stream": self.stream, "commits": news.commits, "until": news.until}
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's has no annotations


_listening: dict[str, dict[Key, CommitTrigger]] = {}
"""Those that wait in this process, by connection."""


class CommitEventProducer(SharedStreamProducer):
    """Polls the ledger for all triggers of a connection.

    Args:
        conn_id: Airflow connection of the database.
        own: the only trigger that is asked for; all that wait in this process if None.
    """

    def __init__(self, conn_id: str, own: CommitTrigger | None = None) -> None:
        self.conn_id, self._own = conn_id, own
        self._connection: Connection[Any] | None = None
        self._is_away = False

    async def open_stream(self) -> AsyncIterator[tuple[Mapping[Key, CommitEvents], Mapping[Key, CommitEvents]]]:
        """Yield what is news for one trigger or more."""
        while True:
            listening = self._listeners()
            found = await self._look(list(listening.values()))
            if found:
                for key, news in found.items():
                    # Not again, while it is on its way.
                    listening[key].cursor = news.until
                yield found, found
            await asyncio.sleep(POLL_SECONDS)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """The events stand in Airflow's database: keep how far they reach. Those that do not are reported again."""
        for item in batch:
            for key, news in item.broker_payload.items():
                trigger = self._listeners().get(key)
                if trigger is None:
                    continue
                if item.outcome.is_clean:
                    await trigger.keep(news.until)
                else:
                    trigger.cursor = await trigger.kept()

    async def aclose(self) -> None:
        """Give the connection up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            close(connection)

    def _listeners(self) -> dict[Key, CommitTrigger]:
        return {self._own.key: self._own} if self._own else dict(_listening.get(self.conn_id, {}))

    async def _look(self, triggers: Sequence[CommitTrigger]) -> dict[Key, CommitEvents]:
        if not triggers:
            return {}
        try:
            if self._connection is None:
                target: ConnectionLike = await BaseHook.aget_connection(self.conn_id)
                self._connection = await asyncio.to_thread(open_connection, target)
            found = await asyncio.to_thread(count, self._connection, {each.key: each.cursor for each in triggers})
        except _AWAY as error:
            await self.aclose()
            if not self._is_away:
                log.warning("waiting for the database: %s", error)
            self._is_away = True
            return {}
        self._is_away = False
        return {key: news for key, news in found.items() if news.commits >= key[1]}


_COUNT = (
    "SELECT %s AS place, CAST(COALESCE(SUM(merged_commits), 0) AS SIGNED), COALESCE(MAX(id), 0) FROM commits"
    " WHERE stream = %s AND id > %s AND replay_id IS NULL"
)


def count(connection: Connection[Any], cursors: Mapping[Key, int]) -> dict[Key, CommitEvents]:
    """Commits after each cursor, in one query.

    Raises:
        StoreError: the database refuses, or is away.
    """
    keys = list(cursors)
    values = [value for place, key in enumerate(keys) for value in (place, key[0], cursors[key])]
    with translated(), connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join([_COUNT] * len(keys)), values)
        return {keys[int(place)]: CommitEvents(int(commits), int(until)) for place, commits, until in cursor.fetchall()}
