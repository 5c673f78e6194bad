"""The catalog of errors against the code that raises them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.paths import ROOT
from tidemill import errors
from tidemill.errors import TidemillError, catalog

CLASSES = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def raised(source: str) -> list[tuple[int, str, str | None, frozenset[str] | None]]:
    """Calls of the error classes: line, class, code (None if it is no literal), parameters (None if starred)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES):
            continue
        first = node.args[0] if node.args else None
        code = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
        names = [keyword.arg for keyword in node.keywords]
        parameters = None if None in names else frozenset(str(name) for name in names) - {"value"}
        found.append((node.lineno, node.func.id, code, parameters))
    return found


def faults(path: str, source: str) -> list[str]:
    """Where a module raises what the catalog does not hold, or with other parameters or of another class."""
    found = []
    for line, kind, code, parameters in raised(source):
        message = catalog.messages().get(code or "")
        if message is None:
            found.append(f"{path}:{line}: {kind} without a code of the catalog: {code}")
        elif message.error != kind:
            found.append(f"{path}:{line}: {code} is a {message.error}, raised as {kind}")
        elif parameters is not None and parameters != message.parameters:
            found.append(f"{path}:{line}: {code} takes {sorted(message.parameters)}, given {sorted(parameters)}")
    return found


def modules() -> list[Path]:
    """Modules that may raise errors."""
    package = ROOT / "src" / "tidemill"
    return [path for path in sorted(package.rglob("*.py")) if path.parent != package / "errors"]


def test_every_error_is_raised_as_the_catalog_describes_it() -> None:
    """Code, class and parameters agree; a call that does not would be noticed."""
    found = [fault for path in modules() for fault in faults(str(path.relative_to(ROOT)), path.read_text())]
    assert found == []
    assert faults("x", "StoreError('no code')") != []


def test_every_code_is_used() -> None:
    """The catalog holds no sentence that nothing raises."""
    text = "\n".join(path.read_text() for path in modules())
    assert [code for code in catalog.messages() if f'"{code}"' not in text] == []


@pytest.mark.parametrize("code", catalog.messages())
def test_every_message_is_a_sentence(code: str) -> None:
    """Each renders, in the form that all have: no capital at its beginning, no full stop at its end."""
    message = catalog.find(code)
    kind = CLASSES[message.error]
    assert issubclass(kind, TidemillError)
    error = kind(code, value="the value", **dict.fromkeys(message.parameters, "something"))
    assert re.fullmatch(r"TM(-[A-Z0-9]+){2,}", code)
    assert str(error).startswith(f"[{code}] ")
    assert "{" not in error.sentence
    assert "the value" in error.sentence
    for part in (message.what, message.remedy):
        assert part == part.strip()
        assert not part.endswith((".", ";", ":"))
    assert len(message.what.split()) >= 3 or "{" in message.what
