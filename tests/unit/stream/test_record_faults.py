"""Which failures of a task may be those of a record, and what the quarantine has as the reason."""

from __future__ import annotations

import pytest
from pyspark.errors import AnalysisException, PySparkException

from tidemill import errors
from tidemill.errors import (
    ConfigError,
    Fenced,
    SourceError,
    StoreError,
    StreamError,
    StructureError,
    TidemillError,
    Transient,
    catalog,
)
from tidemill.stream.record_faults import is_fault_of_records, reason_of_record

WORKER = (
    "[PYTHON_EXCEPTION] An exception was thrown from the Python worker: Traceback (most recent call last):\n"
    '  File "task.py", line 163, in write\n'
    "{0}\n SQLSTATE: 38000"
)
JAVA = "An error occurred while calling o352.collectToPython.\n: {0}\n\tat java.base/java.lang.Math.multiplyExact"


REFUSED = StoreError("TM-STORE-STATEMENT-REFUSED", value="1406: Data too long")


class Raised(PySparkException):
    """What Spark raises for an expression that fails."""

    def __init__(self, text: str, state: str) -> None:
        super().__init__(text)
        self._state = state

    def getSqlState(self) -> str:
        return self._state


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            Raised("[ARITHMETIC_OVERFLOW] long overflow. SQLSTATE: 22003\n== SQL (line 1) ==\nms * 2", "22003"),
            "[ARITHMETIC_OVERFLOW] long overflow.",
        ),
        (
            Raised("[USER_RAISED_EXCEPTION] java.lang.OutOfMemoryError: No module named 'x' SQLSTATE: P0001", "P0001"),
            "java.lang.OutOfMemoryError: No module named 'x'",
        ),
        (RuntimeError(JAVA.format("java.lang.ArithmeticException: long overflow")), "Exception: long overflow"),
        (RuntimeError(WORKER.format("IndexError: list index out of range")), "IndexError"),
        (RuntimeError(WORKER.format(f"tidemill.errors.StoreError: {REFUSED}")), "1406"),
        (RuntimeError("java.lang.OutOfMemoryError: Java heap space"), "memory"),
        (RuntimeError("Python worker exited unexpectedly (crashed)"), "crashed"),
        (StreamError("TM-STREAM-RECORD-MULTIPLIED", value="2 in Range"), "several rows"),
    ],
)  # fmt: skip
def test_what_a_record_may_have_caused(error: BaseException, reason: str) -> None:
    """The range is run again in parts. The reason has what was reported, and nothing that only a developer reads."""
    assert is_fault_of_records(error)
    found = reason_of_record(error)
    assert reason in found
    assert not any(word in found for word in ("calling o", "SQLSTATE", "== SQL", "\n", "Math.multiplyExact"))


@pytest.mark.parametrize(
    "error",
    [
        AnalysisException("[UNRESOLVED_COLUMN] A column `x` cannot be resolved"),
        Fenced("TM-STORE-LEASE-LOST", stream="tides"),
        ConfigError("TM-STORE-ACCESS-DENIED", value="1142"),
        SourceError("TM-STREAM-TOPIC-MISSING", stream="tides"),
        StructureError("TM-STORE-STRUCTURE", value="1146: Table 'operational.tides' doesn't exist"),
        StructureError("TM-STORE-STRUCTURE", value="1305: FUNCTION operational.f does not exist"),
        StreamError("TM-STREAM-CHECK-NOT-MET", check="c"),
        StreamError("TM-STREAM-SHUFFLE", value="Exchange"),
        RuntimeError(WORKER.format("ModuleNotFoundError: No module named 'tidemill'")),
        RuntimeError("Failed to find data source: kafka"),
        RuntimeError("org.apache.kafka.common.errors.SaslAuthenticationException: no"),
        RuntimeError("java.io.IOException: No space left on device"),
    ],
)
def test_what_no_record_has_caused(error: BaseException) -> None:
    """A person has to act, or another driver holds the stream: no record is quarantined for it."""
    assert not is_fault_of_records(error)


@pytest.mark.parametrize("code", catalog.messages())
def test_no_transient_error_is_blamed_on_a_record(code: str) -> None:
    """Nor is one of another room."""
    message = catalog.find(code)
    kind: type[TidemillError] = getattr(errors, message.error)
    error = kind(code, **dict.fromkeys(message.parameters, "something"))
    if isinstance(error, Transient) or not isinstance(error, StoreError | StreamError):
        assert not is_fault_of_records(error)
        assert not is_fault_of_records(RuntimeError(WORKER.format(f"tidemill.errors.{kind.__name__}: {error}")))
