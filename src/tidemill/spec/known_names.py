"""Rejects a name that does not exist in the pipeline."""

from __future__ import annotations

from collections.abc import Collection

from tidemill.errors import SpecError
from tidemill.errors.suggestion import suggestion


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
