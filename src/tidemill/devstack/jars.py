"""The paths of the JVM parts and of the Java runtime. The launcher fetches them; this module fetches nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tidemill.config import Settings
from tidemill.errors import SetupError


def part(settings: Settings, name: str) -> list[Path]:
    """The jars of one part: ``spark``, ``broker`` or ``db``.

    Raises:
        SetupError: the folder has no jars.
    """
    paths = sorted((settings.jars / name).glob("*.jar"))
    if not paths:
        raise SetupError("TM-DEVSTACK-JARS-MISSING", value=settings.jars / name, name=name)
    return paths


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
