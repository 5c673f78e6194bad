"""What a driver's log says went wrong: the first real cause in one sentence, out of two languages' stacks."""

from __future__ import annotations

import re
from pathlib import Path

from tidemill.stream.diagnosis import named
from tidemill.stream.log_rotation import read_end

_LONGEST = 500
_OURS = re.compile(r"^(?:Caused by: )?tidemill\.errors\.\w+: (?P<cause>.+)$")
_SAID = re.compile(r"^tidemill: (?P<cause>.+)$")
_CAUSED_BY = re.compile(r"^\s*Caused by: (?P<cause>.+)$")
_JAVA = re.compile(
    r"(?:^|^: |^Exception in thread \"[^\"]*\" |\bERROR\b.*? |^Terminating due to )"
    r"(?P<cause>(?:[a-z_][\w$]*\.)+[A-Z][\w$]*(?:Exception|Error)\b.*)$"
)
_PYTHON = re.compile(r"^(?P<cause>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b(?::.*)?)$")
_WRAPPERS = (
    "py4j.protocol.Py4JJavaError",
    "org.apache.spark.SparkException: Job aborted",
    "org.apache.spark.api.python.PythonException",
    "pyspark.errors.exceptions.captured.StreamingQueryException",
)
"""They say that something below them failed, and not what."""
_HEAD = re.compile(r"^\d\d/\d\d/\d\d \d\d:\d\d:\d\d (?P<level>[A-Z]+) ")
"""Of a record that Spark's logger writes; a stack may follow it."""
_OF_ITS_OWN = re.compile(r"^(?:Traceback |Exception in thread |Terminating due to |tidemill: )")
_SURVIVED = re.compile(r"^all servers answer; going on\b")
"""What a driver says when something that was away is back."""
_NAME = re.compile(r"^(?P<stream>[a-z][a-z0-9_]*)-\d+\.log")


def log_tail(path: Path, lines: int = 30) -> str:
    """The last lines of a log; a sentence if it is missing or empty."""
    found = _read(path)
    if found is None:
        return f"there is no log {path}"
    return "\n".join(found[-lines:]) or f"the log {path} is empty"


def first_cause(path: Path) -> str:
    """One line that names what went wrong: the known cause, or else the last line."""
    lines = _read(path)
    if lines is None:
        return f"there is no log {path}"
    if not lines:
        return f"the log {path} is empty: it ended before its first line"
    return known_cause(path) or lines[-1].strip()[:_LONGEST]


def known_cause(path: Path) -> str | None:
    """The sentence on what a log says went wrong, None if it says nothing of the kind.

    In this order: the end of its memory; what the driver said last; an error of ours in a worker; a usual cause, with
    its remedy; the innermost ``Caused by`` of the first Java exception that has one; the first exception of either
    language that is no wrapper. What was only warned of is looked at last: as a rule it was survived. What stands
    before the driver's word that it goes on is not looked at.
    """
    lines = _read(path) or []
    survived = [number for number, line in enumerate(lines) if _SURVIVED.match(line)]
    lines = lines[survived[-1] + 1 :] if survived else lines
    match = _NAME.match(path.name)
    stream = match["stream"] if match else None
    found = _usual(lines, stream, last_words=True) or _said(lines) or _ours(lines)
    for some in (_grave(lines), lines):
        found = found or _usual(some, stream) or _innermost(some) or _first(some)
    return found[:_LONGEST] if found else None


def _usual(lines: list[str], stream: str | None, *, last_words: bool = False) -> str | None:
    found = named("\n".join(lines), stream, last_words=last_words)
    return str(found) if found else None


def _said(lines: list[str]) -> str | None:
    """What the driver said last."""
    return next((match["cause"] for line in reversed(lines) if (match := _SAID.match(line.strip()))), None)


def _ours(lines: list[str]) -> str | None:
    return next((match["cause"] for line in lines if (match := _OURS.match(line.strip()))), None)


def _grave(lines: list[str]) -> list[str]:
    """The lines without the records of information and warnings, and the stacks that follow these."""
    kept, grave = [], True
    for line in lines:
        if head := _HEAD.match(line):
            grave = head["level"] not in ("DEBUG", "INFO", "WARN")
        elif _OF_ITS_OWN.match(line):
            grave = True
        if grave:
            kept.append(line)
    return kept


def _innermost(lines: list[str]) -> str | None:
    """The last ``Caused by`` of the first chain, which ends where something else begins at the left margin."""
    innermost = None
    for line in lines:
        match = _CAUSED_BY.match(line)
        if match:
            innermost = match["cause"]
        elif innermost and not line.startswith(("\t", " ")):
            break  # another chain begins
    return innermost


def _first(lines: list[str]) -> str | None:
    for line in lines:
        match = _JAVA.search(line.strip()) or _PYTHON.match(line.strip())
        if match and not match["cause"].startswith(_WRAPPERS):
            return match["cause"]
    return None


def _read(path: Path) -> list[str] | None:
    """The lines that are not empty of a log's end."""
    end = read_end(path)
    if end is None:
        return None
    return [line for line in end.decode(errors="replace").splitlines() if line.strip()]
