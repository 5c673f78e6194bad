"""The overview of the stack while ``up`` runs: a live table in a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from tidemill.devstack.describe import describe_model, describe_stream

LINE_SECONDS = 5.0


class Playing(Protocol):
    """The progress of a feed."""

    topic: str
    played: int
    total: int


class Lines:
    """For a pipe or a file: the lines that have changed, at most every ``LINE_SECONDS``."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._reported: list[str] = []
        self._at = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, facts: dict[str, Any]) -> None:
        """Report the lines that are new."""
        lines = _describe(facts)
        if lines != self._reported and time.monotonic() - self._at >= LINE_SECONDS:
            for line in lines:
                if line not in self._reported:
                    self._report(line)
            self._reported, self._at = lines, time.monotonic()


class Live:
    """For a terminal: a table that is updated in its place."""

    def __init__(self, out: Console, feeds: Sequence[Playing]) -> None:
        self.feeds = feeds
        self._live = RichLive(console=out, refresh_per_second=4)

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def update(self, facts: dict[str, Any]) -> None:
        """Show the facts."""
        grid = Table.grid(padding=(0, 2))
        for row in facts["streams"]:
            for name, value in _figures(row):
                grid.add_row(Text(name, style="dim"), value)
        lines = [Text(f"feed {feed.topic}: {feed.played:,} of {feed.total:,} records") for feed in self.feeds]
        lines += [Text(describe_model(row)) for row in facts["models"]]
        lines += [Text(sentence, style="red") for sentence in facts["problems"]]
        urls = Text(
            f"Airflow {facts['airflow']}   console {facts['airflow']}/tidemill/   (Ctrl-C stops the stack)",
            style="dim",
        )
        self._live.update(Group(*lines, grid, urls))


def _figures(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("stream", f"{row['stream']}: {row['state']}"),
        ("records in Kafka", _count(row["records_in_kafka"])),
        ("rows", ", ".join(f"{name} {count:,}" for name, count in row["rows"].items())),
        ("lag in records", _count(row["lag_records"])),
        ("behind", _span(row["behind_seconds"])),
        ("freshness", _span(row["freshness_seconds"])),
        ("commits", f"{row['commits']:,}"),
        ("quarantined", f"{row['quarantined']:,}"),
    ]


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _span(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:.1f} s"


def _describe(facts: dict[str, Any]) -> list[str]:
    lines = [describe_stream(row) for row in facts["streams"]]
    lines += [describe_model(row) for row in facts["models"]]
    return [*lines, *facts["problems"]]
