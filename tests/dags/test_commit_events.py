"""The trigger that starts a refresh after a number of commits: on the real ledger, with Airflow's shared stream."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow.triggers.shared_stream import SharedStreamManager

from tidemill.airflow.triggers import commit_events
from tidemill.airflow.triggers.commit_events import CommitTrigger, NewCommits, count_new_commits
from tidemill.config import Account, Settings
from tidemill.store.connection import session
from tidemill.store.migrations import migrate_control

STREAM = "commits"


@dataclass
class Store:
    """An asset's state store, as the triggerer gives it to a trigger; it outlives the triggerer."""

    kept: dict[str, Any] = field(default_factory=dict)

    async def aget(self, key: str, default: Any = None) -> Any:
        """What was kept."""
        return self.kept.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        """Keep it."""
        self.kept[key] = value


@dataclass
class Triggerer:
    """Runs triggers as Airflow's does: it shares their stream, and confirms the events that it has stored."""

    stores: bool = True
    """Whether it lives long enough to store an event."""
    events: list[tuple[str, int, int]] = field(default_factory=list)
    """Stream, after how many commits the trigger fires, and how many there were."""

    def run(self, *triggers: tuple[CommitTrigger, Store], until: Callable[[], bool]) -> None:
        """Until a condition holds, 20 s at most; then it ends."""
        asyncio.run(self._run(triggers, until))

    async def _run(self, triggers: tuple[tuple[CommitTrigger, Store], ...], until: Callable[[], bool]) -> None:
        manager = SharedStreamManager()
        tasks = [asyncio.create_task(self._listen(manager, n, *each)) for n, each in enumerate(triggers)]
        try:
            async with asyncio.timeout(20):
                while not until():
                    await asyncio.sleep(0.01)
                    for task in tasks:
                        if task.done():
                            task.result()
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await manager.stop_all()

    async def _listen(self, manager: SharedStreamManager, number: int, trigger: CommitTrigger, store: Store) -> None:
        trigger.asset_state_store = store  # type: ignore[assignment]
        key = trigger.shared_stream_key()
        stream = manager.subscribe(trigger_id=number, trigger=trigger, key=key)
        async for event in trigger.filter_shared_stream(stream):
            seq = manager.bind_pending_event(trigger_id=number, key=key)
            self.events.append((event.payload["stream"], trigger.commits, event.payload["commits"]))
            if self.stores and seq is not None:
                asyncio.get_running_loop().call_soon(manager.confirm_persisted, [seq])


@pytest.fixture
def commit(connections: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Makes commits of a stream; returns the newest one's id. No trigger waits for the next poll."""
    monkeypatch.setattr(commit_events, "POLL_SECONDS", 0.02)
    with session(connections, Account.MIGRATE) as connection:
        migrate_control(connection, connections.root / "sql")
    with session(connections, Account.STREAM) as connection, connection.cursor() as cursor:

        def make(number: int, stream: str = STREAM, replay: int | None = None) -> int:
            for _ in range(number):
                cursor.execute(
                    "INSERT INTO commits (stream, replay_id, epoch, pipeline_version, batch_id, topic, partition_id,"
                    " from_offset, until_offset) VALUES (%s, %s, 1, 1, 1, 'test_commit_events', 0, 0, 0)",
                    (stream, replay),
                )
            return int(cursor.lastrowid)

        yield make
        cursor.execute("DELETE FROM commits WHERE topic = 'test_commit_events'")


def test_it_fires_once_after_so_many_commits(commit: Callable[..., int]) -> None:
    """Not before, and not again for the same ones."""
    triggerer, store = Triggerer(), Store()
    newest = commit(3)
    triggerer.run((CommitTrigger(STREAM, 3), store), until=lambda: store.kept != {})
    assert triggerer.events == [(STREAM, 3, 3)]
    assert store.kept == {"commit": newest}
    commit(2)
    looks = iter(range(30))
    triggerer.run((CommitTrigger(STREAM, 3), store), until=lambda: next(looks, None) is None)
    assert len(triggerer.events) == 1
    newest = commit(1)
    triggerer.run((CommitTrigger(STREAM, 3), store), until=lambda: store.kept["commit"] == newest)
    assert triggerer.events == [(STREAM, 3, 3)] * 2


def test_a_triggerer_that_dies_before_its_event_is_stored_loses_no_commits(commit: Callable[..., int]) -> None:
    """The cursor has not moved, and the next one reports the same commits."""
    store, dying, following = Store(), Triggerer(stores=False), Triggerer()
    commit(2)
    dying.run((CommitTrigger(STREAM, 2), store), until=lambda: dying.events != [])
    assert store.kept == {}
    commit(1)
    following.run((CommitTrigger(STREAM, 2), store), until=lambda: store.kept != {})
    assert following.events == [(STREAM, 2, 3)]


def test_all_triggers_of_a_triggerer_ask_with_one_query(
    commit: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has events of its own, whatever the others wait for."""
    asked: list[int] = []

    def counted(connection: Any, cursors: Any) -> Any:
        asked.append(len(cursors))
        return count_new_commits(connection, cursors)

    monkeypatch.setattr(commit_events, "count_new_commits", counted)
    triggerer, stores = Triggerer(), [Store(), Store(), Store()]
    commit(4)
    commit(1, "other")
    triggers = [CommitTrigger(STREAM, 2), CommitTrigger(STREAM, 4), CommitTrigger("other", 1)]
    triggerer.run(*zip(triggers, stores, strict=True), until=lambda: all(store.kept for store in stores))
    assert sorted(triggerer.events) == [(STREAM, 2, 4), (STREAM, 4, 4), ("other", 1, 1)]
    assert max(asked) == 3


def test_commits_of_replays_do_not_count_and_merged_ones_do(commit: Callable[..., int], connections: Settings) -> None:
    """Maintenance merges old commits into one row, which keeps their number."""
    newest = commit(2)
    commit(5, replay=1)
    with session(connections, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE commits SET merged_commits = 10 WHERE id = %s", (newest,))
        assert count_new_commits(connection, {(STREAM, 1): 0, (STREAM, 2): newest, ("unknown", 1): 0}) == {
            (STREAM, 1): NewCommits(11, newest),
            (STREAM, 2): NewCommits(0, 0),
            ("unknown", 1): NewCommits(0, 0),
        }


def test_an_unavailable_database_is_waited_for(commit: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As is a connection that a new installation does not have yet: no trigger fails for it."""
    right = os.environ["AIRFLOW_CONN_TIDEMILL_DB"]
    monkeypatch.setenv("AIRFLOW_CONN_TIDEMILL_DB", json.dumps({**json.loads(right), "port": 1}))
    triggerer, store = Triggerer(), Store()
    looked = iter(range(1_000_000))

    def until() -> bool:
        if next(looked) == 20:
            monkeypatch.setenv("AIRFLOW_CONN_TIDEMILL_DB", right)
        return store.kept != {}

    commit(1)
    triggerer.run((CommitTrigger(STREAM, 1), store), until=until)
    assert triggerer.events == [(STREAM, 1, 1)]
