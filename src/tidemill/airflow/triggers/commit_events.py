"""The event trigger that starts a refresh after a number of commits; one query per poll serves all of them.

Airflow shares one poll between the triggers of a triggerer (``SharedStreamProducer``), and confirms each event once it
is stored in Airflow's database. Only then does the trigger's cursor move: the id of the newest commit that was
reported, in the asset's state store, where the next triggerer finds it. So a triggerer that dies loses no commit
event; one that dies between storing the event and moving the cursor reports the commits twice, and the second refresh
finds nothing new.

Commits are counted by id. A commit that becomes visible late, with an id below the cursor, is not counted; its rows
are seen by the refresh all the same, because the refresh selects rows and not commits.
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

from tidemill.airflow.connections import CONN_ID, ConnectionLike, open_connection
from tidemill.errors import Contention, DatabaseFull, DatabaseUnavailable
from tidemill.store.connection import close, translated

log = logging.getLogger(__name__)
POLL_SECONDS = 5.0
CURSOR = "commit"
"""Key in the asset's state store."""
_TRANSIENT = (DatabaseUnavailable, DatabaseFull, Contention, AirflowNotFoundException)
"""Errors after which the poll is repeated. A new installation gets its connection after its DAGs."""

Key = tuple[str, int]
"""A stream, and after how many commits its trigger fires."""


@dataclass(frozen=True)
class NewCommits:
    """The commits after a cursor."""

    commits: int
    newest_id: int


class CommitTrigger(BaseEventTrigger):
    """Fires each time a stream has made a number of commits since the last event.

    Args:
        stream: the stream whose commits count; those of its replays do not.
        commits: after how many commits it fires.
        conn_id: Airflow connection of the database; the trigger waits while the database is unavailable.
    """

    def __init__(self, stream: str, commits: int, conn_id: str = CONN_ID) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no annotations
        self.stream, self.commits, self.conn_id = stream, commits, conn_id
        self.cursor = 0
        """Id of the newest commit that was reported, or is being reported."""

    @property
    def key(self) -> Key:
        """Triggers of one key are interchangeable."""
        return self.stream, self.commits

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, as Airflow stores them."""
        names = ("stream", "commits", "conn_id")
        return f"{__name__}.CommitTrigger", {name: getattr(self, name) for name in names}

    def shared_stream_key(self) -> Hashable:
        """All triggers on one database share a poll."""
        return __name__, self.conn_id

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """The poll that these triggers share."""
        return CommitEventProducer(kwargs.get("conn_id", CONN_ID))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Yield this trigger's events out of the shared ones."""
        self.cursor = await self.stored_cursor()
        subscribed = _subscribed.setdefault(self.conn_id, {})
        subscribed[self.key] = self
        try:
            async for new_commits in shared_stream:
                if self.key in new_commits:
                    yield self._event(new_commits[self.key])
        finally:
            if subscribed.get(self.key) is self:
                del subscribed[self.key]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll for this trigger alone, in a triggerer that does not share polls."""
        producer, self.cursor = CommitEventProducer(self.conn_id, only=self), await self.stored_cursor()
        try:
            async for new_commits, _ in producer.open_stream():
                yield self._event(new_commits[self.key])
                await self.store_cursor(new_commits[self.key].newest_id)
        finally:
            await producer.aclose()

    async def stored_cursor(self) -> int:
        """The cursor in the asset's state store; 0 for a trigger that never fired, so that every commit counts."""
        if self.asset_state_store is None:
            return self.cursor
        return int(str(await self.asset_state_store.aget(CURSOR, 0)))

    async def store_cursor(self, cursor: int) -> None:
        """Store the cursor for the next triggerer."""
        if self.asset_state_store is not None:
            await self.asset_state_store.aset(CURSOR, cursor)

    def _event(self, new_commits: NewCommits) -> TriggerEvent:
        payload = {"stream": self.stream, "commits": new_commits.commits, "newest_id": new_commits.newest_id}
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's has no annotations


_subscribed: dict[str, dict[Key, CommitTrigger]] = {}
"""The triggers that wait in this process, by connection."""


class CommitEventProducer(SharedStreamProducer):
    """Polls the ledger for all triggers of a connection.

    Args:
        conn_id: Airflow connection of the database.
        only: the one trigger to poll for; None polls for all that wait in this process.
    """

    def __init__(self, conn_id: str, only: CommitTrigger | None = None) -> None:
        self.conn_id, self._only = conn_id, only
        self._connection: Connection[Any] | None = None
        self._is_unavailable = False

    async def open_stream(self) -> AsyncIterator[tuple[Mapping[Key, NewCommits], Mapping[Key, NewCommits]]]:
        """Yield the new commits of those triggers that have to fire."""
        while True:
            triggers = self._triggers()
            due = await self._poll(list(triggers.values()))
            if due:
                for key, new_commits in due.items():
                    # Not reported again while the event is being stored.
                    triggers[key].cursor = new_commits.newest_id
                yield due, due
            await asyncio.sleep(POLL_SECONDS)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Store the cursor of each event that Airflow has stored; events that it has not are reported again."""
        for item in batch:
            for key, new_commits in item.broker_payload.items():
                trigger = self._triggers().get(key)
                if trigger is None:
                    continue
                if item.outcome.is_clean:
                    await trigger.store_cursor(new_commits.newest_id)
                else:
                    trigger.cursor = await trigger.stored_cursor()

    async def aclose(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            close(connection)

    def _triggers(self) -> dict[Key, CommitTrigger]:
        return {self._only.key: self._only} if self._only else dict(_subscribed.get(self.conn_id, {}))

    async def _poll(self, triggers: Sequence[CommitTrigger]) -> dict[Key, NewCommits]:
        if not triggers:
            return {}
        cursors = {trigger.key: trigger.cursor for trigger in triggers}
        try:
            if self._connection is None:
                target: ConnectionLike = await BaseHook.aget_connection(self.conn_id)
                self._connection = await asyncio.to_thread(open_connection, target)
            counted = await asyncio.to_thread(count_new_commits, self._connection, cursors)
        except _TRANSIENT as error:
            await self.aclose()
            if not self._is_unavailable:
                log.warning("waiting for the database: %s", error)
            self._is_unavailable = True
            return {}
        self._is_unavailable = False
        return {key: new_commits for key, new_commits in counted.items() if new_commits.commits >= key[1]}


_COUNT = (
    "SELECT %s AS key_index, CAST(COALESCE(SUM(merged_commits), 0) AS SIGNED), COALESCE(MAX(id), 0) FROM commits"
    " WHERE stream = %s AND id > %s AND replay_id IS NULL"
)


def count_new_commits(connection: Connection[Any], cursors: Mapping[Key, int]) -> dict[Key, NewCommits]:
    """Count the commits after each cursor, in one query.

    Raises:
        StoreError: the database is unavailable, or rejected the query.
    """
    keys = list(cursors)
    values = [value for index, key in enumerate(keys) for value in (index, key[0], cursors[key])]
    with translated(), connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join([_COUNT] * len(keys)), values)
        return {keys[int(index)]: NewCommits(int(commits), int(newest)) for index, commits, newest in cursor.fetchall()}
