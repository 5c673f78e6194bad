"""Removes files whose owner has ended: scratch folders of former drivers, interrupted bulk loads, old logs.

No file is removed that a running process may use: a driver's processes are recognised by the mark in their environment,
a bulk-load file by being open, and every young file is kept.
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
from tidemill.processes import carriers
from tidemill.supervisor.launcher import DRIVER_MARK, driver_mark

YOUNG_SECONDS = 3_600.0
"""A file that was changed more recently than this counts as in use, whichever process made it."""
_SCRATCH = re.compile(r"^(?P<stream>[a-z][a-z0-9_]*)-(?P<epoch>\d+)-\w+$")
_LOG = re.compile(r"^(?P<stream>[a-z][a-z0-9_]*)-(?P<epoch>\d+)\.log(?:\.\d+)?$")
"""A driver's log and its former parts."""


@dataclass
class RemovedFiles:
    """How many were removed, or would be."""

    scratch_folders: int = 0
    bulk_files: int = 0
    logs: int = 0
    check_results: int = 0
    """Cached results of checking pipeline folders."""


def remove_stale_files(settings: Settings, epochs: Mapping[str, int], *, dry_run: bool = False) -> RemovedFiles:
    """Remove the files that former drivers of this machine have left.

    Args:
        settings: the state folder, and for how many days logs are kept.
        epochs: stream -> its epoch now; only files of older epochs are removed.
        dry_run: only count.
    """
    scratch = [*_old_scratch(settings.state / "scratch", epochs)]
    bulk = [*_old_bulk_files({Path("/dev/shm"), Path(tempfile.gettempdir())})]  # noqa: S108 -- read, not made here
    logs = [*_old_logs(settings.state / "logs" / "streams", epochs, settings.log_days)]
    # A result that is still of use is computed again when its folder is checked next.
    check_results = [
        path for path in _within(settings.state / "checked") if _is_older(path, settings.log_days * 86_400)
    ]
    if not dry_run:
        for folder in scratch:
            shutil.rmtree(folder, ignore_errors=True)
        for file in (*bulk, *logs, *check_results):
            file.unlink(missing_ok=True)
    return RemovedFiles(len(scratch), len(bulk), len(logs), len(check_results))


def _old_scratch(folder: Path, epochs: Mapping[str, int]) -> Iterator[Path]:
    """Scratch folders of former epochs whose driver has no running process any more."""
    matches = [(path, match) for path in _within(folder) if (match := _SCRATCH.match(path.name)) and path.is_dir()]
    running = {mark for _, mark in carriers(DRIVER_MARK)} if matches else set()
    for path, match in matches:
        stream, epoch = match["stream"], int(match["epoch"])
        is_former = epoch < epochs.get(stream, 0)
        if is_former and driver_mark(stream, epoch) not in running and _is_older(path, YOUNG_SECONDS):
            yield path


def _old_bulk_files(folders: Iterable[Path]) -> Iterator[Path]:
    """Files of bulk loads: each lives for one statement, and only processes of this account can have it open."""
    old = [
        path
        for folder in folders
        for path in folder.glob("tidemill-*.tsv")
        if _is_own_file(path) and _is_older(path, YOUNG_SECONDS)
    ]
    used = _open_files() if old else set()
    return (path for path in old if str(path) not in used)


def _open_files() -> set[str]:
    used = set()
    for process in psutil.process_iter():
        try:
            used |= {file.path for file in process.open_files()}
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return used


def _old_logs(folder: Path, epochs: Mapping[str, int], days: int) -> Iterator[Path]:
    for path in _within(folder):
        match = _LOG.match(path.name)
        # A stream that the control plane does not know has no driver that writes.
        former = match is not None and int(match["epoch"]) != epochs.get(match["stream"], -1)
        if former and _is_older(path, days * 86_400):
            yield path


def _within(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_own_file(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid()


def _is_older(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > seconds
    except OSError:
        return False  # it was removed meanwhile
