"""How drivers that end without an error narrow the range that they end at, driver by driver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.store.control.suspects import Suspect
from tidemill.store.write.context import Range
from tidemill.stream.suspicion import MOST_ATTEMPTS, is_proven, parts_of


def drain(size: int, deadly: set[int]) -> tuple[list[int], list[int]]:
    """What drivers make of a range in which some offsets end whoever reads them: written, and quarantined unread."""
    position, written, quarantined = 0, [], []
    recorded = Suspect(Range(0, 0, size))
    for epoch in range(1, 1_000):
        if is_proven(recorded, epoch):
            quarantined.append(recorded.range.start)
            position = recorded.range.until
            recorded = Suspect(Range(0, position, size))
        for part in parts_of(recorded, position, epoch):
            recorded = part
            if deadly & set(range(part.range.start, part.range.until)):
                break
            written += range(part.range.start, part.range.until)
            position = part.range.until
        else:
            if position == size:
                return written, quarantined
            recorded = Suspect(Range(0, position, size))
    raise AssertionError("not drained")


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=5))))
def test_every_deadly_record_and_no_other_is_quarantined(case: tuple[int, set[int]]) -> None:
    """All others are written, once and in order."""
    size, deadly = case
    written, quarantined = drain(size, deadly)
    assert quarantined == sorted(deadly)
    assert written == [offset for offset in range(size) if offset not in deadly]


@pytest.mark.parametrize("place", [0, 12_345, 19_999])
def test_a_batch_takes_few_drivers(place: int) -> None:
    """Fewer than open the circuit."""
    suspect, drivers = Suspect(Range(0, 0, 20_000)), 0
    while not is_proven(suspect, drivers + 1):
        drivers += 1
        suspect = next(
            part for part in parts_of(suspect, 0, drivers) if part.range.start <= place < part.range.until
        )  # fmt: skip
    assert suspect.range == Range(0, place, place + 1)
    assert drivers <= 5


def test_one_driver_that_ends_at_an_offset_proves_nothing() -> None:
    """It may have been ended by something else; nor does an earlier read of the same driver."""
    span = Range(0, 7, 8)
    assert not is_proven(Suspect(span, 1, MOST_ATTEMPTS - 1), 2)
    assert not is_proven(Suspect(span, 2, MOST_ATTEMPTS), 2)
    assert not is_proven(Suspect(Range(0, 7, 9), 1, MOST_ATTEMPTS), 2)
    assert is_proven(Suspect(span, 1, MOST_ATTEMPTS), 2)
