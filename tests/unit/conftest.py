"""What takes long and needs nobody is begun with the first test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT


@pytest.fixture(scope="session", autouse=True)
def type_check(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str] | None]:
    """mypy, at work beside the other tests, where its own test is among them."""
    if not any(item.name == "test_every_type_is_known" for item in request.session.items):
        yield None
        return
    checking = subprocess.Popen(
        [str(Path(sys.executable).with_name("mypy"))],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    yield checking
    checking.kill()
    checking.communicate()
