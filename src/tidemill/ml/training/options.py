"""Options of one training, from the form of a run: the JSON document in ``refreshes.options``.

Keys: ``from`` and ``until``, ISO times or null, in UTC unless they carry an offset: only rows whose ``known_at`` is in
``[from, until)`` are trained on and held out; ``parameters``, which override those of the estimator in pipeline.yaml.
Training ignores other keys.
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
    """The options; none by default. Times are µs since 1970."""

    from_us: int | None = None
    until_us: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)
    """The document as it was requested."""


def parse_options(text: str | None) -> Options:
    """Read the options of a refresh.

    Raises:
        ModelError: they are not a JSON object, or one of the values is not valid.
    """
    if not text:
        return Options()
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError("TM-ML-OPTIONS-NOT-JSON", value=str(error)) from None
    if not isinstance(document, dict):
        raise ModelError("TM-ML-OPTIONS-NOT-OBJECT", value=text[:200])
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ModelError("TM-ML-OPTIONS-PARAMETERS", value=repr(parameters))
    begin, end = _time(document, "from"), _time(document, "until")
    if begin is not None and end is not None and begin >= end:
        raise ModelError("TM-ML-OPTIONS-RANGE", value=f"{document['from']} to {document['until']}")
    return Options(begin, end, parameters, document)


def _time(document: Mapping[str, Any], key: str) -> int | None:
    value = document.get(key)
    if value in (None, ""):
        return None
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        raise ModelError("TM-ML-OPTIONS-TIME", value=value, key=key) from None
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)
