"""The log of drivers, Spark jobs and Python workers: one line for each record, as logfmt.

::

    2026-11-22T17:12:01.123Z INFO tidemill.stream.query stream=flights epoch=7 batch=12 committed 3 partitions

Modules log with ``logging.getLogger(__name__)``. A Spark entry calls :func:`configure` with the fields that all its
records have; a block of code adds fields of its own with :func:`fields`. Lines go to standard error, which Spark
passes on from its Python workers, and which every cluster keeps. Airflow and the command line configure logging in
their own way, and see the same records without the fields.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType

RECORD = re.compile(
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?P<level>[A-Z]+) (?P<logger>[\w.]+)"
    r'(?P<fields>(?: [a-z_]+=(?:"(?:[^"\\]|\\.)*"|[^\s"=]*))*) (?P<message>.*)$'
)
"""A line of such a log, for programs that read it."""

_PLAIN = re.compile(r"[^\s\"=]+")
_of_process: dict[str, object] = {}
_of_block: ContextVar[Mapping[str, object]] = ContextVar("fields", default=MappingProxyType({}))


class LogfmtFormatter(logging.Formatter):
    """Time (UTC, milliseconds), level, logger, fields, message; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        pairs = [f"{name}={_quoted(value)}" for name, value in {**_of_process, **_of_block.get()}.items()]
        message = record.getMessage().replace("\r", "").replace("\n", "\\n")
        line = " ".join([time, record.levelname, record.name, *pairs, message])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def configure(**of_process: object) -> None:
    """Send the records of this process to standard error: Tidemill's from INFO on, those of libraries from WARNING on.

    Another call replaces the fields, and adds no second handler.

    Args:
        of_process: fields of every record, such as ``stream`` and ``epoch``.
    """
    _of_process.clear()
    _of_process.update(of_process)
    root = logging.getLogger()
    if not any(isinstance(handler.formatter, LogfmtFormatter) for handler in root.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LogfmtFormatter())
        root.addHandler(handler)
    logging.getLogger("tidemill").setLevel(logging.INFO)


@contextmanager
def fields(**of_block: object) -> Iterator[None]:
    """Add fields to the records of a block of code, in this thread."""
    token = _of_block.set({**_of_block.get(), **of_block})
    try:
        yield
    finally:
        _of_block.reset(token)
