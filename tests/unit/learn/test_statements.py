"""The slices by which Spark reads in parallel."""

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from tidemill.store.dialects import dialect

key_slices = dialect("mariadb").key_slices


@given(
    low=st.integers(-(10**12), 10**12),
    width=st.integers(0, 10**6),
    parts=st.integers(1, 16),
    beside=st.integers(-5, 10**6 + 5),
)
def test_every_row_is_in_one_slice(low: int, width: int, parts: int, beside: int) -> None:
    """Slices are disjoint and together hold every row, also one that came in after the bounds were read."""
    slices = key_slices("id", (low, low + width), parts)
    with sqlite3.connect(":memory:") as connection:
        total = " + ".join(f"({condition})" for condition in slices)
        (found,) = connection.execute(f"SELECT {total} FROM (SELECT ? AS `id`)", (low + beside,)).fetchone()
    connection.close()
    assert found == 1
    assert len(slices) <= parts


def test_other_keys_are_cut_by_digest() -> None:
    """A key that is no whole number has no bounds to cut between."""
    assert key_slices("code", None, 2) == ["CRC32(`code`) % 2 = 0", "CRC32(`code`) % 2 = 1"]
