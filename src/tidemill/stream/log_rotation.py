"""A driver's log: bounded by the driver itself, and read across its parts.

The log is the standard output of a JVM and its Python, opened in append mode by whoever launched them: neither can be
told to open another file. So it is copied aside and cut (copy and truncate, as logrotate's ``copytruncate``). The parts
are ``<log>.1``, the newest, to ``<log>.<kept>``.

What is lost: what is written between the last look at the file's length and its truncation, which is microseconds. A
line is torn only if its writer has paused in the middle of it for longer than 50 ms.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path

LOG = "TIDE_LOG"
"""Environment variable of a driver: the file that its standard output goes to. No setting, hence its own prefix."""
KEPT = 3
"""Former parts of a log that stay, beside the present one."""
LOOK_BACK_BYTES = 512 * 1024
_PATIENCE_SECONDS = 0.05
_CHASE_SECONDS = 2.0
_CHUNK = 1 << 20


class LogRotator:
    """Keeps one log bounded: at most ``max_bytes`` and what is written between two looks, ``kept + 1`` times.

    Args:
        path: the log; one that is not a plain file here is left alone.
        max_bytes: a longer one is put aside.
        kept: how many former parts stay.
    """

    def __init__(self, path: Path, max_bytes: int, kept: int = KEPT) -> None:
        self.path, self.max_bytes, self.kept = path, max_bytes, kept

    @classmethod
    def of_process(cls, max_bytes: int, environ: Mapping[str, str] | None = None) -> LogRotator | None:
        """The keeper of this process's own log, as its launcher named it; None if none did."""
        named = (os.environ if environ is None else environ).get(LOG)
        return cls(Path(named), max_bytes) if named else None

    def look(self) -> bool:
        """Put the log aside if it is long enough; returns whether it was. Raises nothing: a log stops no stream.

        One that cannot be copied, as on a full disk, is left to grow to twice its length and then cut.
        """
        try:
            if not self.path.is_file() or self.path.stat().st_size <= self.max_bytes:
                return False
            self._make_room()
            with self.path.open("r+b", buffering=0) as log:
                copied = self._copy(log)
                if not copied and log.seek(0, os.SEEK_END) <= 2 * self.max_bytes:
                    return False
                log.truncate(0)
        except OSError:
            return False
        return True

    def _make_room(self) -> None:
        """Move the parts on, the oldest out. A copy that failed left no newest part, and nothing moves for it."""
        if _part(self.path, 1).exists():
            for number in range(self.kept, 1, -1):
                with suppress(FileNotFoundError):
                    _part(self.path, number - 1).replace(_part(self.path, number))

    def _copy(self, log: FileIO) -> bool:
        """Copy the log to its newest part; returns when nothing was written since, and whether it could be done."""
        aside = _part(self.path, 1)
        try:
            with aside.open("wb", buffering=0) as copy:
                _copy_all(log, copy)
        except OSError:
            aside.unlink(missing_ok=True)
            return False
        return True


def _copy_all(log: FileIO, copy: FileIO) -> None:
    """Copy to the end as it is when the copying ends, which is the end of a line if one comes in time."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    last = b""
    while True:
        while chunk := log.read(_CHUNK):
            written = copy.write(chunk)
            if written != len(chunk):
                raise OSError("short write")
            last = chunk[-1:]
        late = time.monotonic() - deadline
        whole = last == b"\n" or late > 0
        # A writer that is faster than the copying is not waited for without end.
        if whole and (os.fstat(log.fileno()).st_size == log.tell() or late > _CHASE_SECONDS):
            return
        if not whole:
            time.sleep(0.001)


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def read_end(path: Path, length: int = LOOK_BACK_BYTES) -> bytes | None:
    """The last bytes of a log, across the boundary to its former part where the present one is short.

    Args:
        path: the log.
        length: how many bytes at most.

    Returns:
        None if there is no log.
    """
    present, former = _end(path, length), None
    if present is None or len(present) < length:
        former = _end(_part(path, 1), length - len(present or b""))
    if present is None and former is None:
        return None
    return (former or b"") + (present or b"")


def _end(path: Path, length: int) -> bytes | None:
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - length))
            return log.read(length)
    except OSError:
        return None
