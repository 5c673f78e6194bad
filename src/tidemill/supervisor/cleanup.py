"""Files whose owner is gone: scratch folders of former drivers, bulk loads that were cut short, old logs.

Nothing is touched that a living process may use: a driver is known by the mark in its environment, a file by being
open, and whatever is young is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tidemill.config import Settings
from tidemill.processes import environment_of
from tidemill.supervisor.launcher import DRIVER_MARK

YOUNG_SECONDS = 3_600.0
"""What was changed later than this ago is in use, whoever made it."""
_SCRATCH = re.compile(r"^(?P<stream>[a-z][a-z0-9_]*)-(?P<epoch>\d+)-\w+$")
_LOG = re.compile(r"^(?P<stream>[a-z][a-z0-9_]*)-(?P<epoch>\d+)\.log(?:\.\d+)?$")
"""A driver's log and its former parts."""


@dataclass
class RemovedFiles:
    """How many were removed, or would be."""

    scratch_folders: int = 0
    bulk_files: int = 0
    logs: int = 0
    marks: int = 0
    """Of pipeline folders that were found right."""


def remove_stale_files(settings: Settings, epochs: Mapping[str, int], *, dry_run: bool = False) -> RemovedFiles:
    """Remove what former drivers of this machine have left.

    Args:
        settings: the state folder, and how long logs stay.
        epochs: stream -> its epoch now; only files of older ones are touched.
        dry_run: only count.
    """
    scratch = [*_old_scratch(settings.state / "scratch", epochs)]
    bulk = [*_old_bulk_files({Path("/dev/shm"), Path(tempfile.gettempdir())})]  # noqa: S108 -- read, not made here
    logs = [*_old_logs(settings.state / "logs" / "streams", epochs, settings.log_days)]
    # One that is still of use is made again, by looking at its folder once more.
    marks = [path for path in _within(settings.state / "checked") if _is_older(path, settings.log_days * 86_400)]
    if not dry_run:
        for folder in scratch:
            shutil.rmtree(folder, ignore_errors=True)
        for file in (*bulk, *logs, *marks):
            file.unlink(missing_ok=True)
    return RemovedFiles(len(scratch), len(bulk), len(logs), len(marks))


def _old_scratch(place: Path, epochs: Mapping[str, int]) -> Iterator[Path]:
    """Folders of epochs that are over and have no living process any more."""
    found = [(path, match) for path in _within(place) if (match := _SCRATCH.match(path.name)) and path.is_dir()]
    alive = _living_drivers() if found else set()
    for path, match in found:
        stream, epoch = match["stream"], int(match["epoch"])
        if epoch < epochs.get(stream, 0) and f"{stream}/{epoch}" not in alive and _is_older(path, YOUNG_SECONDS):
            yield path


def _living_drivers() -> set[str]:
    """The marks of all driver processes of this machine."""
    marks = set()
    for process in psutil.process_iter():
        try:
            marks.add(environment_of(process).get(DRIVER_MARK, ""))
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # it ended while we looked, or belongs to somebody else, as no driver of ours does
    return marks


def _old_bulk_files(places: Iterable[Path]) -> Iterator[Path]:
    """Files of bulk loads: each lives for one statement, and this account's processes alone can have it open."""
    found = [
        path
        for place in places
        for path in place.glob("tidemill-*.tsv")
        if _is_own_file(path) and _is_older(path, YOUNG_SECONDS)
    ]
    used = _open_files() if found else set()
    return (path for path in found if str(path) not in used)


def _open_files() -> set[str]:
    used = set()
    for process in psutil.process_iter():
        try:
            used |= {file.path for file in process.open_files()}
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return used


def _old_logs(place: Path, epochs: Mapping[str, int], days: int) -> Iterator[Path]:
    for path in _within(place):
        match = _LOG.match(path.name)
        # A stream that nobody knows has no driver that writes.
        former = match is not None and int(match["epoch"]) != epochs.get(match["stream"], -1)
        if former and _is_older(path, days * 86_400):
            yield path


def _within(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if place.is_dir() else []


def _is_own_file(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()


def _is_older(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > seconds
    except OSError:
        return False  # it went meanwhile
