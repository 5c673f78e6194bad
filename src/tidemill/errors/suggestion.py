"""The remedy for an unknown name: the name that was probably meant."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_LEAST_SIMILARITY = 0.5
"""Ratio of difflib, from 0 to 1, from which a known name is suggested."""


def suggestion(name: str, known: Collection[str]) -> str:
    """What to write in place of an unknown name: the most similar of the known names, or any of them."""
    similar = get_close_matches(name, known, n=1, cutoff=_LEAST_SIMILARITY)
    return f"did you mean {similar[0]}?" if similar else f"use one of: {', '.join(known) or 'none'}"
