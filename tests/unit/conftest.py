"""What takes long and needs nobody is begun with the first test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def type_check(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str] | None]:
    """mypy, at work beside the other tests, where its own test is among them."""
    if not any("type_check" in item.function.__code__.co_varnames for item in _functions(request.session)):
        yield None
        return
    checking = subprocess.Popen(
        [str(Path(sys.executable).with_name("mypy"))],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    yield checking
    checking.kill()
    checking.communicate()


def _functions(session: pytest.Session) -> Iterator[pytest.Function]:
    return (item for item in session.items if isinstance(item, pytest.Function))
