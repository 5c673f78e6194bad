"""No test may fail because its machine is slow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT

LEAST_SECONDS = 60
"""A deadline costs nothing where all is well; on a bad day a machine is three times slower."""
A_LOOK_SECONDS = 5
"""What is shorter is no deadline but a look that is repeated, or a wait for something that must not come."""
WAITS = ("join", "wait", "communicate", "result", "flush")
"""Methods whose only argument is how long to wait."""


def short_deadlines(source: str) -> Iterator[str]:
    """The calls of a module that give up after less than a minute."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "wait_until":
            deadlines = node.args[1:2]
        elif name in WAITS:
            deadlines = node.args[:1]
        else:
            deadlines = []
        deadlines += [keyword.value for keyword in node.keywords if keyword.arg in ("timeout", "deadline_seconds")]
        for deadline in deadlines:
            seconds = deadline.value if isinstance(deadline, ast.Constant) else None
            if isinstance(seconds, int | float) and A_LOOK_SECONDS <= seconds < LEAST_SECONDS:
                yield f"line {node.lineno}: {ast.unparse(node)[:100]}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT / "tests"))
)
def test_every_deadline_suits_a_slow_machine(path: Path) -> None:
    """Whatever a test waits for may take a minute at least."""
    assert list(short_deadlines(path.read_text())) == []


@pytest.mark.parametrize(
    "line",
    ["wait_until(ready, 20, 'ready')", "thread.join(10)", "subprocess.run(words, timeout=30)", "future.result(59.5)"],
)
def test_a_short_deadline_would_be_seen(line: str) -> None:
    """The check above can fail, and lets a repeated look and a long deadline pass."""
    assert len(list(short_deadlines(line))) == 1
    assert list(short_deadlines("ended.wait(0.5); wait_until(ready, 60); future.result()")) == []
