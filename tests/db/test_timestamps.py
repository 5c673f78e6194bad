"""A producer may give a record any 64-bit number as its time: the ledger and the quarantine take every one of them."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import pytest

from support.writes import Writer
from tidemill.config import Account
from tidemill.store.connection import session
from tidemill.store.control import ledger, quarantine
from tidemill.store.control.quarantine import QuarantineFilter
from tidemill.store.write.context import Range, instant
from tidemill.store.write.ledger_rows import Rejected

_2038 = 2**31 * 10**6
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999 in µs since 1970."""
EDGES = [0, -1000, 1, _2038 - 1, _2038, _2038 + 1, 2**32 * 10**6, FIRST_US, LAST_US, FIRST_US - 1, LAST_US + 1]
EDGES += [sign * 2**bits * scale for sign in (-1, 1) for bits in (31, 53, 62, 63) for scale in (1, 1000)]


@pytest.mark.parametrize("count", [100, pytest.param(5_000, marks=pytest.mark.full)])
def test_every_time_is_stored(entity: Writer, run_seed: int, count: int) -> None:
    """To the microsecond in the years 1 to 9999, and as the first or the last moment of them beyond."""
    chance = random.Random(run_seed)
    times = EDGES + [chance.randrange(-(2**63), 2**63) >> chance.randrange(63) for _ in range(count)]
    rejected = tuple(Rejected(offset, "no", us, value=b"v") for offset, us in enumerate(times))
    assert entity.write([], rejected=rejected, newest_us=min(times)).quarantined == len(times)
    entity.write([(1, "red", 5, 10)], newest_us=max(times))
    context = entity.write_context
    with session(entity.settings, Account.READ) as connection:
        topic = (context.stream, context.topic, context.generation)
        found = quarantine.read_range(connection, topic, Range(0, 0, len(times)), QuarantineFilter(), 2**62)
        assert [each.timestamp_us for each in found] == [min(max(us, FIRST_US), LAST_US) for us in times]
        assert ledger.totals(connection, context.stream).newest_at == datetime.max
    assert entity.verify() == []


def test_an_instant_is_exact() -> None:
    """Where a DATETIME has it."""
    assert instant(None) is None
    assert instant(_2038 + 7) == datetime(1970, 1, 1) + timedelta(microseconds=_2038 + 7)
    assert (instant(2**63), instant(-(2**63))) == (datetime.max, datetime.min)
