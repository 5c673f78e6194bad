"""The files of a pipeline's folder: which of them make up its version, and their digest.

Everything that the product can read or import counts, also in subfolders: an estimator's packages with their
``__init__.py``, and data beside them. Python's caches of bytecode do not, because running the pipeline writes them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePath

from tidemill.errors import SpecError

_BYTECODE = "__pycache__"


def is_versioned(file: PurePath) -> bool:
    """Whether a file is part of the pipeline's version, that is of the digest and of snapshots.

    Args:
        file: path relative to the pipeline's folder.
    """
    # ``..`` begins with a dot, so that paths that lead out of the folder count as hidden.
    is_excluded = any(part.startswith(".") or part == _BYTECODE for part in file.parts)
    return bool(file.parts) and not file.is_absolute() and file.parts[0] != "cases" and not is_excluded


def files_of(folder: Path) -> list[Path]:
    """The files that make up the pipeline's version, relative to its folder and sorted: all but ``cases/``, hidden ones
    and cached bytecode."""
    files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [file for file in files if is_versioned(file)]


def digest_of(folder: Path) -> str:
    """SHA-256 over the names and contents of the files that make up the pipeline's version."""
    digest = hashlib.sha256()
    for file in files_of(folder):
        content = (folder / file).read_bytes()
        # The bytes of the name: as text they depend on the locale.
        digest.update(os.fsencode(file.as_posix()) + f"\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def file_of(folder: Path, name: str) -> Path:
    """A file of the folder by the name that pipeline.yaml gives it, which is UTF-8 on disk in every locale."""
    return folder / os.fsdecode(name.encode())


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8, with or without a byte order mark; every line ends with a line feed.

    Raises:
        SpecError: it is in another encoding; names the line.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if b"\0" in content:  # UTF-16 or UTF-32, in which every other byte of Latin text is zero
        raise _not_utf8(path, content, content.index(0))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, content, error.start) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _not_utf8(path: Path, content: bytes, position: int) -> SpecError:
    line = content.count(b"\n", 0, position) + 1
    return SpecError("TM-SPEC-NOT-UTF-8", value=f"byte 0x{content[position]:02X}", path=path, line=line)
