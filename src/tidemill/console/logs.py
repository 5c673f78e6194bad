"""The end of a driver's log, for users who may see the console; only the log that the stream's lease names."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from fastapi import HTTPException
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from tidemill import config
from tidemill.config import Account, Settings
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.connection import session
from tidemill.store.control.streams import read_stream
from tidemill.stream.log_rotation import read_end
from tidemill.supervisor.log_diagnosis import readable_log

LAST_BYTES = 64 * 1024
_templates = Environment(
    loader=PackageLoader("tidemill.console"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_HEADERS = {
    # The text comes from programs of many authors: nothing in it may be run or loaded.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class LogEnd:
    """What is shown of a log: its end, or one sentence on why it cannot be shown."""

    sentence: str = ""
    text: str = ""


def driver_log(stream: str) -> HTMLResponse:
    """The last 64 KiB of the log of a stream's newest driver, as a page.

    Raises:
        HTTPException: 404, there is no such stream.
        DatabaseUnavailable: the database cannot be reached.
    """
    settings = config.load()
    with session(settings, Account.READ) as connection:
        row = read_stream(connection, stream)
    if row is None:
        raise HTTPException(404, f"there is no stream {stream[:64]}; apply its pipeline first")
    page = _templates.get_template("driver_log.html").render(row=row, end=end_of_log(settings, row))
    return HTMLResponse(page, headers=_HEADERS)


def end_of_log(settings: Settings, row: StreamRow) -> LogEnd:
    """The end of the log that a lease names, if it is on this machine and among the logs of streams."""
    if row.epoch == 0:
        return LogEnd("No driver was ever started.")
    if row.log_file is None:
        return LogEnd("The driver has not reported yet where its log is.")
    if row.host is not None and row.host != socket.gethostname():
        return LogEnd(f"The driver runs on {row.host}, and its log is on that machine: {row.log_file}")
    path = readable_log(settings, row.log_file)
    if path is None:
        return LogEnd(f"The log is not in the folder of the streams' logs: {row.log_file}")
    end = read_end(path, LAST_BYTES)
    if end is None:
        return LogEnd(f"The log does not exist any more: {row.log_file}")
    if len(end) == LAST_BYTES:
        end = end.partition(b"\n")[2]  # its first line is cut
    return LogEnd(text=end.decode(errors="replace")) if end else LogEnd("The driver has not written anything yet.")
