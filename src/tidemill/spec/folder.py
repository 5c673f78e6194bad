"""The files of a pipeline's folder: which of them make up its version, and their digest.

Everything that the product can read or import counts, also in subfolders: an estimator's packages with their
``__init__.py``, and data beside them. Python's caches of bytecode do not, because running the pipeline writes them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePath

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
        digest.update(f"{file.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
