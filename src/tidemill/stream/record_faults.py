"""Whether a task failed for a record, and what a person reads of it as the reason of the quarantine."""

from __future__ import annotations

import re

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, ParseException, PySparkException

from tidemill.errors import StoreError, StreamError, StructureError, TidemillError, Transient
from tidemill.stream.diagnosis import cause

TASK_ERRORS = (TidemillError, PySparkException, Py4JJavaError)
"""What the collection of a batch raises for a task that failed."""
_CRASHES = frozenset(
    {
        "TM-STREAM-JVM-OUT-OF-MEMORY",
        "TM-STREAM-WORKER-CRASHED",
        "TM-STREAM-EXECUTOR-KILLED",
        "TM-STREAM-EXECUTORS-LOST",
    }
)
"""A record may be the cause, and so may the machine: smaller ranges show which of both it is."""
_OF_RECORDS = _CRASHES | {"TM-STREAM-FAILED", "TM-STREAM-RECORD-MULTIPLIED"}
_DATA_EXCEPTION = re.compile(r"22\w{3}|P0001")
"""The SQLSTATE of an expression that a value makes fail, and that of ``raise_error`` and ``assert_true``."""
_CONTEXT = re.compile(r"\s*(?:== \w[\w ()]* ==|SQLSTATE: \w{5}|\n\s*at |JVM stacktrace:)[\s\S]*\Z")
"""What Spark adds to the message of an expression."""
_JAVA_CLASS = re.compile(r"\A: ?|(?:[a-z_$][\w$]*\.)+(?=[A-Z]\w*(?:Exception|Error)\b)")
_PYTHON = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+(?P<error>.+)")
"""The exception that a traceback of Python ends with."""
_LONGEST = 500


def is_data_exception(error: BaseException) -> bool:
    """Whether an expression of the transform failed for a value."""
    return isinstance(error, PySparkException) and bool(_DATA_EXCEPTION.fullmatch(error.getSqlState() or ""))


def is_crash(error: BaseException) -> bool:
    """Whether a task ended with its process, or for want of memory."""
    return not is_data_exception(error) and cause(error).code in {*_CRASHES, "TM-STREAM-JVM-ENDED"}


def is_fault_of_records(error: BaseException) -> bool:
    """Whether a task may have failed for a record, so that its range is to be run again in smaller parts.

    It is not where waiting helps, where another driver or a person has to act, or where the plan itself is wrong.
    """
    if isinstance(error, AnalysisException | ParseException):
        return False
    # The message of an expression quotes values, which may have the words of any other error.
    if is_data_exception(error):
        return True
    known = cause(error)
    if isinstance(known, Transient | StructureError):
        return False
    if isinstance(known, StoreError):
        return True
    return isinstance(known, StreamError) and known.code in _OF_RECORDS


def reason_of_record(error: BaseException) -> str:
    """Why a record is quarantined whose task failed: one sentence without what only a developer reads."""
    if is_data_exception(error):
        text = f"an expression of the transform fails: {_CONTEXT.sub('', str(error))}"
    else:
        known = cause(error)
        if known.code == "TM-STREAM-FAILED" and (python := _PYTHON.search(str(error))):
            text = f"the record cannot be processed: {python['error']}"
        elif known.code == "TM-STREAM-FAILED":
            text = f"the record cannot be processed: {_JAVA_CLASS.sub('', str(known.value))}"
        else:
            text = known.what if known.value is None else f"{known.what}: {known.value}"
    return " ".join(text.split())[:_LONGEST]
