"""No locale changes what a file means: text is read and written in an encoding that the call names."""

from __future__ import annotations

import ast

import pytest

from support.paths import ROOT

SHIPPED = ("src", "dags", "plugins", "spark_jobs")
TEXT_MODES = frozenset("rwax+t")
"""The letters of a mode that opens a file as text."""


def follows_the_locale(call: ast.Call) -> bool:
    """Whether a call reads or writes text in the encoding of the locale."""
    names = {keyword.arg for keyword in call.keywords}
    if names & {"encoding", None}:
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    match name:
        case "read_text":
            follows = not call.args
        case "write_text":
            follows = len(call.args) < 2
        case "open" | "fdopen" | "NamedTemporaryFile" | "TemporaryFile":
            follows = _opens_text(name, call)
        case "run" | "Popen" | "check_output" | "check_call" | "call":
            follows = bool(names & {"text", "universal_newlines"})
        case _:
            follows = name in ("TextIOWrapper", "getoutput", "getstatusoutput", "getpreferredencoding")
    return follows


def _opens_text(name: str, call: ast.Call) -> bool:
    if ast.unparse(call.func) == "os.open":
        return False
    mode = next((keyword.value for keyword in call.keywords if keyword.arg == "mode"), None)
    constants = [
        arg.value for arg in (*call.args, mode) if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
    ]
    modes = [text for text in constants if text and set(text) <= TEXT_MODES | {"b"}]
    if name.endswith("TemporaryFile"):
        return any("b" not in each for each in modes)
    return not any("b" in each for each in modes)


def locale_dependent(path: str, source: str) -> list[str]:
    """Where a module follows the locale."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [f"{path}:{call.lineno}: {ast.unparse(call)[:80]}" for call in calls if follows_the_locale(call)]


def test_every_text_file_names_its_encoding() -> None:
    """Each call of the product that reads or writes text says in which encoding."""
    modules = [path for folder in SHIPPED for path in sorted((ROOT / folder).rglob("*.py"))]
    found = [
        fault
        for path in modules
        for fault in locale_dependent(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "call",
    [
        "path.read_text()",
        "path.write_text(text)",
        "open(path)",
        "path.open('w')",
        "os.fdopen(descriptor, 'w')",
        "tempfile.NamedTemporaryFile('w')",
        "subprocess.run(argv, text=True)",
        "io.TextIOWrapper(stream)",
    ],
)
def test_a_call_that_follows_the_locale_would_be_seen(call: str) -> None:
    """Each form of such a call is found, and is none once it names the encoding."""
    assert locale_dependent("x", call) != []
    named = call.removesuffix(")") + ("" if call.endswith("()") else ", ") + "encoding='utf-8')"
    assert locale_dependent("x", named) == []


@pytest.mark.parametrize("call", ["path.open('rb')", "os.open(path, flags)", "open(path, mode='ab')", "run(argv)"])
def test_bytes_follow_no_locale(call: str) -> None:
    """What reads or writes bytes needs no encoding."""
    assert locale_dependent("x", call) == []
