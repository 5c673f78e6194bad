"""Which MariaDB runs: the newest one that reads the data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.config import Settings
from tidemill.devstack import jars
from tidemill.devstack.servers import mariadb
from tidemill.devstack.servers.mariadb_program import Server, Version, choose, on_the_path, version_in
from tidemill.errors import SetupError


def server(version: Version) -> Server:
    """A server of a version."""
    return Server(version, Path("/usr"), Path("/usr/sbin/mariadbd"))


EMBEDDED = server((11, 4, 5))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("mariadbd  Ver 11.4.5-MariaDB for linux-systemd on x86_64 (MariaDB Server)", (11, 4, 5)),
        ("/usr/sbin/mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)", (10, 11, 19)),
        ("mariadbd  Ver 11.8.3-MariaDB-0+deb13u1 from Debian for debian-linux-gnu on x86_64", (11, 8, 3)),
        ("mariadbd  Ver 12.0.2-MariaDB-ubu2404 for debian-linux-gnu on x86_64 (mariadb.org)", (12, 0, 2)),
        ("mysqld  Ver 8.0.43 for Linux on x86_64 (MySQL Community Server - GPL)", None),
        ("", None),
    ],
)
def test_the_version_is_what_the_program_says(text: str, version: Version | None) -> None:
    """As servers of several distributions print it."""
    assert version_in(text) == version


@pytest.mark.parametrize(
    ("other", "series", "chosen"),
    [
        (None, None, (11, 4, 5)),
        (None, "11.4", (11, 4, 5)),
        ((11, 4, 8), None, (11, 4, 8)),
        ((11, 4, 8), "11.4", (11, 4, 8)),
        ((11, 4, 10), "11.4", (11, 4, 10)),
        ((11, 4, 5), None, (11, 4, 5)),
        ((11, 4, 4), None, (11, 4, 5)),
        ((10, 11, 19), None, (11, 4, 5)),
        ((11, 8, 3), None, (11, 8, 3)),
        ((11, 8, 3), "11.8", (11, 8, 3)),
        ((11, 8, 3), "11.4", (11, 4, 5)),
        ((12, 0, 2), "11.8", None),
        ((10, 11, 19), "11.8", None),
        (None, "11.8", None),
    ],
)
def test_the_newest_server_that_reads_the_data_folder_is_started(
    other: Version | None, series: str | None, chosen: Version | None
) -> None:
    """An older one on the PATH is not used, and data stays with the series that made it."""
    found = server(other) if other else None
    if chosen is None:
        with pytest.raises(SetupError, match="TM-DEVSTACK-MARIADB-SERIES") as refused:
            choose(EMBEDDED, found, series)
        assert refused.value.value == series
    else:
        assert choose(EMBEDDED, found, series).version == chosen


def test_the_program_on_the_path_is_asked_itself(
    own: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link leads to the folder that the server belongs to. The embedded one has the version that is stated for it."""
    base = mariadb.unpack(jars.part(own, "db")[0], own.state)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mariadbd").symlink_to(base / "bin" / "mariadbd")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = on_the_path()
    assert found == Server(mariadb.EMBEDDED, base, base / "bin" / "mariadbd")
    assert mariadb.server_of(own) == found


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho mysqld Ver 8.0.43\n", "no program"])
def test_what_is_no_mariadb_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Nor what does not answer, or cannot be executed."""
    path = tmp_path / "mariadbd"
    path.write_text(program)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert on_the_path() is None
