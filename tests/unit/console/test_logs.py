"""The end of a driver's log: the one that the lease names, here, and nothing else."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from support.streams import RUNNING
from tidemill.config import Settings
from tidemill.console import logs
from tidemill.console.logs import LAST_BYTES, end_of_log
from tidemill.lifecycle.stream_row import StreamRow


@pytest.fixture
def written(own: Settings) -> StreamRow:
    """A stream whose driver wrote its log here."""
    log = own.state / "logs" / "streams" / "flights-7.log"
    log.parent.mkdir(parents=True)
    log.write_text("first\nlast <b>word</b>\n")
    return replace(RUNNING, host=socket.gethostname(), log_file=str(log))


def test_the_end_is_shown_and_reaches_back_into_the_rotated_part(own: Settings, written: StreamRow) -> None:
    """Up to 64 KiB, from the beginning of a line."""
    assert end_of_log(own, written).text == "first\nlast <b>word</b>\n"
    Path(f"{written.log_file}.1").write_text("".join(f"line {number}\n" for number in range(20_000)))
    text = end_of_log(own, written).text
    assert text.endswith("line 19999\nfirst\nlast <b>word</b>\n")
    assert LAST_BYTES - 20 < len(text) < LAST_BYTES
    assert text.startswith("line ")


@pytest.mark.parametrize(
    "named",
    [
        "{state}/secrets.json",
        "{state}/logs/streams/../../secrets.json",
        "{state}/logs/streams/link",
        "{state}/logs/streams/loop",
        "{state}/logs/streams/\0",
        "{state}/logs/streams",
        "/etc/passwd",
        "kubectl logs a-pod",
    ],
)
def test_no_other_file_is_ever_shown(own: Settings, written: StreamRow, named: str) -> None:
    """Whatever path the lease names, and in whatever form."""
    secret = own.state / "secrets.json"
    secret.write_text("hunter2")
    (own.state / "logs" / "streams" / "link").symlink_to(secret)
    (own.state / "logs" / "streams" / "loop").symlink_to("loop")
    end = end_of_log(own, replace(written, log_file=named.format(state=own.state)))
    assert end.text == ""
    assert end.sentence.startswith("The log is not in the folder")


def test_where_the_log_cannot_be_shown_one_sentence_states_where_it_is(own: Settings, written: StreamRow) -> None:
    """Or why there is none."""
    for changes, words in (
        ({"host": "elsewhere"}, f"runs on elsewhere, and its log is on that machine: {written.log_file}"),
        ({"epoch": 0}, "No driver was ever started"),
        ({"log_file": None}, "has not reported yet"),
        ({"log_file": f"{own.state}/logs/streams/flights-6.log"}, "does not exist any more"),
    ):
        end = end_of_log(own, replace(written, **changes))
        assert words in end.sentence
        assert end.text == ""
    Path(str(written.log_file)).write_text("")
    assert "not written anything yet" in end_of_log(own, written).sentence


def test_what_programs_wrote_is_text_and_never_markup(own: Settings, written: StreamRow) -> None:
    """A log may hold the content of a record."""
    page = logs._templates.get_template("driver_log.html").render(
        row=replace(written, last_error="<script>"), end=end_of_log(own, written)
    )
    assert "last &lt;b&gt;word&lt;/b&gt;" in page
    assert "<script" not in page
    assert "default-src 'none'" in logs._HEADERS["Content-Security-Policy"]
