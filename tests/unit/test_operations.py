"""The operations handbook knows every kind of incident that the code can open."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tidemill import config

ROOT = config.load({}).root
ASKS = ("**Means**", "**The platform already did**", "**A person does**")
_OPENER = ("open_incident", 2)
"""The function that opens an incident, and which of its arguments is the kind."""


def constants(trees: Mapping[str, ast.Module]) -> dict[str, str]:
    """Module-level names of text, of all modules: a kind's name means the same everywhere."""
    found: dict[str, str] = {}
    for tree in trees.values():
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                found |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    return found


def kinds(trees: Mapping[str, ast.Module]) -> set[str]:
    """Every kind that an incident is opened with; a value in a kind is replaced by its name in capitals."""
    known = constants(trees)
    return {kind for module, tree in trees.items() for kind in _kinds_in(module, tree, known)}


def _kinds_in(module: str, tree: ast.Module, known: Mapping[str, str]) -> Iterator[str]:
    openers = dict([_OPENER])
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for _ in functions:  # a function that hands its argument on is one that opens: until no more are found
        for function in functions:
            names = [argument.arg for argument in function.args.args]
            for _, kind in _calls(function, openers):
                if isinstance(kind, ast.Name) and kind.id in names:
                    openers.setdefault(function.name, names.index(kind.id))
    handed_on = {function.name for function in functions} & set(openers)
    for function in functions:
        names = [argument.arg for argument in function.args.args]
        for line, kind in _calls(function, openers):
            if isinstance(kind, ast.Name) and kind.id in names and function.name in handed_on:
                continue
            yield _text(kind, known, f"{module}:{line}")


def _calls(function: ast.FunctionDef, openers: Mapping[str, int]) -> Iterator[tuple[int, ast.expr]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in openers:
                by_name = [keyword.value for keyword in node.keywords if keyword.arg == "kind"]
                yield node.lineno, (by_name or node.args[openers[name] :])[0]


def _text(kind: ast.expr, known: Mapping[str, str], place: str) -> str:
    name = kind.attr if isinstance(kind, ast.Attribute) else getattr(kind, "id", None)
    if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
        return kind.value
    if isinstance(kind, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else ast.unparse(part.value).upper()  # type: ignore[attr-defined]
            for part in kind.values
        )
    if name in known:
        return known[name]
    raise AssertionError(f"{place} opens an incident of a kind that is not known before it runs: {ast.unparse(kind)}")


def pages(text: str) -> dict[str, str]:
    """The pages of incidents, by heading."""
    part = text.split("\n# Incidents\n", 1)[1].split("\n# ", 1)[0]
    found = re.split(r"^## (.+)$", part, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """The package's code."""
    files = (ROOT / "src" / "tidemill").rglob("*.py")
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in files}


@pytest.fixture(scope="module")
def handbook() -> str:
    """The text of docs/operations.md."""
    return (ROOT / "docs" / "operations.md").read_text()


def test_there_is_one_page_for_each_kind_of_incident(trees: dict[str, ast.Module], handbook: str) -> None:
    """Neither is one missing nor is one left of a kind that is no more."""
    assert kinds(trees) == set(pages(handbook))


def test_each_page_states_what_it_means_what_was_done_and_what_a_person_does(handbook: str) -> None:
    """In this order, each once, and each with something after it."""
    for kind, text in pages(handbook).items():
        places = [text.find(asked) for asked in ASKS]
        assert places == sorted(places), kind
        assert -1 not in places, kind
        assert all(text.count(asked) == 1 for asked in ASKS), kind
        assert all(len(answer.split()) >= 5 for answer in re.split("|".join(map(re.escape, ASKS)), text)[1:]), kind


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('def f(c):\n open_incident(c, "stream x", "flood", "…")', {"flood"}),
        ('EBB = "ebb"\ndef f(c):\n control.open_incident(c, s, EBB, "…")', {"ebb"}),
        ('EBB = "ebb"\ndef f(c):\n control.open_incident(c, s, control.EBB, "…")', {"ebb"}),
        ('def f(c, name):\n open_incident(c, s, f"check {name}", "…")', {"check NAME"}),
        (
            'def report(c, kind):\n open_incident(c, s, kind, "…")\ndef f(c):\n report(c, "a")\n report(c, kind="b")',
            {"a", "b"},
        ),
        ("def f(c, kind):\n kind = kind.lower()\n return kind", set()),
    ],
)
def test_the_kinds_are_found_however_they_are_written(code: str, found: set[str]) -> None:
    """So that a new kind without a page fails the first test here."""
    assert kinds({"module": ast.parse(code)}) == found


def test_a_kind_that_is_computed_fails() -> None:
    """Rather than to pass for one that has a page."""
    with pytest.raises(AssertionError, match="module:2 opens an incident of a kind that is not known before it runs"):
        kinds({"module": ast.parse("def f(c):\n open_incident(c, s, kind_of(c), '…')")})


def test_every_link_within_the_handbook_leads_somewhere(handbook: str) -> None:
    """To a heading, or to a file that is there."""
    headings = re.findall(r"^#+ (.+)$", handbook, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", handbook):
        file, _, anchor = target.partition("#")
        assert not file or (ROOT / "docs" / Path(file)).exists(), target
        assert file or anchor in anchors, target
