"""The state folder belongs to its owner alone: it holds secrets, records of the topics and their rows."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO
UMASK = _OF_OTHERS
"""The file mode creation mask of the stack's processes: what they create has mode 0600, folders 0700."""


def close(state: Path) -> None:
    """Make the state folder, take from other users what they may do with anything in it, and keep it so.

    The mask is a property of the process, and its children inherit it: the servers, Airflow's tasks and the drivers
    that those start. Files from before, by a version or a program that had another mask, are changed here.

    Raises:
        OSError: the folder cannot be made, or something in it belongs to another user.
    """
    os.umask(UMASK)
    state.mkdir(parents=True, exist_ok=True)
    _close(state)
    for folder, folders, files in os.walk(state):
        for name in (*folders, *files):
            _close(Path(folder, name))


def _close(path: Path) -> None:
    with suppress(FileNotFoundError):  # a process that an earlier stack has left removes its own files meanwhile
        mode = path.lstat().st_mode
        # A link has no mode of its own, and what it leads to may be outside.
        if mode & _OF_OTHERS and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~_OF_OTHERS)
