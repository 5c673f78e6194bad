"""An error that was raised in a Python worker, and what the driver makes of the traceback that Spark passes on."""

from __future__ import annotations

import pytest

from tidemill import errors
from tidemill.errors import DatabaseReadOnly, StreamError, TidemillError, Transient, catalog
from tidemill.stream.diagnosis import cause

TRACEBACK = (
    "An exception was thrown from the Python worker: Traceback (most recent call last):\n"
    '  File "task.py", line 163, in write\n'
    "tidemill.errors.{0}: {1}\n SQLSTATE: 38000"
)


def passed_on(error: TidemillError) -> TidemillError:
    """The error as the driver knows it."""
    return cause(RuntimeError(TRACEBACK.format(type(error).__name__, error)))


@pytest.mark.parametrize("code", catalog.messages())
@pytest.mark.parametrize("value", [None, "a value: it has a colon; and a semicolon"])
def test_every_error_comes_back_from_a_traceback(code: str, value: str | None) -> None:
    """Class and code are the same, and so is what a person reads."""
    message = catalog.find(code)
    kind: type[TidemillError] = getattr(errors, message.error)
    error = kind(code, value=value, **dict.fromkeys(message.parameters, "something"))
    again = passed_on(error)
    assert (type(again), again.code, str(again)) == (kind, code, str(error))


def test_values_and_parameters_come_back() -> None:
    """As text."""
    error = StreamError("TM-STREAM-OFFSETS-LOST", value="partition 0: 3–8 (5)", topic="tides", offsets=5)
    again = passed_on(error)
    assert again.value == "partition 0: 3–8 (5)"
    assert again.parameters == {"topic": "tides", "offsets": "5"}


def test_a_message_that_is_cut_keeps_its_class() -> None:
    """Only the first line of a traceback's message is passed on; whether to wait depends on the class alone."""
    again = cause(RuntimeError(TRACEBACK.format("DatabaseReadOnly", "[TM-STREAM-FAILED] the stream failed for a\nrea")))
    assert type(again) is DatabaseReadOnly
    assert isinstance(again, Transient)
    assert again.value == "[TM-STREAM-FAILED] the stream failed for a"


@pytest.mark.parametrize("name", ["catalog", "annotations", "NoSuchError", "Transient"])
def test_a_name_that_is_no_error_makes_a_stream_error(name: str) -> None:
    """The text is quoted."""
    again = cause(RuntimeError(TRACEBACK.format(name, "the tide is out")))
    assert (type(again), again.value) == (StreamError, "the tide is out")
