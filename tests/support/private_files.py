"""What other users of the machine may do with the files of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

OF_OTHERS = 0o077


def open_to_others(folder: Path) -> dict[str, str]:
    """Everything in the folder, itself included, that group or others may read, write or enter, with its mode.

    Links have no mode that counts. Servers make and remove files meanwhile; those are looked at that are there.
    """
    found = {}
    for path in _walk(folder):
        with suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if not path.is_symlink() and mode & OF_OTHERS:
                found[str(path)] = oct(mode & 0o7777)
    return found


def _walk(folder: Path) -> Iterator[Path]:
    yield folder
    for place, folders, names in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *names))
