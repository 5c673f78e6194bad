"""The cause of a driver's failure by its log: the first real cause in one sentence, from Java's and Python's stacks."""

from __future__ import annotations

import re
from pathlib import Path

from tidemill import logs
from tidemill.config import Settings
from tidemill.stream.diagnosis import RESUMED, recognise
from tidemill.stream.log_rotation import read_end

_LONGEST = 500
_WORKER_ERROR = re.compile(r"^(?:Caused by: )?tidemill\.errors\.\w+: (?P<cause>.+)$")
"""An error of Tidemill in the traceback of a Python worker."""
_DRIVER_ERROR = re.compile(r"^tidemill: (?P<cause>.+)$")
"""The line by which a driver reports the error that it exits with."""
_CAUSED_BY = re.compile(r"^\s*Caused by: (?P<cause>.+)$")
_JAVA_EXCEPTION = re.compile(
    r"(?:^|^: |^Exception in thread \"[^\"]*\" |\bERROR\b.*? |^Terminating due to )"
    r"(?P<cause>(?:[a-z_][\w$]*\.)+[A-Z][\w$]*(?:Exception|Error)\b.*)$"
)
_PYTHON_EXCEPTION = re.compile(r"^(?P<cause>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b(?::.*)?)$")
_WRAPPERS = (
    "py4j.protocol.Py4JJavaError",
    "org.apache.spark.SparkException: Job aborted",
    "org.apache.spark.api.python.PythonException",
    "pyspark.errors.exceptions.captured.StreamingQueryException",
)
"""Exceptions that another one caused, without naming it."""
_LOG_RECORD = re.compile(r"^\d\d/\d\d/\d\d \d\d:\d\d:\d\d (?P<level>[A-Z]+) ")
"""The beginning of a record that Spark's logger writes; a stack may follow it."""
_UNLOGGED_ERROR = re.compile(r"^(?:Traceback |Exception in thread |Terminating due to |tidemill: )")
"""The beginning of an error that no logger has written."""
_LOG_NAME = re.compile(r"^(?P<stream>[a-z][a-z0-9_]*)-\d+\.log")


def readable_log(settings: Settings, log_file: str) -> Path | None:
    """The path of a log that a lease names, without links; None if it is not directly in the folder of streams' logs.

    The control plane names the file, and write access to it must not give read access to any file of this machine.
    """
    folder = (settings.state / "logs" / "streams").resolve()
    try:
        path = Path(log_file).resolve()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, or a NUL byte
        return None
    return path if path.parent == folder else None


def log_tail(path: Path, lines: int = 30) -> str:
    """The last lines of a log; a clause if it is missing or empty."""
    read = _read(path)
    if read is None:
        return f"there is no log {path}"
    return "\n".join(read[-lines:]) or f"the log {path} is empty"


def first_cause(path: Path) -> str:
    """One line on the cause of a failure: the known cause, or else the last line of the log."""
    lines = _read(path)
    if lines is None:
        return f"there is no log {path}"
    if not lines:
        return f"the log {path} is empty: it ended before its first line"
    return known_cause(path) or lines[-1].strip()[:_LONGEST]


def known_cause(path: Path) -> str | None:
    """The sentence on the cause of a failure by a log, None if the log holds none.

    In this order: the JVM ran out of memory; the error that the driver reported last; an error of Tidemill in a worker;
    a usual cause, with its remedy; the innermost ``Caused by`` of the first Java exception that has one; the first
    exception of either language that is no wrapper. Records of information and warnings are searched last, because the
    driver usually went on after them. Lines before the driver's report that it resumed are not searched.
    """
    lines = _read(path) or []
    resumed_at = [number for number, line in enumerate(lines) if _message(line).startswith(RESUMED)]
    lines = lines[resumed_at[-1] + 1 :] if resumed_at else lines
    match = _LOG_NAME.match(path.name)
    stream = match["stream"] if match else None
    cause = _usual_cause(lines, stream, ends_process=True) or _last_driver_error(lines) or _first_worker_error(lines)
    for searched in (_severe_lines(lines), lines):
        cause = cause or _usual_cause(searched, stream) or _root_cause(searched) or _first_exception(searched)
    return cause[:_LONGEST] if cause else None


def _usual_cause(lines: list[str], stream: str | None, *, ends_process: bool = False) -> str | None:
    """The first cause that is known by its words."""
    error = recognise("\n".join(lines), stream, ends_process=ends_process)
    return str(error) if error else None


def _last_driver_error(lines: list[str]) -> str | None:
    return next((match["cause"] for line in reversed(lines) if (match := _DRIVER_ERROR.match(line.strip()))), None)


def _first_worker_error(lines: list[str]) -> str | None:
    return next((match["cause"] for line in lines if (match := _WORKER_ERROR.match(line.strip()))), None)


def _severe_lines(lines: list[str]) -> list[str]:
    """The lines without the records of information and warnings, and without the stacks that follow those."""
    severe, is_severe = [], True
    for line in lines:
        if record := _LOG_RECORD.match(line) or logs.RECORD.match(line):
            is_severe = record["level"] not in ("DEBUG", "INFO", "WARN", "WARNING")
        elif _UNLOGGED_ERROR.match(line):
            is_severe = True
        if is_severe:
            severe.append(line)
    return severe


def _message(line: str) -> str:
    """The message of a record that the driver logged; empty for another line."""
    record = logs.RECORD.match(line)
    return record["message"] if record else ""


def _root_cause(lines: list[str]) -> str | None:
    """The last ``Caused by`` of the first chain, which ends where another text begins at the left margin."""
    innermost = None
    for line in lines:
        match = _CAUSED_BY.match(line)
        if match:
            innermost = match["cause"]
        elif innermost and not line.startswith(("\t", " ")):
            break  # another chain begins
    return innermost


def _first_exception(lines: list[str]) -> str | None:
    for line in lines:
        match = _JAVA_EXCEPTION.search(line.strip()) or _PYTHON_EXCEPTION.match(line.strip())
        if match and not match["cause"].startswith(_WRAPPERS):
            return match["cause"]
    return None


def _read(path: Path) -> list[str] | None:
    """The lines of a log's end that are not empty; None if there is no log."""
    end = read_end(path)
    if end is None:
        return None
    return [line for line in end.decode(errors="replace").splitlines() if line.strip()]
