"""The paths of the JVM parts and of the Java runtime. The launcher fetches them; this module fetches nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tidemill.config import Settings
from tidemill.errors import SetupError


def part(settings: Settings, name: str) -> list[Path]:
    """The jars of one part: ``spark``, ``broker`` or ``db``.

    Raises:
        SetupError: the folder has no jars, or one that is not the locked one.
    """
    paths = sorted((settings.jars / name).glob("*.jar"))
    if not paths:
        raise SetupError("TM-DEVSTACK-JARS-MISSING", value=settings.jars / name, name=name)
    locked = {path: digest for path, digest in lock().items() if path.startswith(f"{name}/")}
    found = {f"{name}/{path.name}": _sha256(path, path.stat()) for path in paths}
    if wrong := sorted(path for path in locked | found if locked.get(path) != found.get(path)):
        raise SetupError("TM-DEVSTACK-JAR-HASH", value=settings.jars / wrong[0], jars=settings.jars)
    return paths


def lock() -> dict[str, str]:
    """``<part>/<name>.jar`` -> SHA-256 as hexadecimal digits, of every jar that may be used."""
    lines = Path(__file__).with_name("jars.lock").read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, path in (line.split("  ") for line in lines)}


_digests: dict[tuple[Path, int, int, int], str] = {}


def _sha256(path: Path, known_by: os.stat_result) -> str:
    """The SHA-256 of a file; it is read once for as long as it is the same file, of the same time and length."""
    key = (path, known_by.st_ino, known_by.st_mtime_ns, known_by.st_size)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]


def java_home() -> Path:
    """The Java runtime: ``JAVA_HOME``, else the one on PATH.

    Raises:
        SetupError: neither names a Java runtime.
    """
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").is_file():
        return Path(home)
    java = shutil.which("java")
    if java is None:
        raise SetupError("TM-DEVSTACK-JAVA-MISSING", value=home and f"JAVA_HOME={home}")
    return Path(java).resolve().parents[1]
