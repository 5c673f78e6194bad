"""Notifies people of incidents, once when one opens and once when it closes, through notifiers of Airflow.

The setting ``TIDEMILL_NOTIFIERS`` names them: dotted names, separated by commas, each of a class or function that is
called without arguments and returns a ``BaseNotifier``. Without the setting an incident is a line in the task's log.
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
"""How a failed notifier is retried. After the last attempt the notification is given up: the incident stays
visible in the console, in ``status`` and in ``/metrics``."""
CALL_SECONDS = 30.0
"""A notifier that takes longer counts as failed; its thread is left to itself."""
_sleep = time.sleep


@dataclass(frozen=True)
class Incident:
    """What a notifier finds as ``context["incident"]``, and its templates as ``{{ incident.… }}``. Times are UTC."""

    id: int
    subject: str
    """What the incident is about, such as ``stream flights``."""
    kind: str
    """A heading of docs/operations.md, such as ``freshness``."""
    message: str
    opened_at: datetime
    closed_at: datetime | None

    @property
    def is_over(self) -> bool:
        """Whether it has closed. An incident that closes before its first notification is notified once, as closed."""
        return self.closed_at is not None

    def __str__(self) -> str:
        if self.closed_at is None:
            return f"{self.subject}: {self.kind}: {self.message}"
        lasted = (self.closed_at - self.opened_at).total_seconds()
        return f"{self.subject}: {self.kind} is over after {lasted:.0f} s; it was: {self.message}"


class LogNotifier(BaseNotifier):
    """Writes an incident to the log of the notifying task: as an error when it opens, as information when it closes."""

    def notify(self, context: Any) -> None:
        """Log one line."""
        incident: Incident = context["incident"]
        log.log(logging.INFO if incident.is_over else logging.ERROR, "%s", incident)


Factory = Callable[[], BaseNotifier]


def notifiers(settings: Settings) -> dict[str, Factory]:
    """The factories of the notifiers, by their names in the setting.

    Each incident gets new notifiers, because rendering a notifier's templates changes it permanently.

    Raises:
        ConfigError: a name does not lead to anything that can be called.
    """
    names = [name.strip() for name in settings.notifiers.split(",") if name.strip()]
    return {name: _load_factory(name) for name in names} or {LogNotifier.__name__: LogNotifier}


def _load_factory(name: str) -> Factory:
    module, _, attribute = name.rpartition(".")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing the module runs an operator's own code, which may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError("TM-AIRFLOW-NOTIFIER-INVALID", value=name, reason=reason) from error
    if not callable(factory):
        raise ConfigError("TM-AIRFLOW-NOTIFIER-INVALID", value=name, reason="it cannot be called")
    return cast(Factory, factory)


def notify(
    connection: Connection[Any], subject: str, context: Mapping[str, Any], settings: Settings | None = None
) -> int:
    """Send every pending notification about the subject's incidents.

    An incident is marked as notified before the notifiers are called, so that only one of several tasks notifies. No
    error of a notifier leaves this function: it is logged, retried twice, and then given up.

    Args:
        connection: autocommit; the stream account.
        subject: of the incidents, such as ``stream flights``.
        context: the Airflow context of the notifying task.
        settings: where the notifiers are named; read from the environment if None.

    Returns:
        Of how many incidents it notified.

    Raises:
        StoreError: the database is unavailable, or rejected a statement.
    """
    count = 0
    for incident in _pending(connection, subject):
        columns = _mark_notified(connection, incident)
        if not columns:
            continue
        try:
            _call_notifiers(settings or config.load(), incident, context)
        except BaseException:  # the task is being terminated: leave the notification to the next task
            _unmark(connection, incident, columns)
            raise
        count += 1
    return count


_PENDING = """
SELECT id, subject, kind, message, opened_at, closed_at FROM incidents
WHERE subject = %s AND end_notified_at IS NULL AND (notified_at IS NULL OR closed_at IS NOT NULL) ORDER BY id
"""


def _pending(connection: Connection[Any], subject: str) -> Iterator[Incident]:
    with translated(), connection.cursor(DictCursor) as cursor:
        cursor.execute(_PENDING, (subject,))
        for row in cursor.fetchall():
            utc = {name: row[name] and row[name].replace(tzinfo=UTC) for name in ("opened_at", "closed_at")}
            yield Incident(**(row | utc))


def _mark_notified(connection: Connection[Any], incident: Incident) -> list[str]:
    """Mark an incident as notified; returns the columns that this call set, none if another task was faster."""
    columns = ["notified_at", "end_notified_at"] if incident.is_over else ["notified_at"]
    marked: list[str] = []
    with translated(), connection.cursor() as cursor:
        # The last column decides: a notification of the end covers the beginning as well.
        for column in reversed(columns):
            changed = cursor.execute(
                f"UPDATE incidents SET {column} = UTC_TIMESTAMP(6) WHERE id = %s AND {column} IS NULL", (incident.id,)
            )
            if changed:
                marked.append(column)
            elif not marked:
                return []
    return marked


def _unmark(connection: Connection[Any], incident: Incident, columns: list[str]) -> None:
    changes = ", ".join(f"{column} = NULL" for column in columns)
    with translated(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE incidents SET {changes} WHERE id = %s", (incident.id,))


def _call_notifiers(settings: Settings, incident: Incident, context: Mapping[str, Any]) -> None:
    try:
        factories = notifiers(settings)
    except ConfigError as error:
        log.error("%s", error)
        factories = {LogNotifier.__name__: LogNotifier}
    for name, factory in factories.items():
        _call_with_retries(name, factory, {**context, "incident": incident})


def _call_with_retries(name: str, factory: Factory, context: dict[str, Any]) -> None:
    def attempt() -> bool:
        try:
            # Each attempt has a context of its own: a notifier adds its fields to it.
            _call_with_timeout(factory, dict(context))
        except Exception as error:  # noqa: BLE001 -- an operator's own code, which must not fail the stream's task
            log.error("notifier %s failed on incident %s: %s", name, context["incident"].id, error)
            return False
        return True

    if not BACKOFF.run(attempt, retry_result=operator.not_, sleep=_sleep):
        log.error("notifier %s sent no notification of: %s", name, context["incident"])


def _call_with_timeout(factory: Factory, context: dict[str, Any]) -> None:
    """Call a notifier in a thread, so that one that never returns does not block a stream's task."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            factory()(context)
        except BaseException as error:  # noqa: BLE001 -- raised again in the waiting thread
            raised.append(error)

    thread = threading.Thread(target=copy_context().run, args=(call,), name="notifier", daemon=True)
    thread.start()
    thread.join(CALL_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"it did not return within {CALL_SECONDS:g} s")
    if raised:
        raise raised[0]
