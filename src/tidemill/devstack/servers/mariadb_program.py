"""Which MariaDB runs: the embedded one, or a newer one that the machine has.

The embedded one is the newest that is published as a jar. A person who installs a newer one gets its security fixes
without a setting: the newest ``mariadbd`` wins that is known to read the data folder.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tidemill.errors import SetupError

Version = tuple[int, int, int]

_VERSION = re.compile(r"\bVer (\d+)\.(\d+)\.(\d+)-MariaDB\b")
_INSTALL = ("scripts/mariadb-install-db", "bin/mariadb-install-db")
_ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """A MariaDB that can be started."""

    version: Version
    base: Path
    """Its ``basedir``."""
    program: Path

    @property
    def series(self) -> str:
        """``11.4``: releases of one series read each other's data folders."""
        return series_of(self.version)

    @property
    def install(self) -> str:
        """The script that makes a data folder, relative to the base."""
        return next((name for name in _INSTALL if (self.base / name).is_file()), _INSTALL[0])


def series_of(version: Version) -> str:
    """The series of a version."""
    return f"{version[0]}.{version[1]}"


def version_in(text: str) -> Version | None:
    """The version in what ``mariadbd --version`` prints; None for MySQL and everything else."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def choose(embedded: Server, other: Server | None, series: str | None) -> Server:
    """The server to start.

    Args:
        embedded: the one of the jar.
        other: the one on the PATH, None if there is none.
        series: of the server that made the data folder, None if there is no data folder yet. A later series would
            change the folder so that an earlier one cannot read it any more, hence only this one is started on it.

    Raises:
        SetupError: neither is of the data folder's series.
    """
    newest_first = [other, embedded] if other is not None and other.version > embedded.version else [embedded]
    for server in newest_first:
        if series in (None, server.series):
            return server
    raise SetupError("TM-DEVSTACK-MARIADB-SERIES", value=series)


def on_the_path() -> Server | None:
    """The ``mariadbd`` on the PATH; None if there is none, or it lacks what makes a data folder."""
    found = shutil.which("mariadbd")
    if found is None:
        return None
    program = Path(found).resolve()
    try:
        # --no-defaults comes first, and keeps the machine's own configuration out.
        answer = subprocess.run(
            [program, "--no-defaults", "--version"], capture_output=True, encoding="utf-8", errors="replace",
            check=False, stdin=subprocess.DEVNULL, timeout=_ANSWER_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = version_in(answer.stdout)
    server = Server(version, program.parents[1], program) if version and answer.returncode == 0 else None
    return server if server is not None and (server.base / server.install).is_file() else None
