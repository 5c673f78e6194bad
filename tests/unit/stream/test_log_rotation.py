"""A log that is rotated while a process writes it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tidemill.stream import log_rotation
from tidemill.stream.log_rotation import LOG, LogRotator, read_end
from tidemill.testing import wait_until

WRITER = """\
import sys, time
number = 0
while True:
    for _ in range(20):
        sys.stdout.write(f"line {number:08d} " + "x" * (number % 300) + " end\\n")
        number += 1
    sys.stdout.flush()
    time.sleep(0.0005)
"""
LINE = re.compile(rb"line (\d{8}) (x*) end")


@contextmanager
def writer(path: Path, script: str = WRITER) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes lines to a file opened as the launcher opens a driver's log."""
    with path.open("ab") as log, subprocess.Popen([sys.executable, "-c", script], stdout=log) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_log_that_is_written_all_the_time_stays_bounded_and_no_line_is_torn(tmp_path: Path) -> None:
    """Four parts at most, each little longer than the limit; lines in them are whole and in order."""
    log, limit = tmp_path / "tides-1.log", 200_000
    keeper = LogRotator(log, limit)
    cut = 0
    with writer(log):
        for _ in range(8):
            wait_until(lambda: log.stat().st_size > limit, 60, "the log is long")
            cut += keeper.rotate()
            assert not keeper.rotate()
    assert cut == 8
    parts = sorted(tmp_path.iterdir(), key=lambda path: path.name, reverse=True)
    assert [part.name for part in parts] == ["tides-1.log.3", "tides-1.log.2", "tides-1.log.1", "tides-1.log"]
    assert all(limit < part.stat().st_size < 5 * limit for part in parts[:-1])
    found = [LINE.fullmatch(line) for part in parts for line in part.read_bytes().splitlines()]
    # The process was killed at the end; its last line may be half.
    assert all(found[:-1])
    numbers = [int(match[1]) for match in found if match]
    assert all(len(match[2]) == int(match[1]) % 300 for match in found if match)
    assert numbers == sorted(numbers)
    # What may be lost is what was written in the microseconds between the last look and the cut: a write each time.
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    assert missing <= 3 * 100


def test_a_line_that_is_being_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end, which comes somewhat after its beginning, goes to the same part."""
    monkeypatch.setattr(log_rotation, "_PATIENCE_SECONDS", 20)  # a busy machine is slower than a JVM that writes a line
    log = tmp_path / "tides-1.log"
    script = """\
import sys
sys.stdout.write("begun " * 100); sys.stdout.flush()
sys.stdin.readline()
print("and ended", flush=True)
sys.stdin.readline()
"""
    with (
        log.open("ab") as file,
        subprocess.Popen([sys.executable, "-c", script], stdout=file, stdin=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        wait_until(lambda: log.stat().st_size > 500, 60, "the beginning is there")
        process.stdin.write(b"go\n")
        process.stdin.flush()
        # Short of the beginning's length, so that the first look already acts.
        assert LogRotator(log, 100).rotate()
        process.stdin.close()
    assert (tmp_path / "tides-1.log.1").read_bytes() == b"begun " * 100 + b"and ended\n"
    assert log.read_bytes() == b""


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    """Nor is one that is not there, or is no plain file, as where the driver's output goes to a pipe."""
    log = tmp_path / "tides-1.log"
    log.write_bytes(b"x" * 100)
    assert not LogRotator(log, 100).rotate()
    assert not LogRotator(tmp_path / "none.log", 0).rotate()
    assert not LogRotator(Path("/dev/null"), 0).rotate()
    assert [path.name for path in tmp_path.iterdir()] == ["tides-1.log"]


def test_where_no_copy_can_be_made_the_log_is_cut_at_twice_its_length(tmp_path: Path) -> None:
    """A log does not fill a disk for good, and no former part leaves for a copy that was not made."""
    log = tmp_path / "tides-1.log"
    (tmp_path / "tides-1.log.2").write_bytes(b"older")
    # A copy to it fails at its first byte: there is no space left on this device.
    (tmp_path / "tides-1.log.1").symlink_to("/dev/full")
    keeper = LogRotator(log, 100, kept=2)
    keeper._make_room = lambda: None  # type: ignore[method-assign]  # else the link would move on
    log.write_bytes(b"x" * 150)
    assert not keeper.rotate()
    assert log.stat().st_size == 150
    (tmp_path / "tides-1.log.1").symlink_to("/dev/full")
    log.write_bytes(b"x" * 250)
    assert keeper.rotate()
    assert log.stat().st_size == 0
    assert (tmp_path / "tides-1.log.2").read_bytes() == b"older"


@pytest.mark.parametrize(
    ("former", "present", "length", "end"),
    [
        (b"one\ntwo\n", b"three\n", 100, b"one\ntwo\nthree\n"),
        (b"one\ntwo\n", b"three\n", 10, b"two\nthree\n"),
        (b"one\n", b"three\n", 6, b"three\n"),
        (b"one\n", None, 100, b"one\n"),
        (None, b"three\n", 100, b"three\n"),
        (None, None, 100, None),
    ],
)
def test_the_end_of_a_log_reaches_back_into_its_former_part(
    tmp_path: Path, former: bytes | None, present: bytes | None, length: int, end: bytes | None
) -> None:
    """Who looks just after the cut still sees what led to it."""
    log = tmp_path / "tides-1.log"
    for path, content in ((tmp_path / "tides-1.log.1", former), (log, present)):
        if content is not None:
            path.write_bytes(content)
    assert read_end(log, length) == end


def test_a_driver_knows_its_own_log_from_its_launcher(tmp_path: Path) -> None:
    """A job that was not launched as a stream's driver rotates no log."""
    keeper = LogRotator.of_process(100, {LOG: str(tmp_path / "tides-1.log")})
    assert keeper is not None
    assert (keeper.path, keeper.max_bytes) == (tmp_path / "tides-1.log", 100)
    assert LogRotator.of_process(100, {}) is None
