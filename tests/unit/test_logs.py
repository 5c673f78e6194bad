"""One line for each record, with the fields of its process and of its block."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from tidemill import logs

log = logging.getLogger("tidemill.a_module")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a handler with our formatter writes."""
    written: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler = Handler()
    handler.setFormatter(logs.LogfmtFormatter())
    monkeypatch.setattr(log, "handlers", [handler])
    monkeypatch.setattr(logs, "_of_process", {"stream": "flights", "epoch": 7})
    log.setLevel(logging.INFO)
    return written


def test_a_record_is_one_line_that_can_be_read_again(lines: list[str]) -> None:
    """Fields of a block come and go; a value with blanks is quoted; a message stays on its line."""
    with logs.fields(batch=12, cause='no "answer"'):
        log.info("committed %d partitions", 3)
    log.warning("two\nlines")
    first, second = (logs.RECORD.match(line) for line in lines)
    assert first
    assert second
    assert first["level"] == "INFO"
    assert first["logger"] == "tidemill.a_module"
    assert first["fields"] == ' stream=flights epoch=7 batch=12 cause="no \\"answer\\""'
    assert first["message"] == "committed 3 partitions"
    assert second["fields"] == " stream=flights epoch=7"
    assert second["message"] == "two\\nlines"


def test_a_traceback_follows_its_record(lines: list[str]) -> None:
    """The last line of it names the exception, which the diagnosis of logs looks for."""
    try:
        raise ValueError("the tide is out")
    except ValueError:
        log.exception("not done")
    head, *trace = lines[0].splitlines()
    assert head.endswith(" ERROR tidemill.a_module stream=flights epoch=7 not done")
    assert trace[-1] == "ValueError: the tide is out"


def test_a_configured_process_writes_to_standard_error_once() -> None:
    """Ours from INFO on, those of libraries from WARNING on; configuring twice writes nothing twice."""
    program = """
import logging
from tidemill import logs
logs.configure(stream="flights", epoch=7)
logs.configure(stream="flights", epoch=8)
logging.getLogger("tidemill.x").info("ours")
logging.getLogger("tidemill.x").debug("ours, in detail")
logging.getLogger("py4j").info("of a library")
logging.getLogger("py4j").warning("of a library, too")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == ""
    assert [line.split(" ", 1)[1] for line in ended.stderr.splitlines()] == [
        "INFO tidemill.x stream=flights epoch=8 ours",
        "WARNING py4j stream=flights epoch=8 of a library, too",
    ]
