"""The eyes of a triggerer: one query every 2 s tells all the triggers of a process what their streams do.

There is one watcher for each event loop and Airflow connection. It begins with the first trigger that waits, and ends,
with its connection, with the last.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from airflow.sdk.bases.hook import BaseHook
from airflow.triggers.base import TriggerEvent
from pymysql.connections import Connection

from tidemill.airflow.hook import ConnectionLike, open_connection
from tidemill.errors import Contention, DatabaseFull, DatabaseReadOnly, DatabaseUnavailable, Transient
from tidemill.lifecycle.driver_state import DriverState, Observed, observe
from tidemill.lifecycle.limits import LIMITS, View
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.connection import close, translated
from tidemill.store.control.streams import read_streams
from tidemill.supervisor.launcher import is_gone

POLL_SECONDS = 2.0
"""From one look to the next, when nobody joins."""
GATHER_SECONDS = 0.25
"""Whoever joins is told at once, but no two looks are closer together than this: triggers come in crowds."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamObservation:
    """A stream, as one look has found it."""

    row: StreamRow
    observed: Observed
    connection: Connection[Any]
    """For what there is to write about it: autocommit, the stream account. Only until :meth:`Listener.news` returns."""


class Subscriber(Protocol):
    """Who wants to know."""

    stream: str

    def news(self, seen: StreamObservation | None) -> TriggerEvent | None:
        """Called after each look, in a thread.

        Args:
            seen: the stream; None if nothing was ever wished of it.

        Returns:
            What to wake the task with, which ends the listening; None while there is nothing.
        """

    def away(self, error: DatabaseUnavailable) -> None:
        """Called once whenever the database goes away. It is waited for."""


async def subscribe(listener: Subscriber, conn_id: str) -> TriggerEvent:
    """Wait until a look at the listener's stream is news for it.

    Raises:
        Exception: what its method raised, or what made looking impossible for good.
    """
    watchers = _watchers.setdefault(asyncio.get_running_loop(), {})
    return await watchers.setdefault(conn_id, _Poller(conn_id)).subscribe(listener)


@dataclass(eq=False)
class _Subscription:
    """One that listens, in the context that its own words belong to: Airflow sorts log lines by it."""

    listener: Subscriber
    answer: asyncio.Future[TriggerEvent]
    context: Context = field(default_factory=copy_context)
    knows_away: bool = False


class _Poller:
    """Looks while anybody listens."""

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._seats: list[_Subscription] = []
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def subscribe(self, listener: Subscriber) -> TriggerEvent:
        loop = asyncio.get_running_loop()
        seat = _Subscription(listener, loop.create_future())
        self._seats.append(seat)
        self._changed.set()
        if self._looking is None or self._looking.done():
            # In no trigger's context: it outlives the one that happened to come first.
            self._looking = loop.create_task(self._look_on(), name=f"watch {self._conn_id}", context=Context())
        try:
            return await seat.answer
        finally:
            self._seats.remove(seat)
            self._changed.set()

    async def _look_on(self) -> None:
        loop = asyncio.get_running_loop()
        eyes = _PollConnection()
        try:
            while self._seats:
                began = loop.time()
                self._changed.clear()
                await self._look(eyes)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), max(0.0, began + POLL_SECONDS - loop.time()))
                    if self._seats:
                        await asyncio.sleep(began + min(GATHER_SECONDS, POLL_SECONDS) - loop.time())
        finally:
            eyes.close()

    async def _look(self, eyes: _PollConnection) -> None:
        seats = list(self._seats)
        try:
            if not eyes.are_open:
                await self._turn(eyes)
            found = await asyncio.to_thread(eyes.look, seats)
        except DatabaseUnavailable as error:
            self._say_away(seats, error)
            return
        except Exception as error:  # noqa: BLE001 -- it is raised again, by everybody who listens
            found = [(seat, error) for seat in seats]
        for seat, answer in found:
            if seat.answer.done():
                continue  # it was cancelled meanwhile
            if isinstance(answer, Exception):
                seat.answer.set_exception(answer)
            else:
                seat.answer.set_result(answer)
        for seat in seats:
            seat.knows_away = False

    async def _turn(self, eyes: _PollConnection) -> None:
        try:
            eyes.turn_to(await BaseHook.aget_connection(self._conn_id))
        except Exception as error:
            if not eyes.have_target:
                raise
            # Airflow itself is in trouble: what it said before will do.
            log.warning("Airflow does not tell connection %s: %s", self._conn_id, error)

    def _say_away(self, seats: Iterable[_Subscription], error: DatabaseUnavailable) -> None:
        for seat in seats:
            if not seat.knows_away:
                seat.context.run(seat.listener.away, error)
            seat.knows_away = True


class _PollConnection:
    """A connection, and what was seen through it. Its methods block: all but ``close`` are called in a thread."""

    def __init__(self) -> None:
        self._target: ConnectionLike | None = None
        self._connection: Connection[Any] | None = None
        self._busy = threading.Lock()
        self._closed = False
        self._rows: dict[str, StreamRow] = {}
        self._view: View | None = None

    @property
    def are_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    @property
    def have_target(self) -> bool:
        """Whether it was ever said where to connect."""
        return self._target is not None

    def turn_to(self, target: ConnectionLike) -> None:
        """Where to connect, at the next look."""
        self._target = target

    def look(self, seats: Iterable[_Subscription]) -> list[tuple[_Subscription, TriggerEvent | Exception]]:
        """Look once; what those are told whom it concerns.

        Raises:
            DatabaseUnavailable: try again.
            TidemillError: the database refuses.
        """
        try:
            with self._busy:
                return self._look(seats)
        except BaseException:
            self._view = None
            self._give_up()
            raise
        finally:
            if self._closed:
                self._give_up()

    def close(self) -> None:
        """Give the connection up, as soon as the look under way is over."""
        self._closed = True
        if not self._busy.locked():
            self._give_up()

    def _look(self, seats: Iterable[_Subscription]) -> list[tuple[_Subscription, TriggerEvent | Exception]]:
        if self._connection is None:
            assert self._target is not None  # turned to before
            self._connection = open_connection(self._target)
        seats = list(seats)
        # In this order: what a driver wrote last, it wrote before it ended, and stands in the rows only then for sure.
        before = self._rows
        gone = {name for name in {seat.listener.stream for seat in seats} if name in before and is_gone(before[name])}
        self._rows = rows = {row.stream: row for row in read_streams(self._connection)}
        self._view = view = next((View.after(self._view, row.now, LIMITS) for row in rows.values()), None)
        found: list[tuple[_Subscription, TriggerEvent | Exception]] = []
        for seat in seats:
            row, seen = rows.get(seat.listener.stream), None
            if row is not None and view is not None:
                is_over = row.stream in gone and row.epoch == before[row.stream].epoch
                observed = observe(row, gone=is_over, viewed_seconds=view.seconds, limits=LIMITS)
                if observed.driver_state is DriverState.LOST and not is_over and not self._takes_writes(row.stream):
                    observed = observe(row, limits=LIMITS)
                seen = StreamObservation(row, observed, self._connection)
            answer = _notify(seat, seen)
            if answer is not None:
                found.append((seat, answer))
        return found

    def _takes_writes(self, stream: str) -> bool:
        """Whether a heartbeat could have been written: a read-only or locked server answers questions all the same."""
        assert self._connection is not None  # it was just read from
        began = time.monotonic()
        try:
            with translated(), self._connection.cursor() as cursor:
                cursor.execute("UPDATE streams SET stream = stream WHERE stream = %s", (stream,))
        except (DatabaseReadOnly, DatabaseFull, Contention) as error:
            log.warning("nobody is given up while the database takes no writes: %s", error)
            self._view = None
            return False
        if time.monotonic() - began > LIMITS.blink_seconds:
            self._view = None
        return self._view is not None

    def _give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            close(connection)


def _notify(seat: _Subscription, seen: StreamObservation | None) -> TriggerEvent | Exception | None:
    """What the listener has to say to it, or what it raised: that is its own affair."""
    try:
        return seat.context.run(seat.listener.news, seen)
    except DatabaseUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 -- it is raised again, by the one who listens
        return None if isinstance(error, Transient) else error


_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Poller]] = WeakKeyDictionary()
