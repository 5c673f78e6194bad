"""Where the JVM parts and the Java runtime are. The launcher fetches them; nothing is fetched here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tidemill.config import Settings
from tidemill.errors import SetupError


def part(settings: Settings, name: str) -> list[Path]:
    """The jars of one part: ``spark``, ``broker`` or ``db``.

    Raises:
        SetupError: the part is not there.
    """
    found = sorted((settings.jars / name).glob("*.jar"))
    if not found:
        raise SetupError(
            f"the JVM part '{name}' is missing",
            value=settings.jars / name,
            remedy="start through ./tidemill, which fetches it, or set TIDEMILL_JARS to a folder that holds it",
        )
    return found


def java_home() -> Path:
    """The Java runtime: ``JAVA_HOME``, else the one on PATH.

    Raises:
        SetupError: there is none.
    """
    given = os.environ.get("JAVA_HOME")
    if given and (Path(given) / "bin" / "java").is_file():
        return Path(given)
    found = shutil.which("java")
    if found is None:
        raise SetupError(
            "no Java runtime found",
            value=given or "neither JAVA_HOME nor PATH has one",
            remedy="start through ./tidemill, or install Java 17 (Debian: openjdk-17-jre-headless)",
        )
    return Path(found).resolve().parents[1]
