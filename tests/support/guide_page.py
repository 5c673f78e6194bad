"""The steps of the guide to the feedback loop, as its page names them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from support.paths import ROOT

GUIDE = ROOT / "docs" / "guide" / "feedback-loop.md"


@dataclass(frozen=True)
class Step:
    """Something that the page has its reader do: a ``file``, ``sh``, ``sql``, or a click in ``airflow``."""

    kind: str
    text: str
    path: str = ""


def steps() -> list[Step]:
    """What the walk through the page consists of, in its order."""
    page = GUIDE.read_text().split("\n## ")[1]
    found = []
    for part in re.finditer(
        r"(?:^`([^`]+)`:\n)?^```(\w+)\n(.*?)^```$|^\*\*\d+\. In Airflow\*\*(.*?)\n\n", page, re.M | re.S
    ):
        path, language, text, clicks = part.groups()
        if clicks is not None:
            found.append(Step("airflow", clicks))
        else:
            found.append(Step("file", text, path) if path else Step(language, text))
    return found
