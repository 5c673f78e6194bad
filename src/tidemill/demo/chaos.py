"""Deliberate trouble for a feed: duplicates, disorder and malformed records, all of it repeatable by a seed.

What was true stays: chaos adds records and moves them, it never takes one away.
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
"""A duplicate follows its record by at most so many records."""


class TroubleKind(IntEnum):
    """What an entry of a disturbed sequence is."""

    TRUE = 0
    """The record as it should come."""
    DUPLICATE = 1
    """The same bytes once more."""
    TRUNCATED = 2
    """Half of the JSON."""
    WRONG_TYPE = 3
    """A text where a number belongs."""
    WRONG_ENCODING = 4
    """Bytes that are not UTF-8, and no JSON either for a reader that replaces those."""
    EMPTY = 5
    """No byte at all."""
    WITHOUT_KEY = 6
    """Sound JSON whose key is null."""


MALFORMED = tuple(kind for kind in TroubleKind if kind > TroubleKind.DUPLICATE)

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chaos:
    """How much trouble. None by default."""

    duplicates: float = 0.0
    """Share of the records that come a second time, a little later."""
    disorder: int = 0
    """Records are shuffled within windows of so many; 0 keeps them in event-time order."""
    malformed: float = 0.0
    """Records that no decoder can accept, added per true record."""

    def __post_init__(self) -> None:
        for name in ("duplicates", "malformed"):
            rate = getattr(self, name)
            if not (math.isfinite(rate) and 0 <= rate <= 1):
                raise ConfigError(f"chaos {name} is a share", value=rate, remedy="give a number from 0 to 1")
        if self.disorder < 0:
            raise ConfigError("chaos disorder is a number of records", value=self.disorder, remedy="give 0 or more")

    @classmethod
    def parse(cls, text: str) -> Chaos:
        """Read ``duplicates=0.1,disorder=500,malformed=0.01``; any part may be left out.

        Raises:
            ConfigError: an unknown name, a name given twice, or a value of the wrong form.
        """
        found: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (word.strip() for word in part.partition("="))
            if name not in {field.name for field in fields(cls)} or name in found:
                raise ConfigError(
                    "chaos is not understood",
                    value=part,
                    remedy="write duplicates=0.1,disorder=500,malformed=0.01",
                )
            try:
                found[name] = int(value) if name == "disorder" else float(value)
            except ValueError:
                raise ConfigError(f"chaos {name} is not a number", value=value or None, remedy="see --help") from None
        return cls(**found)

    def __str__(self) -> str:
        return ",".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


@dataclass(frozen=True)
class Disturbed:
    """A sequence of records after chaos."""

    record: Integers
    """Per entry: which true record it is, or is made from."""
    kind: Integers
    """Per entry: its ``Kind``."""

    def __len__(self) -> int:
        return len(self.kind)


def disturb(count: int, chaos: Chaos, seed: int) -> Disturbed:
    """Apply chaos to ``count`` records. The same arguments give the same sequence."""
    random = np.random.default_rng(seed)
    true = np.arange(count)
    again = np.flatnonzero(random.random(count) < chaos.duplicates)
    bad = np.flatnonzero(random.random(count) < chaos.malformed)
    record = np.concatenate([true, again, bad])
    kind = np.concatenate(
        [
            np.full(count, TroubleKind.TRUE),
            np.full(len(again), TroubleKind.DUPLICATE),
            random.choice(MALFORMED, len(bad)),
        ]
    )
    # Halves: what is added comes after the true record at its place, never instead of it.
    place = np.concatenate([true, again + random.integers(0, DUPLICATE_REACH_RECORDS, len(again)) + 0.5, bad + 0.5])
    order = np.argsort(place, kind="stable")
    if chaos.disorder > 1:
        window = np.arange(len(order)) // chaos.disorder
        order = order[np.lexsort((random.random(len(order)), window))]
    return Disturbed(record=record[order], kind=kind[order])


def spoil(value: bytes, kind: TroubleKind) -> bytes:
    """Make a malformed record of a true one. The other kinds leave it as it is."""
    match kind:
        case TroubleKind.TRUNCATED:
            return value[: len(value) // 2]
        case TroubleKind.WRONG_TYPE:
            return re.sub(rb'"distance":\d+', b'"distance":"far"', value)
        case TroubleKind.WRONG_ENCODING:
            return value.decode().encode("utf-16")
        case TroubleKind.EMPTY:
            return b""
        case TroubleKind.WITHOUT_KEY:
            return re.sub(rb'"id":\d+', b'"id":null', value)
        case _:
            return value
