"""Faults for a feed: duplicates, disorder and malformed records, repeatable by a seed.

Chaos adds records and moves them. It never removes one, so the last state of every flight is in the topic.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.errors import ConfigError

DUPLICATE_REACH_RECORDS = 1000
"""A duplicate follows its record by at most this many records."""


class FaultKind(IntEnum):
    """The kinds of entries of a sequence with faults."""

    TRUE = 0
    """The record without a fault."""
    DUPLICATE = 1
    """The same bytes again."""
    TRUNCATED = 2
    """The first half of the JSON."""
    WRONG_TYPE = 3
    """A text in place of a number."""
    WRONG_ENCODING = 4
    """Bytes that are not UTF-8, and not JSON either for a reader that replaces them."""
    EMPTY = 5
    """No bytes."""
    WITHOUT_KEY = 6
    """Valid JSON whose key is null."""


MALFORMED = tuple(kind for kind in FaultKind if kind > FaultKind.DUPLICATE)

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chaos:
    """How many faults; none by default."""

    duplicates: float = 0.0
    """Share of the records that come a second time, a little later."""
    disorder: int = 0
    """Records are shuffled within windows of this many records; 0 keeps them in event-time order."""
    malformed: float = 0.0
    """Malformed records added per true record, which no decoder accepts."""

    def __post_init__(self) -> None:
        for name in ("duplicates", "malformed"):
            rate = getattr(self, name)
            if not (math.isfinite(rate) and 0 <= rate <= 1):
                raise ConfigError("TM-DEMO-CHAOS-SHARE", value=rate, name=name)
        if self.disorder < 0:
            raise ConfigError("TM-DEMO-CHAOS-DISORDER", value=self.disorder)

    @classmethod
    def parse(cls, text: str) -> Chaos:
        """Read ``duplicates=0.1,disorder=500,malformed=0.01``; any part may be left out.

        Raises:
            ConfigError: an unknown name, a name given twice, or a value of the wrong form.
        """
        values: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (word.strip() for word in part.partition("="))
            if name not in {field.name for field in fields(cls)} or name in values:
                raise ConfigError("TM-DEMO-CHAOS-SYNTAX", value=part)
            try:
                values[name] = int(value) if name == "disorder" else float(value)
            except ValueError:
                raise ConfigError("TM-DEMO-CHAOS-NUMBER", value=value or None, name=name) from None
        return cls(**values)

    def __str__(self) -> str:
        return ",".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


@dataclass(frozen=True)
class Disturbed:
    """A sequence of records with faults."""

    record: Integers
    """Per entry: the index of its true record, or of the one that it is made from."""
    kind: Integers
    """Per entry: its ``FaultKind``."""

    def __len__(self) -> int:
        return len(self.kind)


def disturb(count: int, chaos: Chaos, seed: int) -> Disturbed:
    """Add faults to ``count`` records. The same arguments give the same sequence."""
    random = np.random.default_rng(seed)
    true = np.arange(count)
    again = np.flatnonzero(random.random(count) < chaos.duplicates)
    bad = np.flatnonzero(random.random(count) < chaos.malformed)
    record = np.concatenate([true, again, bad])
    kind = np.concatenate(
        [
            np.full(count, FaultKind.TRUE),
            np.full(len(again), FaultKind.DUPLICATE),
            random.choice(MALFORMED, len(bad)),
        ]
    )
    # Halves: an added entry follows the true record of that place and never replaces it.
    place = np.concatenate([true, again + random.integers(0, DUPLICATE_REACH_RECORDS, len(again)) + 0.5, bad + 0.5])
    order = np.argsort(place, kind="stable")
    if chaos.disorder > 1:
        window = np.arange(len(order)) // chaos.disorder
        order = order[np.lexsort((random.random(len(order)), window))]
    return Disturbed(record=record[order], kind=kind[order])


def spoil(value: bytes, kind: FaultKind) -> bytes:
    """Make a malformed record of a true one; other kinds return it unchanged."""
    match kind:
        case FaultKind.TRUNCATED:
            return value[: len(value) // 2]
        case FaultKind.WRONG_TYPE:
            return re.sub(rb'"distance":\d+', b'"distance":"far"', value)
        case FaultKind.WRONG_ENCODING:
            return value.decode().encode("utf-16")
        case FaultKind.EMPTY:
            return b""
        case FaultKind.WITHOUT_KEY:
            return re.sub(rb'"id":\d+', b'"id":null', value)
        case _:
            return value
