"""Rejects a name that does not exist, and suggests the one that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from tidemill.errors import SpecError


def require_known(place: str, value: str, names: Collection[str]) -> None:
    """Reject ``value`` unless it is one of ``names``.

    Args:
        place: where pipeline.yaml holds the value, for the message.
        value: what is written there.
        names: what may be written there.

    Raises:
        SpecError: it is none of them.
    """
    if value not in names:
        raise SpecError("TM-SPEC-NAME-UNKNOWN", value=value, place=place, suggestion=suggestion(value, names))


def suggestion(value: str, names: Collection[str]) -> str:
    """What to write in place of an unknown name: the nearest of ``names``, or any of them."""
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"use one of: {', '.join(names) or 'none'}"
