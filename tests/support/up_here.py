"""``./tidemill up`` in the test's own process, on the stack that the session has started."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

import pytest

from tidemill.cli import main as cli
from tidemill.config import Settings
from tidemill.devstack import up


class _SharedStack:
    """Replaces the stack that ``up`` would start and stop."""

    def __init__(self, settings: Settings) -> None:
        self.before_stop: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is stopped, streams included."""

    def start(self, report: Callable[[str], None]) -> None:
        """Everything runs already."""

    def watch(self, report: Callable[[str], None]) -> None:
        """The test decides what is started again."""


class Up(threading.Thread):
    """One run of the command, beside which the test does what it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
        super().__init__(name="up", daemon=True)
        monkeypatch.setattr(up, "Stack", _SharedStack)
        monkeypatch.setattr("sys.argv", ["tidemill", "up", *options])
        self.exit_code: int | str | None = None

    def run(self) -> None:
        try:
            cli.main()
        except SystemExit as left:
            self.exit_code = left.code
