"""The poller of a triggerer: one query every 2 s serves the triggers of all streams.

There is one poller for each event loop and Airflow connection. It starts with its first subscriber, and it ends, with
its database connection, when the last subscriber has left.
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

from tidemill.airflow.connections import ConnectionLike, open_connection
from tidemill.errors import Contention, DatabaseFull, DatabaseReadOnly, DatabaseUnavailable, Transient
from tidemill.lifecycle.driver_state import DriverState, Observed, observe
from tidemill.lifecycle.limits import LIMITS, View
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.connection import close, translated
from tidemill.store.control.streams import read_streams
from tidemill.supervisor.launcher import is_gone

POLL_SECONDS = 2.0
"""From the start of one poll to the start of the next."""
BURST_SECONDS = 0.25
"""A new subscriber is polled for at once, but two polls start at least this far apart: triggers arrive in bursts."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamObservation:
    """A stream, as one poll has observed it."""

    row: StreamRow
    observed: Observed
    connection: Connection[Any]
    """For writing about the stream: autocommit, the stream account. Valid until :meth:`Subscriber.on_observation`
    returns."""


class Subscriber(Protocol):
    """Receives the observations of one stream."""

    stream: str

    def on_observation(self, observation: StreamObservation | None) -> TriggerEvent | None:
        """Called after each poll, in a thread.

        Args:
            observation: the stream; None if it has no row, because no state was ever requested for it.

        Returns:
            The event that ends the subscription and resumes the task; None to go on waiting.
        """

    def on_unavailable(self, error: DatabaseUnavailable) -> None:
        """Called once each time the database becomes unavailable. The poller keeps trying to connect."""


async def subscribe(subscriber: Subscriber, conn_id: str) -> TriggerEvent:
    """Wait until an observation of the subscriber's stream makes it return an event, and return that event.

    Raises:
        Exception: what the subscriber raised, or an error of the poll that no further poll could avoid.
    """
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    return await pollers.setdefault(conn_id, _Poller(conn_id)).subscribe(subscriber)


@dataclass(eq=False)
class _Subscription:
    """A subscriber, the future that its task awaits, and its context: Airflow assigns log lines by the context."""

    subscriber: Subscriber
    result: asyncio.Future[TriggerEvent]
    context: Context = field(default_factory=copy_context)
    knows_of_outage: bool = False


class _Poller:
    """The asynchronous half: polls while there are subscriptions, and hands their results over."""

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._subscriptions: list[_Subscription] = []
        self._changed = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None

    async def subscribe(self, subscriber: Subscriber) -> TriggerEvent:
        loop = asyncio.get_running_loop()
        subscription = _Subscription(subscriber, loop.create_future())
        self._subscriptions.append(subscription)
        self._changed.set()
        if self._polling is None or self._polling.done():
            # In an empty context: the polling outlives the trigger that happened to subscribe first.
            self._polling = loop.create_task(self._poll_repeatedly(), name=f"poll {self._conn_id}", context=Context())
        try:
            return await subscription.result
        finally:
            self._subscriptions.remove(subscription)
            self._changed.set()

    async def _poll_repeatedly(self) -> None:
        loop = asyncio.get_running_loop()
        session = _PollSession()
        try:
            while self._subscriptions:
                began = loop.time()
                self._changed.clear()
                await self._poll(session)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), max(0.0, began + POLL_SECONDS - loop.time()))
                    if self._subscriptions:
                        await asyncio.sleep(began + min(BURST_SECONDS, POLL_SECONDS) - loop.time())
        finally:
            session.close()

    async def _poll(self, session: _PollSession) -> None:
        subscriptions = list(self._subscriptions)
        try:
            if not session.is_connected:
                await self._look_up_target(session)
            results = await asyncio.to_thread(session.poll, subscriptions)
        except DatabaseUnavailable as error:
            self._report_outage(subscriptions, error)
            return
        except Exception as error:  # noqa: BLE001 -- each subscriber raises it in its own trigger
            results = [(subscription, error) for subscription in subscriptions]
        for subscription, result in results:
            if subscription.result.done():
                continue  # the trigger was cancelled during the poll
            if isinstance(result, Exception):
                subscription.result.set_exception(result)
            else:
                subscription.result.set_result(result)
        for subscription in subscriptions:
            subscription.knows_of_outage = False

    async def _look_up_target(self, session: _PollSession) -> None:
        try:
            session.target = await BaseHook.aget_connection(self._conn_id)
        except Exception as error:
            if session.target is None:
                raise
            # Airflow itself does not answer: the connection that it returned last is still the best one.
            log.warning("cannot look up Airflow connection %s, using the last known one: %s", self._conn_id, error)

    def _report_outage(self, subscriptions: Iterable[_Subscription], error: DatabaseUnavailable) -> None:
        for subscription in subscriptions:
            if not subscription.knows_of_outage:
                subscription.context.run(subscription.subscriber.on_unavailable, error)
            subscription.knows_of_outage = True


class _PollSession:
    """The blocking half: a database connection, and what the previous poll read. All but ``close`` runs in a thread."""

    def __init__(self) -> None:
        self.target: ConnectionLike | None = None
        """Where to connect at the next poll; None before Airflow's connection was looked up."""
        self._connection: Connection[Any] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._rows: dict[str, StreamRow] = {}
        self._view: View | None = None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def poll(self, subscriptions: Iterable[_Subscription]) -> list[tuple[_Subscription, TriggerEvent | Exception]]:
        """Read all streams once; returns the subscriptions that ended, each with its event or its error.

        Raises:
            DatabaseUnavailable: the next poll tries again.
            TidemillError: the database rejected the query.
        """
        try:
            with self._lock:
                return self._poll(list(subscriptions))
        except BaseException:  # whatever it was, this poll has broken the view of the database
            self._view = None
            self._disconnect()
            raise
        finally:
            if self._closed:
                self._disconnect()

    def close(self) -> None:
        """Close the connection, as soon as the poll in progress has ended."""
        self._closed = True
        if not self._lock.locked():
            self._disconnect()

    def _poll(self, subscriptions: list[_Subscription]) -> list[tuple[_Subscription, TriggerEvent | Exception]]:
        if self._connection is None:
            assert self.target is not None  # looked up before the poll
            self._connection = open_connection(self.target)
        streams = {subscription.subscriber.stream for subscription in subscriptions}
        # Processes before rows: what a driver writes last, it writes before it ends, so only rows that are read after
        # its process has ended are sure to hold it.
        previous = self._rows
        gone = {name for name in streams if name in previous and is_gone(previous[name])}
        self._rows = rows = {row.stream: row for row in read_streams(self._connection)}
        self._view = next((View.after(self._view, row.now, LIMITS) for row in rows.values()), None)
        viewed_seconds = self._view.seconds if self._view else 0.0
        results: list[tuple[_Subscription, TriggerEvent | Exception]] = []
        for subscription in subscriptions:
            row = rows.get(subscription.subscriber.stream)
            observation = None
            if row is not None:
                has_ended = row.stream in gone and row.epoch == previous[row.stream].epoch
                observation = StreamObservation(row, self._observe(row, has_ended, viewed_seconds), self._connection)
            result = _deliver(subscription, observation)
            if result is not None:
                results.append((subscription, result))
        return results

    def _observe(self, row: StreamRow, has_ended: bool, viewed_seconds: float) -> Observed:
        observed = observe(row, gone=has_ended, viewed_seconds=viewed_seconds, limits=LIMITS)
        if observed.driver_state is DriverState.LOST and not has_ended and not self._accepts_writes(row.stream):
            return observe(row, limits=LIMITS)
        return observed

    def _accepts_writes(self, stream: str) -> bool:
        """Whether a driver could write a heartbeat: a read-only or locked server still answers queries."""
        assert self._connection is not None  # the rows were read through it
        began = time.monotonic()
        try:
            with translated(), self._connection.cursor() as cursor:
                cursor.execute("UPDATE streams SET stream = stream WHERE stream = %s", (stream,))
        except (DatabaseReadOnly, DatabaseFull, Contention) as error:
            log.warning("no driver is declared lost while the database accepts no writes: %s", error)
            self._view = None
            return False
        if time.monotonic() - began > LIMITS.blink_seconds:
            self._view = None
        return self._view is not None

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            close(connection)


def _deliver(subscription: _Subscription, observation: StreamObservation | None) -> TriggerEvent | Exception | None:
    """Pass an observation to a subscriber; returns its event, or the error that fails its trigger alone."""
    try:
        return subscription.context.run(subscription.subscriber.on_observation, observation)
    except DatabaseUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 -- it is raised again in the subscriber's trigger
        return None if isinstance(error, Transient) else error


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Poller]] = WeakKeyDictionary()
