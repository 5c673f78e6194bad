"""The state folder is its owner's alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.private_files import open_to_others
from tidemill.devstack import private_state


@pytest.fixture(autouse=True)
def open_mask() -> Iterator[None]:
    """A process whose files everybody may read and write."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_folder_from_before_is_closed_with_all_that_it_holds(tmp_path: Path) -> None:
    """Files and folders lose the rights of others and keep those of the owner; what comes later has none."""
    state = tmp_path / "state"
    (state / "bin").mkdir(parents=True, mode=0o777)
    (state / "bin" / "program").touch(mode=0o775)
    (state / "airflow.db").touch(mode=0o666)
    assert len(open_to_others(state)) == 4
    private_state.close(state)
    (state / "later").mkdir()
    (state / "later" / "file").touch()
    assert open_to_others(state) == {}
    modes = {path.name: path.stat().st_mode & 0o777 for path in state.rglob("*")}
    assert modes == {"bin": 0o700, "program": 0o700, "airflow.db": 0o600, "later": 0o700, "file": 0o600}


def test_what_a_link_leads_to_is_left_alone(tmp_path: Path) -> None:
    """A file outside of the state folder keeps its mode, though a link in the folder leads there."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "file").touch(mode=0o644)
    state = tmp_path / "state"
    state.mkdir()
    (state / "folder").symlink_to(outside)
    (state / "file").symlink_to(outside / "file")
    private_state.close(state)
    assert ((outside / "file").stat().st_mode & 0o777, outside.stat().st_mode & 0o777) == (0o644, 0o755)
