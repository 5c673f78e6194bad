"""The sentences of all errors, by code; read from ``messages/*.toml`` when the first error is raised.

One file for each room. An entry::

    ["TM-KAFKA-TOPIC-MISSING"]
    error = "SourceError"
    what = "topic {topic} does not exist"
    remedy = "create it with ./tidemill apply {pipeline}"

``what`` and ``remedy`` name their parameters in braces, which the call that raises it gives by keyword. The value that
is wrong is given as ``value`` and is shown after ``what``; it is no parameter. A remedy may be left out only where
there is nothing that a person could do.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Formatter


@dataclass(frozen=True)
class Message:
    """One entry of the catalog."""

    error: str
    """Name of the class in :mod:`tidemill.errors`."""
    what: str
    remedy: str = ""

    @property
    def parameters(self) -> frozenset[str]:
        """The names in braces."""
        parsed = (*Formatter().parse(self.what), *Formatter().parse(self.remedy))
        return frozenset(name.partition(".")[0].partition("[")[0] for _, name, _, _ in parsed if name)


@cache
def messages() -> dict[str, Message]:
    """Every entry, by code.

    Raises:
        ValueError: a code is in two files.
    """
    found: dict[str, Message] = {}
    for entry in sorted(files(__package__).joinpath("messages").iterdir(), key=lambda each: each.name):
        if not entry.name.endswith(".toml"):
            continue
        for code, fields in tomllib.loads(entry.read_text(encoding="utf-8")).items():
            if code in found:
                raise ValueError(f"{code} is in two files of the catalog")
            found[code] = Message(**fields)
    return found


def find(code: str) -> Message:
    """The entry of a code.

    Raises:
        KeyError: the catalog has none; a test compares every call with the catalog.
    """
    return messages()[code]


@dataclass(frozen=True)
class Parsed:
    """What an error was made from."""

    code: str
    value: str | None
    parameters: dict[str, str]


def parse(text: str) -> Parsed | None:
    """Read an error back from its rendered sentence, which is all that some programs pass on of an exception.

    Where values contain the punctuation of a sentence, the split between them may differ; what is rendered from the
    result is the same text in any case.

    Returns:
        None if the text is no message of the catalog, or not a whole one.
    """
    head = re.match(r"\[(TM-[A-Z0-9-]+)\] ", text)
    message = messages().get(head[1]) if head else None
    if head is None or message is None:
        return None
    pattern = _pattern(message.what, set()) + r"(?:: (?P<value>.*?))?"
    if message.remedy:
        pattern += "; " + _pattern(message.remedy, set(_names(message.what)))
    match = re.fullmatch(pattern, text[head.end() :], re.DOTALL)
    if match is None:
        return None
    parameters = match.groupdict()
    return Parsed(head[1], parameters.pop("value"), parameters)


def _names(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name]


def _pattern(template: str, known: set[str]) -> str:
    """A regular expression for what a template renders; ``known`` are the groups that are defined before it."""
    pattern = ""
    for literal, name, _, _ in Formatter().parse(template):
        pattern += re.escape(literal)
        if name:
            pattern += f"(?P={name})" if name in known else f"(?P<{name}>.*?)"
            known.add(name)
    return pattern
