"""Tells people about incidents, once when one begins and once when it is over, through notifiers of Airflow's kind.

Which ones is the setting ``TIDEMILL_NOTIFIERS``: dotted names, comma separated, each of something that is called
without arguments and gives a ``BaseNotifier``. Without the setting an incident is a line in the log of the task.
"""

from __future__ import annotations

import importlib
import logging
import operator
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from airflow.sdk import BaseNotifier
from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from tidemill import config
from tidemill.config import Settings
from tidemill.errors import ConfigError
from tidemill.retry import Backoff
from tidemill.store.connection import translated

log = logging.getLogger(__name__)
BACKOFF = Backoff(first_seconds=2.0, longest_seconds=4.0, attempts=3)
"""Before each further try of a notifier that failed. After the last one it is given up: the incident is a row, and
stands in the console, on ``status`` and in ``/metrics`` whoever was told."""
CALL_SECONDS = 30.0
"""A notifier that takes longer counts as failed; what it does then, nobody waits for."""
_sleep = time.sleep


@dataclass(frozen=True)
class Incident:
    """What a notifier finds as ``context["incident"]``, and its templates as ``{{ incident.… }}``. Times are UTC."""

    id: int
    subject: str
    """Of what, such as ``stream flights``."""
    kind: str
    """A heading of docs/operations.md, such as ``freshness``."""
    message: str
    opened_at: datetime
    closed_at: datetime | None

    @property
    def is_over(self) -> bool:
        """Whether this tells of its end. One that ended before anybody was told of its beginning is told once."""
        return self.closed_at is not None

    def __str__(self) -> str:
        if self.closed_at is None:
            return f"{self.subject}: {self.kind}: {self.message}"
        lasted = (self.closed_at - self.opened_at).total_seconds()
        return f"{self.subject}: {self.kind} is over after {lasted:.0f} s; it was: {self.message}"


class LogNotifier(BaseNotifier):
    """Writes an incident to the log of the task that tells it: as an error, its end as an information."""

    def notify(self, context: Any) -> None:
        """One line."""
        incident: Incident = context["incident"]
        log.log(logging.INFO if incident.is_over else logging.ERROR, "%s", incident)


Factory = Callable[[], BaseNotifier]


def notifiers(settings: Settings) -> dict[str, Factory]:
    """What makes the notifiers, by the names in the setting.

    They are made anew for each incident, because rendering its templates changes a notifier for good.

    Raises:
        ConfigError: a name leads to nothing that can be called.
    """
    names = [name.strip() for name in settings.notifiers.split(",") if name.strip()]
    return {name: _found(name) for name in names} or {LogNotifier.__name__: LogNotifier}


def _found(name: str) -> Factory:
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of somebody else's is run here, and may raise anything
        raise _wrong(name, f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise _wrong(name, "it cannot be called")
    return cast(Factory, found)


def _wrong(name: str, why: str) -> ConfigError:
    return ConfigError(
        "TIDEMILL_NOTIFIERS names no notifier",
        value=f"{name} ({why})",
        remedy="name a function without arguments, in a module that Airflow can import, that gives a BaseNotifier",
    )


def notify(
    connection: Connection[Any], subject: str, context: Mapping[str, Any], settings: Settings | None = None
) -> int:
    """Tell every beginning and end of the subject's incidents that nobody was told of.

    An incident is claimed before it is told, so that of two tasks one tells it. Nothing that a notifier raises leaves
    this function: it is logged, tried again twice, and then given up.

    Args:
        connection: autocommit; the stream account.
        subject: of which incidents, such as ``stream flights``.
        context: Airflow's of the task that tells.
        settings: where the notifiers are named; read from the environment if None.

    Returns:
        How many were told.

    Raises:
        StoreError: the database refused, or is away.
    """
    told = 0
    for incident in _pending(connection, subject):
        columns = _claim(connection, incident)
        if not columns:
            continue
        try:
            _call_all(settings or config.load(), incident, context)
        except BaseException:  # the task is being ended in the middle of it: somebody else tells it
            _release(connection, incident, columns)
            raise
        told += 1
    return told


_UNTOLD = """
SELECT id, subject, kind, message, opened_at, closed_at FROM incidents
WHERE subject = %s AND end_notified_at IS NULL AND (notified_at IS NULL OR closed_at IS NOT NULL) ORDER BY id
"""


def _pending(connection: Connection[Any], subject: str) -> Iterator[Incident]:
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(_UNTOLD, (subject,))
        for row in cursor.fetchall():
            utc = {name: row[name] and row[name].replace(tzinfo=UTC) for name in ("opened_at", "closed_at")}
            yield Incident(**(row | utc))


def _claim(connection: Connection[Any], incident: Incident) -> list[str]:
    """Mark it as told; returns the columns that this set, none if somebody else was faster."""
    columns = ["notified_at", "end_notified_at"] if incident.is_over else ["notified_at"]
    taken = []
    with translated(), connection.cursor() as cursor:
        # The last one decides: an end that is told tells the beginning, too.
        for column in reversed(columns):
            changed = cursor.execute(
                f"UPDATE incidents SET {column} = UTC_TIMESTAMP(6) WHERE id = %s AND {column} IS NULL", (incident.id,)
            )
            if changed:
                taken.append(column)
            elif not taken:
                return []
    return taken


def _release(connection: Connection[Any], incident: Incident, columns: list[str]) -> None:
    changes = ", ".join(f"{column} = NULL" for column in columns)
    with translated(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE incidents SET {changes} WHERE id = %s", (incident.id,))


def _call_all(settings: Settings, incident: Incident, context: Mapping[str, Any]) -> None:
    try:
        found = notifiers(settings)
    except ConfigError as error:
        log.error("%s", error)
        found = {LogNotifier.__name__: LogNotifier}
    for name, factory in found.items():
        _call(name, factory, {**context, "incident": incident})


def _bounded(factory: Factory, context: dict[str, Any]) -> None:
    """Call a notifier in a thread: one that never returns must not keep a stream's task."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            factory()(context)
        except BaseException as error:  # noqa: BLE001 -- raised again by whoever waits
            raised.append(error)

    calling = threading.Thread(target=copy_context().run, args=(call,), name="notifier", daemon=True)
    calling.start()
    calling.join(CALL_SECONDS)
    if calling.is_alive():
        raise TimeoutError(f"it did not return within {CALL_SECONDS:g} s")
    if raised:
        raise raised[0]


def _call(name: str, factory: Factory, context: dict[str, Any]) -> None:
    def attempt() -> bool:
        try:
            # Each try has a context of its own: a notifier adds its fields to it.
            _bounded(factory, dict(context))
        except Exception as error:  # noqa: BLE001 -- somebody else's code, which must not break the stream's task
            log.error("notifier %s failed on incident %s: %s", name, context["incident"].id, error)
            return False
        return True

    if not BACKOFF.run(attempt, retry_result=operator.not_, sleep=_sleep):
        log.error("nobody was told by %s: %s", name, context["incident"])
