"""A small pipeline of its own for every test of the write path, on the real database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.writes import Writer, make_writer
from tidemill.config import Settings


@pytest.fixture
def number_of_histories(pytestconfig: pytest.Config) -> int:
    """How many histories to play: a few in every run, thousands in a full one."""
    return int(pytestconfig.getoption("histories") or (4000 if pytestconfig.getoption("full") else 80))


@pytest.fixture
def entity(mariadb: Settings, tmp_path: Path) -> Iterator[Writer]:
    """A writer of an entity table, versioned by ``seen``."""
    writer = make_writer(mariadb, tmp_path, "entity")
    yield writer
    writer.connection.close()


@pytest.fixture
def event(mariadb: Settings, tmp_path: Path) -> Iterator[Writer]:
    """A writer of an event table."""
    writer = make_writer(mariadb, tmp_path, "event")
    yield writer
    writer.connection.close()
