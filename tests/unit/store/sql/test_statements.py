"""The slices by which Spark reads in parallel."""

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from tidemill.store.sql import dialect

of = dialect("mariadb")


@given(
    cuts=st.lists(st.integers(-(10**12), 10**12), unique=True, max_size=15).map(sorted),
    beside=st.integers(-(10**12), 10**12),
)
def test_every_row_is_in_one_slice(cuts: list[int], beside: int) -> None:
    """Slices are disjoint and together hold every row, also one that came in after the cuts were read."""
    slices = of.key_ranges("id", cuts)
    for row in (beside, *cuts):
        with sqlite3.connect(":memory:") as connection:
            total = " + ".join(f"({condition})" for condition in slices)
            (found,) = connection.execute(f"SELECT {total} FROM (SELECT ? AS `id`)", (row,)).fetchone()
        connection.close()
        assert found == 1
    assert len(slices) == len(cuts) + 1


def test_other_keys_are_cut_by_a_digest_of_the_whole_key() -> None:
    """A key that is no whole number has no order to cut in; one value of a composite key's first column may be most
    of the table."""
    assert of.key_digests(["code"], 2) == ["CRC32(`code`) % 2 = 0", "CRC32(`code`) % 2 = 1"]
    assert of.key_digests(["shop", "id"], 2)[1] == "CRC32(CONCAT_WS(',', `shop`, `id`)) % 2 = 1"
