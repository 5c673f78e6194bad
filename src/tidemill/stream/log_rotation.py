"""The rotation of a driver's log, which the driver does itself, and reading a log across its parts.

The log is the standard output and the standard error of a JVM and its Python process. The launcher opened it in append
mode, and neither process can switch to another file. The log is therefore copied to another file and truncated, as
``copytruncate`` of logrotate does. The parts are ``<log>.1``, the newest, to ``<log>.<kept>``.

Lines that are written between the last check of the file's length and its truncation, within microseconds, are lost.
A line is split only if its writer pauses in the middle of it for longer than 50 ms.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path

LOG = "TIDE_LOG"
"""Environment variable of a driver: the file that its output goes to. It is no setting, hence the other prefix."""
KEPT = 3
"""How many former parts of a log are kept, beside the present one."""
LOOK_BACK_BYTES = 512 * 1024
_PATIENCE_SECONDS = 0.05
_CHASE_SECONDS = 2.0
_CHUNK = 1 << 20


class LogRotator:
    """Bounds one log: its parts have at most ``max_bytes`` and what is written between two checks, ``kept + 1`` times.

    Args:
        path: the log; nothing happens if it is not a plain file on this machine.
        max_bytes: a longer log is rotated.
        kept: how many former parts are kept.
    """

    def __init__(self, path: Path, max_bytes: int, kept: int = KEPT) -> None:
        self.path, self.max_bytes, self.kept = path, max_bytes, kept

    @classmethod
    def of_process(cls, max_bytes: int, environ: Mapping[str, str] | None = None) -> LogRotator | None:
        """The rotator of this process's own log, which its launcher named; None if there is no such variable."""
        named = (os.environ if environ is None else environ).get(LOG)
        return cls(Path(named), max_bytes) if named else None

    def rotate(self) -> bool:
        """Rotate the log if it is too long; returns whether it was. It raises nothing, because no log may end a stream.

        A log that cannot be copied, as on a full disk, is truncated when it has twice its length.
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
        """Rename the parts, removing the oldest; nothing is renamed if the last copy failed and left no newest part."""
        if _part(self.path, 1).exists():
            for number in range(self.kept, 1, -1):
                with suppress(FileNotFoundError):
                    _part(self.path, number - 1).replace(_part(self.path, number))

    def _copy(self, log: FileIO) -> bool:
        """Copy the log to its newest part, up to what is written meanwhile; returns whether that was possible."""
        newest = _part(self.path, 1)
        try:
            with newest.open("wb", buffering=0) as copy:
                _copy_all(log, copy)
        except OSError:
            newest.unlink(missing_ok=True)
            return False
        return True


def _copy_all(log: FileIO, copy: FileIO) -> None:
    """Copy until the end of the log, and of its last line if that is completed in time."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    last, copied = b"", 0
    while True:
        while chunk := log.read(_CHUNK):
            written = copy.write(chunk)
            if written != len(chunk):
                raise OSError("short write")
            last = chunk[-1:]
            copied += len(chunk)
        late = time.monotonic() - deadline
        is_complete = last == b"\n" or late > 0
        # The copying does not wait for ever for a writer that is faster.
        if is_complete and (os.fstat(log.fileno()).st_size == copied or late > _CHASE_SECONDS):
            return
        if not is_complete:
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
