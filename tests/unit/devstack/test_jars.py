"""The jars that servers are started from are those of the lock."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.paths import ROOT
from tidemill.config import Settings
from tidemill.devstack import jars
from tidemill.devstack.stack import Stack
from tidemill.errors import SetupError


@pytest.fixture
def linked(own: Settings, tmp_path: Path) -> Settings:
    """A folder of jars whose files are links to the real ones."""
    for part in ("broker", "db"):
        (tmp_path / "jars" / part).mkdir(parents=True)
        for path in jars.part(own, part):
            (tmp_path / "jars" / part / path.name).symlink_to(path)
    return own.model_copy(update={"jars": tmp_path / "jars", "state": tmp_path / "state"})


@pytest.mark.parametrize("change", ["other content", "missing", "unknown"])
@pytest.mark.parametrize(("part", "server"), [("broker", "kafka"), ("db", "mariadb")])
def test_no_server_is_started_from_another_jar(linked: Settings, part: str, server: str, change: str) -> None:
    """Also if the jar was the locked one before; Kafka would load whatever is in its folder."""
    first = jars.part(linked, part)[0]
    wrong = first.with_name("another-1.jar") if change == "unknown" else first
    if change == "missing":
        for path in jars.part(linked, part):  # a folder without any has a sentence of its own
            path.rename(path.with_name(f"z{path.name}"))
    elif change == "other content":
        content = bytearray(first.read_bytes())
        content[len(content) // 2] ^= 1
        first.unlink()
        first.write_bytes(content)
    else:
        wrong.write_bytes(b"PK")
    with pytest.raises(SetupError) as refused:
        Stack(linked, parts=[server]).start()
    assert (refused.value.code, refused.value.value) == ("TM-DEVSTACK-JAR-HASH", wrong)
    assert not (linked.state / "logs").exists()
    assert not list(linked.state.glob("mariaDB*"))


def test_the_lock_has_every_jar_that_is_asked_for() -> None:
    """With its version, and in the part that it is asked for."""
    asked = ElementTree.parse(ROOT / "src" / "tidemill" / "devstack" / "ivy.xml").iter("dependency")  # noqa: S314 -- ours
    names = {f"{each.get('conf', '').split('-')[0]}/{each.get('name')}-{each.get('rev')}.jar" for each in asked}
    assert len(names) == 6
    assert names <= set(jars.lock())
    assert all(len(digest) == 64 for digest in jars.lock().values())
