"""The words of the project: the field's terms in plain present-day English. A banned word has its reason beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.paths import ROOT

BANNED = {
    r"wish|wishes|wished|wishing|wanted": "a stream has a desired state; a person requests it",
    r"withdraw|withdraws|withdrawn": "request a stop",
    r"tell|tells|told|telling|untold|news": "notify; notified; pending; events",
    r"say|says|said|saying": "programs report, print, log or return; documents state",
    r"heed|heeds|heeded": "handle",
    r"hindsight": "look-ahead (a feature that reads what was known later)",
    r"incarnation|incarnations|made again": "generation of a topic; recreated",
    r"whoever|nobody|somebody|anybody": "name the subject: a person, a process, no driver, any user",
    r"upkeep": "maintenance",
    r"crown|crowns|crowned": "promote",
    r"mend|mends|mended": "fix",
    r"aside": "quarantine (a record); or name where it is put",
    r"forget|forgets|forgot|forgotten": "prune, purge or remove",
    r"claimant|claimants|takeable|unfit": "write context; loadable; rejected",
    r"eyes|seat|seats": "poller; subscriber",
    r"away|lately": "unavailable; recently, or the number of seconds",
    r"stand|stands|standing|stood": "is, exists, is stored",
    r"take-over|takeover|takes over|taken over|took over|take over|taking over": "acquire the lease",
    r"affair|affairs": "name who is responsible",
    r"beats|beating": "heartbeat",
}
"""Words, as a regular expression without regard to case -> what to write, because the field does."""

PLACES = ("src", "docs", "sql", "dags", "plugins", "spark_jobs", "README.md", "CONTRIBUTING.md")
_TEXT = {".py", ".md", ".sql", ".toml", ".html", ".yml", ".json", ".txt", ".xml"}
_WORDS = re.compile(rf"(?<![\w-])({'|'.join(BANNED)})(?![\w-])", re.IGNORECASE)


def found(text: str) -> list[str]:
    """The banned words of a text, each with its line."""
    return [
        f"{number}: {match[0]}"
        for number, line in enumerate(text.splitlines(), 1)
        for match in _WORDS.finditer(line.replace("_", " "))
    ]


def files() -> list[Path]:
    """Every text file that a reader meets."""
    roots = [ROOT / place for place in PLACES]
    inside = [path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return [path for path in inside if path.is_file() and path.suffix in _TEXT]


@pytest.mark.parametrize("place", PLACES)
def test_the_words_are_the_fields(place: str) -> None:
    """No banned word is in the code, the SQL or the documents; identifiers count, too."""
    bad = [
        f"{path.relative_to(ROOT)}:{hit}"
        for path in files()
        if path.relative_to(ROOT).parts[0] == place
        for hit in found(path.read_text(encoding="utf-8"))
    ]
    assert bad == [], f"{len(bad)} banned words"


def test_a_banned_word_would_be_seen() -> None:
    """The list works on prose and on identifiers, and leaves longer words alone."""
    assert found("the wish is told") == ["1: wish", "1: told"]
    assert found("def set_aside(): ...") == ["1: aside"]
    assert found("standalone, understand, essay, always") == []
