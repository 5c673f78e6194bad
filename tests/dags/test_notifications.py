"""The stream's own task notifies of the stream's incidents, through an Airflow notifier."""

import sys
from typing import Any, ClassVar

import pytest
from airflow.sdk import BaseNotifier

from tidemill.airflow.operators import StreamOperator
from tidemill.config import Account, Settings
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import incidents, streams

STREAM = "tides"


class Bell(BaseNotifier):
    """Records what it would ring for."""

    template_fields = ("words",)
    rung: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.words = "{{ incident.subject }}, {{ incident.kind }}, over: {{ incident.is_over }}, by {{ run_id }}"

    def notify(self, context: Any) -> None:
        """Ring."""
        self.rung.append(self.words)


def test_the_task_of_a_stream_notifies_of_its_incidents(
    tides: tuple[Settings, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where there is nothing to do about the stream. The setting names the notifier."""
    monkeypatch.setattr(Bell, "rung", [])
    # pytest gives a test module a name that is no dotted one.
    monkeypatch.setitem(sys.modules, "our_bells", sys.modules[__name__])
    monkeypatch.setenv("TIDEMILL_NOTIFIERS", "our_bells.Bell")
    with session(tides[0], Account.STREAM) as connection:
        streams.request_state(connection, STREAM, "stopped", "a test")
        with connection.cursor() as cursor:
            for table in ("leases", "heartbeats"):
                cursor.execute(f"DELETE FROM {table} WHERE stream = %s", (STREAM,))
            cursor.execute("DELETE FROM incidents WHERE subject = %s", (f"stream {STREAM}",))
        incidents.open_incident(connection, f"stream {STREAM}", "test", "the water is high")
        for _ in range(2):
            StreamOperator(task_id="run", pipeline=STREAM).execute({"run_id": "a run"})
        incidents.close_incident(connection, f"stream {STREAM}", "test")
        StreamOperator(task_id="run", pipeline=STREAM).execute({"run_id": "another run"})
    assert Bell.rung == [
        "stream tides, test, over: False, by a run",
        "stream tides, test, over: True, by another run",
    ]
