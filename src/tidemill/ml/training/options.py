"""What a person asked of one training by the form of a run: ``refreshes.options``, a JSON document.

Keys: ``from`` and ``until``, ISO times or null, in UTC unless they say otherwise: only rows whose ``known_at`` is in
``[from, until)`` are learned from and held out; ``parameters``, which go over those of the estimator in pipeline.yaml.
Other keys are none of the training's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tidemill.errors import ModelError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Options:
    """What was asked; nothing by default. Times are µs since 1970."""

    from_us: int | None = None
    until_us: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    """The document itself."""


def parse_options(text: str | None) -> Options:
    """Read the options of a refresh.

    Raises:
        ModelError: they are no JSON object, or a value in them is none that it can be.
    """
    if not text:
        return Options()
    try:
        asked = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError("the options of the run are not JSON", value=str(error), remedy="ask for a run anew") from None
    if not isinstance(asked, dict):
        raise ModelError("the options of the run are not a JSON object", value=text[:200], remedy="ask for a run anew")
    parameters = asked.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ModelError(
            "parameters of the run is not a JSON object", value=repr(parameters), remedy='write, say: {"maxDepth": 4}'
        )
    begin, end = _time(asked, "from"), _time(asked, "until")
    if begin is not None and end is not None and begin >= end:
        raise ModelError(
            "from of the run is not before until", value=f"{asked['from']}, {asked['until']}", remedy="exchange them"
        )
    return Options(begin, end, parameters, asked)


def _time(asked: Mapping[str, Any], key: str) -> int | None:
    value = asked.get(key)
    if value in (None, ""):
        return None
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        raise ModelError(
            f"{key} of the run is not a time", value=value, remedy="write it as 2013-06-01 or 2013-06-01T12:00:00"
        ) from None
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)
