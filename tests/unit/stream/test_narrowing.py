"""The search for the records that a task fails for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.store.write.context import Range
from tidemill.stream.narrowing import first_failure


class Tried:
    """Ranges with bad offsets; records what was tried."""

    def __init__(self, bad: set[int]) -> None:
        self.bad, self.attempts = bad, 0
        self.alone: set[int] = set()
        self.error = ValueError("bad")

    def __call__(self, span: Range) -> Exception | None:
        self.attempts += 1
        assert span.start < span.until
        found = {offset for offset in self.bad if span.start <= offset < span.until}
        if found and span.until - span.start == 1:
            self.alone |= found
        return self.error if found else None


@given(
    st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))),
    st.integers(1, 400),
)
def test_every_bad_record_and_no_other_is_found(case: tuple[int, set[int]], length: int) -> None:
    """In the order of the offsets, and each was tried by itself before it is called bad."""
    size, bad = case
    tried, found, at = Tried({1_000 + each for each in bad}), [], 1_000
    while at < 1_000 + size:
        at, error = first_failure(Range(0, at, 1_000 + size), length, tried)
        if error is not None:
            found.append(at)
        at += 1
    assert found == sorted(tried.bad)
    assert tried.alone == tried.bad


@pytest.mark.parametrize("place", [0, 1, 4_999, 50_000, 99_999])
def test_one_bad_record_among_many_takes_few_attempts(place: int) -> None:
    """About 2 log2(n)."""
    tried = Tried({place})
    assert first_failure(Range(0, 0, 100_000), 100_000, tried) == (place, tried.error)
    assert tried.attempts <= 2 * math.log2(100_000)


def test_records_that_fail_only_together_are_passed_over() -> None:
    """A machine with little memory may fail for a long range, and for none of its records."""

    def attempt(span: Range) -> Exception | None:
        return MemoryError() if span.until - span.start > 3 else None

    assert first_failure(Range(0, 0, 100), 100, attempt) == (100, None)
