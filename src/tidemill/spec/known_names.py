"""Refuse a name that nothing has, and say which one was meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from tidemill.errors import SpecError


def known(place: str, value: str, names: Collection[str]) -> None:
    """Refuse ``value`` unless it is one of ``names``.

    Raises:
        SpecError: it is none; the nearest one, or all of them, are the remedy.
    """
    if value not in names:
        near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
        raise SpecError(f"{place} names nothing known", value=value, remedy=remedy)
