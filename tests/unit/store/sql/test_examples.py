"""Every module of the generator opens with an example of what it renders."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from support.sql_text import flat, readable
from tidemill.store import sql
from tidemill.store.sql import DIALECTS

GOLDEN = Path(__file__).parent / "golden"
MODULES = sorted(module.name for module in pkgutil.iter_modules(sql.__path__))


def examples(docstring: str) -> list[str]:
    """The indented blocks of a docstring that follow a line which ends with two colons."""
    return [match[1] for match in re.finditer(r"::\n\n((?:    .*\n|\n)+)", docstring + "\n")]


@pytest.mark.parametrize("name", MODULES)
def test_the_example_is_what_is_rendered(name: str) -> None:
    """A statement is in the golden file of its dialect, line by line; an expression is evaluated."""
    module = importlib.import_module(f"tidemill.store.sql.{name}")
    found = examples(module.__doc__ or "")
    assert found
    golden = (GOLDEN / f"{name if name in DIALECTS else 'mariadb'}.sql").read_text()
    for example in found:
        if ">>>" not in example:
            assert flat(example) in flat(golden)
    assert doctest.testmod(module).failed == 0


def test_a_wrong_example_would_be_seen() -> None:
    """One that is not in the golden file, and one that gives something else."""
    golden = flat((GOLDEN / "mariadb.sql").read_text())
    assert flat("DELETE s\n    FROM `data`.`_stage_clicks` AS s") in golden
    assert flat("DELETE s\n    FROM `data`.`_stage_click` AS s") not in golden


def test_line_breaks_change_nothing() -> None:
    """Text in quotes keeps its spaces; a statement is the same in one line and in many."""
    statement = "SELECT a, 'x  FROM y' AS `b WHERE` FROM (SELECT * FROM t WHERE a IN (1) AND b = 'FROM') AS d LIMIT 1"
    assert readable(statement).splitlines() == [
        "SELECT a, 'x  FROM y' AS `b WHERE`",
        "FROM (SELECT *",
        "    FROM t",
        "    WHERE a IN (1) AND b = 'FROM') AS d",
        "LIMIT 1",
    ]
    assert flat(readable(statement)) == flat(statement)
    long = "SELECT " + ", ".join(f"column_{number}" for number in range(40)) + " FROM t"
    assert max(map(len, readable(long).splitlines())) <= 110
    assert flat(readable(long)) == long
