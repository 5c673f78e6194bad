"""Which notifiers are called about an incident, and what follows when one fails."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from airflow.sdk import BaseNotifier

from tidemill.airflow import notifications
from tidemill.airflow.notifications import Incident, LogNotifier, notifiers
from tidemill.config import Settings
from tidemill.errors import ConfigError

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEGUN = Incident(7, "stream flights", "freshness", "the tables are 45 s behind", AT, None)
OVER = Incident(7, "stream flights", "freshness", "the tables are 45 s behind", AT, AT + timedelta(seconds=90))


class Pager(BaseNotifier):
    """Records what it would send."""

    template_fields = ("message",)
    sent: ClassVar[list[str]] = []
    troubles: ClassVar[list[Exception]] = []

    def __init__(self) -> None:
        super().__init__()
        self.message = (
            "{{ incident.kind }} of {{ incident.subject }}{{ ' is over' if incident.is_over else '' }} in {{ run_id }}"
        )

    def notify(self, context: Any) -> None:
        """Fail as often as the test requests it, then send."""
        if self.troubles:
            raise self.troubles.pop()
        self.sent.append(self.message)


def call(settings: Settings, incident: Incident, *names: str) -> None:
    """Notify of an incident through notifiers by name."""
    named = settings.model_copy(update={"notifiers": ", ".join(names)})
    notifications._call_notifiers(named, incident, {"run_id": "a run"})


@pytest.fixture
def pager(monkeypatch: pytest.MonkeyPatch) -> str:
    """The pager's dotted name; pauses take no time."""
    # pytest gives a test module a name that is no dotted one.
    monkeypatch.setitem(sys.modules, "our_pagers", sys.modules[__name__])
    monkeypatch.setattr(notifications, "_sleep", lambda seconds: None)
    monkeypatch.setattr(Pager, "sent", [])
    monkeypatch.setattr(Pager, "troubles", [])
    return "our_pagers.Pager"


def test_an_airflow_notifier_is_called_with_the_incident(settings: Settings, pager: str) -> None:
    """Its templates are rendered for each incident, though rendering changes a notifier permanently."""
    call(settings, BEGUN, pager)
    call(settings, OVER, pager)
    assert Pager.sent == ["freshness of stream flights in a run", "freshness of stream flights is over in a run"]


def test_without_a_setting_an_incident_is_a_line_in_the_log(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """An error when it opens, an information when it closes."""
    with caplog.at_level(logging.INFO, notifications.__name__):
        call(settings, BEGUN)
        call(settings, OVER)
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("ERROR", "stream flights: freshness: the tables are 45 s behind"),
        ("INFO", "stream flights: freshness is over after 90 s; it was: the tables are 45 s behind"),
    ]


def test_a_notifier_that_fails_is_retried_and_then_given_up(
    settings: Settings, pager: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its errors are in the log; the other notifiers are called all the same, and once."""
    Pager.troubles.extend(ConnectionError(f"no line {n}") for n in (2, 1))
    call(settings, BEGUN, pager)
    assert len(Pager.sent) == 1
    Pager.troubles.extend(ConnectionError("no line at all") for _ in range(3))
    with caplog.at_level(logging.INFO, notifications.__name__):
        call(settings, OVER, pager, "tidemill.airflow.notifications.LogNotifier")
    assert len(Pager.sent) == 1
    assert Pager.troubles == []
    lines = [each.getMessage() for each in caplog.records if each.name == notifications.__name__]
    assert sum("no line at all" in each for each in lines) == 3
    assert any(each.startswith(f"notifier {pager} sent no notification of") for each in lines)
    assert lines[-1].startswith("stream flights: freshness is over")


def test_a_notifier_that_never_returns_does_not_block_the_task(
    settings: Settings, pager: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as one that failed."""
    never = threading.Event()
    monkeypatch.setattr(notifications, "CALL_SECONDS", 0.05)
    monkeypatch.setattr(Pager, "notify", lambda self, context: never.wait())
    with caplog.at_level(logging.ERROR, notifications.__name__):
        call(settings, BEGUN, pager)
    never.set()
    assert "it did not return within 0.05 s" in caplog.text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_module.mail", "ModuleNotFoundError"),
        ("tidemill.airflow.notifications.Mail", "AttributeError"),
        ("tidemill.airflow.notifications.CALL_SECONDS", "cannot be called"),
        ("mail", "ValueError"),
    ],
)
def test_a_name_that_cannot_be_loaded_is_an_error_and_incidents_are_logged(
    settings: Settings, caplog: pytest.LogCaptureFixture, name: str, reason: str
) -> None:
    """A wrong setting fails no stream's task, and no incident goes without its line."""
    with pytest.raises(ConfigError) as caught:
        notifiers(settings.model_copy(update={"notifiers": name}))
    assert (caught.value.code, caught.value.value) == ("TM-AIRFLOW-NOTIFIER-INVALID", name)
    assert reason in str(caught.value.parameters["reason"])
    with caplog.at_level(logging.INFO, notifications.__name__):
        call(settings, BEGUN, name)
    assert caplog.records[-1].getMessage() == str(BEGUN)


def test_a_notifier_may_be_a_class_or_a_function(settings: Settings) -> None:
    """Anything that is called without arguments."""
    names = "tidemill.airflow.notifications.LogNotifier"
    [factory] = notifiers(settings.model_copy(update={"notifiers": f" {names} ,"})).values()
    assert isinstance(factory(), LogNotifier)
